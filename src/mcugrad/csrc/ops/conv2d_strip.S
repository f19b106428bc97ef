/* void mcg_conv2d_strip(const mcg_strip_t *s, int32_t outputs): see conv2d_strip.h.
 *
 * Each weight word is loaded and widened once for four pixels: 13 instructions for 16 products.
 *   r0 columns   r1 weights   r2 groups left   r3, r12 widened weights   r4-r7 columns of two pixels
 *   r8-r11 accumulators   lr s   [sp] output, [sp, 4] outputs, [sp, 8] weights, [sp, 12] resting weights
 */
#if defined(__ARM_FEATURE_SIMD32)

#define COLUMNS 0
#define WEIGHT 4
#define LIVE_GROUPS 12
#define REST_GROUPS 16
#define LIVE_PAD 20
#define REST_PAD 24
#define BIAS 28
#define MULTIPLIER 32
#define OFFSET 40
#define Y 44

  .syntax unified
  .thumb

/* acc += four inputs of four pixels . four weights */
.macro group
  ldr r12, [r1], #4
  ldmia r0!, {r4-r7}
  sxtb16 r3, r12
  sxtb16 r12, r12, ror #8
  smlad r8, r4, r3, r8
  smlad r9, r6, r3, r9
  smlad r8, r5, r12, r8
  smlad r9, r7, r12, r9
  ldmia r0!, {r4-r7}
  smlad r10, r4, r3, r10
  smlad r11, r6, r3, r11
  smlad r10, r5, r12, r10
  smlad r11, r7, r12, r11
.endm

/* r2 groups, r2 > 0 */
.macro groups
  subs r2, r2, #4
  blt 2f
1:
  group
  group
  group
  group
  subs r2, r2, #4
  bge 1b
2:
  adds r2, r2, #4
  beq 4f
3:
  group
  subs r2, r2, #1
  bne 3b
4:
.endm

/* y[r2] = clamp8(((high word of acc * r0) >> r1) + r3) / 2 */
.macro requantize acc, y
  smull r12, \acc, \acc, r0
  asr \acc, \acc, r1
  add \acc, \acc, r3
  ssat \acc, #8, \acc, asr #1
  strb \acc, [\y, r2]
.endm

  .section .text.mcg_conv2d_strip, "ax", %progbits
  .balign 4
  .global mcg_conv2d_strip
  .type mcg_conv2d_strip, %function
  .thumb_func
mcg_conv2d_strip:
  push {r4-r11, lr}
  sub sp, sp, #20
  mov lr, r0
  str r1, [sp, #4]
  ldrd r0, r1, [lr, #WEIGHT]
  strd r0, r1, [sp, #8]
  movs r2, #0
5:
  str r2, [sp]
  ldr r3, [lr, #BIAS]
  ldr r0, [lr, #COLUMNS]
  ldr r8, [r3, r2, lsl #2]
  ldr r2, [lr, #LIVE_GROUPS]
  ldr r1, [sp, #8]
  mov r9, r8
  mov r10, r8
  mov r11, r8
  groups
  ldrd r2, r3, [lr, #REST_GROUPS]
  sub r1, r1, r3
  str r1, [sp, #8]
  cmp r2, #0
  beq 6f
  ldr r1, [sp, #12]
  groups
  ldr r3, [lr, #REST_PAD]
  sub r1, r1, r3
  str r1, [sp, #12]
6:
  ldr r2, [sp]
  ldrd r0, r1, [lr, #MULTIPLIER]
  ldr r3, [lr, #OFFSET]
  ldr r0, [r0, r2, lsl #2]
  ldrb r1, [r1, r2]
  add r12, lr, #Y
  ldmia r12, {r4-r7}
  subs r1, r1, #33
  requantize r8, r4
  requantize r9, r5
  requantize r10, r6
  requantize r11, r7
  ldr r3, [sp, #4]
  adds r2, r2, #1
  cmp r2, r3
  blt 5b
  add sp, sp, #20
  pop {r4-r11, pc}
  .size mcg_conv2d_strip, . - mcg_conv2d_strip

#endif
