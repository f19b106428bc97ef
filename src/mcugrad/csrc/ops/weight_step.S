/* void mcg_step_nibbles(const mcg_nibbles_t *s): see weight_step.h.
 *
 * Four weights at a time.  A weight and its residual are one number of twelve bits, 16 * (w + 128) + residual + 8, whose
 * upper eight bits are the rounded weight; two numbers share a register.
 *   r0 weight   r1 residual   r2 grad   r3 number   r4-r7 the four   r11 k   lr 2^k - 1   [sp] key, factors, the last four weights
 */
#if defined(__ARM_FEATURE_SIMD32)

#define FRAME 16
#define LEAST 24  /* 16 * (-127 + 128) + 8 */
#define MOST 4088 /* 16 * (127 + 128) + 8 */

  .syntax unified
  .thumb

/* op each of the four, by */
.macro each op, by
  .irp v, r4, r5, r6, r7
  \op \v, \v, \by
  .endr
.endm

.macro fold shift
  .irp v, r4, r5, r6, r7
  eor \v, \v, \v, lsr #\shift
  .endr
.endm

.macro saturate
  .irp v, r4, r5, r6, r7
  ssat \v, #16, \v
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
  ldm r0, {r4-r10}           /* key, weight, residual, grad, number, n, k */
  mov r0, r5
  mov r1, r6
  mov r2, r7
  mov r3, r8
  add r7, r5, r9
  sub r7, r7, #4
  mov r11, r10
  ldrd r5, r6, 8f
  stm sp, {r4-r7}
  mov r4, #1
  lsl lr, r4, r11
  sub lr, lr, #1
  mov r4, #0x50000           /* SEL takes bytes 0 and 2 of its first operand */
  msr APSR_g, r4
1:
  ldm sp, {r8-r10, r12}
  cmp r0, r12                /* nothing below changes the flags N, Z, C, V */
  ldrd r4, r5, [r3], #8
  ldrd r6, r7, [r3], #8
  each add, r8
  fold 15
  each mul, r9
  fold 13
  each mul, r10
  fold 16
  each and, lr
  ldmia r2!, {r8-r10, r12}
  add r4, r4, r8
  add r5, r5, r9
  add r6, r6, r10
  add r7, r7, r12
  each asr, r11
  saturate
  pkhbt r4, r4, r6, lsl #16
  pkhbt r5, r5, r7, lsl #16
  ldr r6, [r0]
  ldrh r7, [r1]
  mov r10, #0x000F000F
  eor r6, r6, #0x80808080
  orr r7, r7, r7, lsl #8
  eor r7, r7, #0x00880088
  uxtb16 r8, r6
  uxtb16 r6, r6, ror #8
  and r9, r10, r7
  and r7, r10, r7, lsr #4
  orr r9, r9, r8, lsl #4
  orr r7, r7, r6, lsl #4
  qsub16 r4, r9, r4
  qsub16 r5, r7, r5
  usat16 r4, #12, r4
  usat16 r5, #12, r5
  ldrd r6, r7, 9f
  uqadd16 r4, r4, r6
  uqadd16 r5, r5, r6
  uqsub16 r4, r4, r7
  uqsub16 r5, r5, r7
  add r4, r4, #(LEAST * 0x10001)
  add r5, r5, #(LEAST * 0x10001)
  lsr r6, r4, #4
  lsl r7, r5, #4
  sel r6, r6, r7
  eor r6, r6, #0x80808080
  str r6, [r0], #4
  and r4, r4, r10
  and r5, r5, r10
  orr r4, r4, r5, lsl #4
  orr r4, r4, r4, lsr #8
  eor r4, r4, #0x88888888
  strh r4, [r1], #2
  bne 1b
  add sp, sp, #FRAME
  pop {r4-r11, pc}
  .balign 4
8:
  .word 0x85EBCA6B, 0xC2B2AE35
9:
  .word (0xFFFF - MOST) * 0x10001, (0xFFFF - MOST + LEAST) * 0x10001
  .size mcg_step_nibbles, . - mcg_step_nibbles

#endif
