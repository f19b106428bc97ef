/* void mcg_step_nibbles(const mcg_nibbles_t *s), void mcg_step_columns(const mcg_columns_t *s): see weight_step.h.
 *
 * Four weights at a time.  A weight and its residual are a number of 16 bits, 16 * w + residual + ZERO; two of them share a
 * register, the one that moves next below.  With m = -2^(32 - k) and the random number u, the high word of
 * m * gradient + ((~u << (32 - k)) mod 2^32) is -((gradient + r) >> k): SMLAL adds it, and takes nothing from the number above.
 *   r0 weight   r1 residual   r2 grad   r4, r5, r7, r9 the four   r6, r8 weights 0 2 and 1 3
 */
#if defined(__ARM_FEATURE_SIMD32)

#define ROUND 0x0818                   /* makes 16 * w + residual + 2032 a rounded weight, modulo 256, in bits 4 to 11 */
#define ZERO (16 * ROUND + 8)          /* ROUND once more: registers are few */
#define CAP (0xFFFF - ZERO - 16 * 127)
#define FLOOR (0xFFFF - 2 * 16 * 127)

/* The stack frame: both lanes of CAP, FLOOR, ROUND, ROUND << 4 and a nibble, where and how a loop ends, factors. */
#define END 20
#define STEP 24
#define FACTORS 28
#define FRAME 36

  .syntax unified
  .thumb

/* op each of the four, by */
.macro each op, by:vararg
  .irp v, r4, r5, r7, r9
  \op \v, \v, \by
  .endr
.endm

.macro fold shift
  .irp v, r4, r5, r7, r9
  eor \v, \v, \v, lsr #\shift
  .endr
.endm

.macro enter
  push {r4-r11, lr}
  sub sp, sp, #FRAME
  adr r4, 8f
  ldm r4, {r4-r10}
  stm sp, {r4-r8}
  strd r9, r10, [sp, #FACTORS]
  mov r4, #0x50000           /* SEL takes bytes 0 and 2 of its first operand */
  msr APSR_g, r4
.endm

.macro unpack
  ldr r4, [r0]
  ldrh r5, [r1]
  sxtab16 r7, r6, r4, ror #24
  sxtab16 r6, r6, r4, ror #16
  orr r5, r5, r5, lsl #8
  eor r5, r5, #0x00880088
  and r4, r8, r5, ror #16
  and r5, r8, r5, ror #20
  add r6, r4, r6, lsl #4     /* 2 below 0 */
  add r8, r5, r7, lsl #4     /* 3 below 1 */
.endm

/* The random numbers of the four, from their own and the common share. */
.macro random key
  each add, \key
  fold 15
  each mul, r12
  fold 13
  each mul, lr
  fold 16
.endm

/* r4 the weights, r6 their residuals */
.macro pack
  uqadd16 r6, r6, r4
  uqadd16 r8, r8, r4
  uqsub16 r6, r6, r5
  uqsub16 r8, r8, r5
  add r4, r6, r7
  lsr r4, r4, #4
  add r5, r9, r8, lsl #4
  sel r4, r4, r5
  and r6, r6, r10
  and r8, r8, r10
  orr r6, r6, r8, lsl #4
  orr r6, r6, r6, lsr #8
.endm

.macro leave
  add sp, sp, #FRAME
  pop {r4-r11, pc}
  .balign 4
8:
  .word CAP * 0x10001, FLOOR * 0x10001, ROUND * 0x10001, ROUND * 0x100010, 0x000F000F, 0x85EBCA6B, 0xC2B2AE35
.endm

/* r3 number   r11 m */
  .section .text.mcg_step_nibbles, "ax", %progbits
  .balign 4
  .global mcg_step_nibbles
  .type mcg_step_nibbles, %function
  .thumb_func
mcg_step_nibbles:
  enter
  ldm r0, {r0-r6}            /* weight, residual, grad, number, n, k, key */
  add r4, r4, r0
  strd r4, r6, [sp, #END]    /* and key */
  rsb r5, r5, #32
  mvn r11, #0
  lsl r11, r11, r5
1:
  ldm sp, {r4-r10, r12, lr}
  unpack
  ldmia r3!, {r4, r5, r7, r9}
  random r10
  each mla, r11, r11
  ldrd r10, r12, [r2, #8]
  smlal r7, r6, r10, r11
  smlal r9, r8, r12, r11
  ldrd r10, r12, [r2], #16
  ror r6, r6, #16
  ror r8, r8, #16
  smlal r4, r6, r10, r11
  smlal r5, r8, r12, r11
  ldm sp, {r4, r5, r7, r9, r10, r12}
  pack
  str r4, [r0], #4
  strh r6, [r1], #2
  cmp r0, r12
  bne 1b
  leave
  .size mcg_step_nibbles, . - mcg_step_nibbles

/* r3 s   r11 key */
  .section .text.mcg_step_columns, "ax", %progbits
  .balign 4
  .global mcg_step_columns
  .type mcg_step_columns, %function
  .thumb_func
mcg_step_columns:
  enter
  mov r3, r0
  add r4, r0, #32
  ldm r4, {r0-r2, r4, r11}   /* weight, residual, grad, taps, key */
  add r4, r2, r4, lsl #4
  ldr r5, 9f
  strd r4, r5, [sp, #END]    /* and the number of a tap */
1:
  ldm sp, {r4-r10, r12, lr}
  unpack
  ldm r3, {r4, r5, r7, r9}
  random r11
  ldrd r10, r12, [r3, #24]
  mla r7, r7, r10, r10
  mla r9, r9, r12, r12
  ldr lr, [r2, #8]
  smlal r7, r6, lr, r10
  ldr lr, [r2, #12]
  smlal r9, r8, lr, r12
  ldrd r10, r12, [r3, #16]
  mla r4, r4, r10, r10
  mla r5, r5, r12, r12
  ror r6, r6, #16
  ror r8, r8, #16
  ldr lr, [r2, #4]
  smlal r5, r8, lr, r12
  ldr lr, [r2], #16
  smlal r4, r6, lr, r10
  ldm sp, {r4, r5, r7, r9, r10, r12, lr}
  add r11, r11, lr
  pack
  ldr r5, [r3, #52]
  strh r6, [r1]
  str r4, [r0]
  add r0, r0, r5
  add r1, r1, r5, asr #1
  cmp r2, r12
  bne 1b
  leave
9:
  .word 0x9E3779B1
  .size mcg_step_columns, . - mcg_step_columns

#endif
