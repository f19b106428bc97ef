/* void mcg_step_nibbles(const mcg_nibbles_t *s): see weight_step.h.
 *
 * Four weights at a time.  A weight and its residual are a number of 16 bits, 16 * w + residual + ZERO; two of them share a
 * register, the one that moves next below.  With m = -2^(32 - k) and the random number u, the high word of
 * m * gradient + ((~u << (32 - k)) mod 2^32) is -((gradient + r) >> k): SMLAL adds it, and takes nothing from the number above.
 *   r0 weight   r1 residual   r2 grad   r3 number   r4, r5, r7, r9 the four   r6, r8 weights 0 2 and 1 3   r11 m
 */
#if defined(__ARM_FEATURE_SIMD32)

#define ROUND 0x0818                   /* makes 16 * w + residual + 2032 a rounded weight, modulo 256, in bits 4 to 11 */
#define ZERO (16 * ROUND + 8)          /* ROUND once more: registers are few */
#define CAP (0xFFFF - ZERO - 16 * 127)
#define FLOOR (0xFFFF - 2 * 16 * 127)

/* The stack frame: constants, both lanes of each, and the two values that it begins with. */
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

  .section .text.mcg_step_nibbles, "ax", %progbits
  .balign 4
  .global mcg_step_nibbles
  .type mcg_step_nibbles, %function
  .thumb_func
mcg_step_nibbles:
  push {r4-r11, lr}
  sub sp, sp, #FRAME
  adr r1, 8f
  ldm r1, {r1-r6, r12}       /* cap, floor, round, round << 4, nibbles, factors */
  stm sp, {r1-r5}
  strd r6, r12, [sp, #28]
  ldm r0, {r4-r10}           /* key, weight, residual, grad, number, n, k */
  mov r0, r5
  mov r1, r6
  mov r2, r7
  mov r3, r8
  add r5, r5, r9
  sub r5, r5, #4
  strd r5, r4, [sp, #20]     /* the last four, key */
  rsb r10, r10, #32
  mvn r11, #0
  lsl r11, r11, r10
  mov r4, #0x50000           /* SEL takes bytes 0 and 2 of its first operand */
  msr APSR_g, r4
1:
  ldm sp, {r4-r10, r12, lr}
  cmp r0, r9                 /* nothing below changes the flags N, Z, C, V */
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
  ldmia r3!, {r4, r5, r7, r9}
  each add, r10
  fold 15
  each mul, r12
  fold 13
  each mul, lr
  fold 16
  each mla, r11, r11
  ldrd r10, r12, [r2, #8]
  smlal r7, r6, r10, r11
  smlal r9, r8, r12, r11
  ldrd r10, r12, [r2], #16
  ror r6, r6, #16
  ror r8, r8, #16
  smlal r4, r6, r10, r11
  smlal r5, r8, r12, r11
  ldm sp, {r4, r5, r7, r9, r10}
  uqadd16 r6, r6, r4
  uqadd16 r8, r8, r4
  uqsub16 r6, r6, r5
  uqsub16 r8, r8, r5
  add r4, r6, r7
  lsr r4, r4, #4
  add r5, r9, r8, lsl #4
  sel r4, r4, r5
  str r4, [r0], #4
  and r6, r6, r10
  and r8, r8, r10
  orr r6, r6, r8, lsl #4
  orr r6, r6, r6, lsr #8
  strh r6, [r1], #2
  bne 1b
  add sp, sp, #FRAME
  pop {r4-r11, pc}
  .balign 4
8:
  .word CAP * 0x10001, FLOOR * 0x10001, ROUND * 0x10001, ROUND * 0x100010, 0x000F000F, 0x85EBCA6B, 0xC2B2AE35
  .size mcg_step_nibbles, . - mcg_step_nibbles

#endif
