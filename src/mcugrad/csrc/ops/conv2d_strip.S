/* void mcg_conv2d_strip_<pixels>(const mcg_strip_t *s): see conv2d_strip.h.
 *
 * Each weight word is loaded and widened once for all pixels; with six of them: 18 instructions for 24 products.
 *   r0 columns   r1 weights   r2, r3 widened weights   r4-r7 columns of two pixels   r8-r12, lr accumulators
 * No register is left to count with: the loop ends where the columns do.
 */
#if defined(__ARM_FEATURE_SIMD32)

/* The stack frame is a copy of mcg_strip_t; tail and entries become addresses. */
#define OUTPUT 4
#define Y3 24
#define BIAS 28 /* and columns */
#define WEIGHT 36
#define END 40
#define TAIL 44 /* where an output ends */
#define LIVE_END 48
#define LIVE_PAD 52
#define REST_END 56
#define REST 60
#define REST_PAD 64
#define LIVE_ENTRY 68
#define REST_ENTRY 72
#define WORDS 19
#define FRAME 76

  .syntax unified
  .thumb

/* accumulators a and b = before + four inputs of two pixels . four weights */
.macro two a, b, before_a, before_b
  ldmia r0!, {r4-r7}
  smlad \a, r4, r2, \before_a
  smlad \b, r6, r2, \before_b
  smlad \a, r5, r3, \a
  smlad \b, r7, r3, \b
.endm

.macro weights
  ldr r3, [r1], #4
  sxtb16 r2, r3
  sxtb16 r3, r3, ror #8
.endm

/* The first group of an output; the bias is in the last accumulator. */
.macro first_group pixels
  weights
.if \pixels == 6
  two r8, r9, lr, lr
  two r10, r11, lr, lr
  two r12, lr, lr, lr
.elseif \pixels == 4
  two r8, r9, r11, r11
  two r10, r11, r11, r11
.else
  ldmia r0!, {r4, r5}
  smlad r8, r4, r2, r8
  smlad r8, r5, r3, r8
.endif
.endm

.macro group pixels
  weights
.if \pixels == 1
  ldmia r0!, {r4, r5}
  smlad r8, r4, r2, r8
  smlad r8, r5, r3, r8
.else
  two r8, r9, r8, r9
  two r10, r11, r10, r11
.endif
.if \pixels == 6
  two r12, lr, r12, lr
.endif
.endm

/* Around the loop until the columns end. */
.macro next_pass
  ldr r2, [sp, #END]
  cmp r0, r2
  bne 1b
.endm

/* y, output, pitch, multiplier, shift, offset, y3 */
.macro output
  ldm sp, {r0, r2-r7}
.endm

/* `name` for each accumulator */
.macro each name, pixels
  \name r8
.if \pixels > 1
  \name r9
  \name r10
  \name r11
.endif
.if \pixels == 6
  \name r12
  \name lr
.endif
.endm

/* acc = clamp8((acc * r4 / 2^32 + r6) >> r5) */
.macro requantize acc
  smmla \acc, \acc, r4, r6
  asr \acc, \acc, r5
  ssat \acc, #8, \acc
.endm

.macro double acc
  qadd \acc, \acc, \acc
.endm

/* acc * 2^30 / 2^32 = acc * r4 / 2^32 >> r5 */
.macro divide acc
  smmul \acc, \acc, r4
  asr \acc, \acc, r5
  lsl \acc, \acc, #2
.endm

.macro strip name, pixels
  .section .text.\name, "ax", %progbits
  .balign 4
  .global \name
  .type \name, %function
  .thumb_func
\name:
  push {r4-r11, lr}
  sub sp, sp, #FRAME
  mov r1, sp
  ldmia r0!, {r2-r11}
  stmia r1!, {r2-r11}
  adr r2, 10f
  adr lr, 1f
  orr lr, lr, #1
  ldmia r0!, {r4-r12}
  ldrb r5, [r2, r5]
  ldrb r11, [r2, r11]
  ldrb r12, [r2, r12]
  add r5, lr, r5, lsl #1
  add r11, lr, r11, lsl #1
  add r12, lr, r12, lsl #1
  stmia r1!, {r4-r12}
  ldr r2, [sp, #OUTPUT]
  ldr r1, [sp, #WEIGHT]
  b 5f
  .balign 4
10:
  .byte (1f - 1f) / 2, (2f - 1f) / 2, (3f - 1f) / 2, (4f - 1f) / 2, (6f - 1f) / 2
  .byte (15f - 1f) / 2, (17f - 1f) / 2, (8f - 1f) / 2, (16f - 1f) / 2 /* MCG_TAIL_... */
  .balign 4
1:
  group \pixels
2:
  group \pixels
3:
  group \pixels
4:
  group \pixels
6:
  ldr pc, [sp, #TAIL]
17:
  next_pass
15:
  output
  ldr r4, [r4, r2, lsl #2]
  ldrb r5, [r5, r2]
  subs r5, r5, #33
7:
  lsls r6, r6, r5
  adds r5, r5, #1
  each requantize, \pixels
.if \pixels > 1
  strb r9, [r0, r3]
  strb r10, [r0, r3, lsl #1]
.endif
  strb r8, [r0], #1
.if \pixels == 6
  strb r12, [r7, r3]
  strb lr, [r7, r3, lsl #1]
.endif
.if \pixels > 1
  strb r11, [r7], #1
.endif
  adds r2, r2, #1
  strd r0, r2, [sp]
  str r7, [sp, #Y3]
  beq 9f
5:
  ldrd r3, r0, [sp, #BIAS]
.if \pixels == 6
  ldr lr, [r3, r2, lsl #2]
.elseif \pixels == 4
  ldr r11, [r3, r2, lsl #2]
.else
  ldr r8, [r3, r2, lsl #2]
.endif
  first_group \pixels
  ldr pc, [sp, #LIVE_ENTRY]
9:
  add sp, sp, #FRAME
  pop {r4-r11, pc}

  /* The end of one segment without whole groups. */
8:
  next_pass
  ldr r2, [sp, #LIVE_PAD]
  subs r1, r1, r2
  b 15b

  /* The end of one of two segments, or of one with unusual shifts. */
16:
  next_pass
  ldr r3, [sp, #LIVE_END]
  cmp r0, r3
  bne 11f
  ldrd r2, r3, [sp, #LIVE_PAD]
  subs r1, r1, r2
  cmp r0, r3
  beq 12f
  str r1, [sp, #WEIGHT]
  str r3, [sp, #END]
  ldr r1, [sp, #REST]
  ldr pc, [sp, #REST_ENTRY]
11:
  ldr r2, [sp, #REST_PAD]
  str r3, [sp, #END]
  subs r1, r1, r2
  str r1, [sp, #REST]
  ldr r1, [sp, #WEIGHT]
12:
  output
  ldr r4, [r4, r2, lsl #2]
  ldrb r5, [r5, r2]
  subs r5, r5, #33
  blt 13f
  cmp r5, #22
  blt 7b
  /* a large shift, in two steps of which the second is by 8 */
  subs r5, r5, #7
  each divide, \pixels
  mov r4, #0x40000000
  movs r5, #7
  b 7b
13:
  /* a small one: saturating doublings bring it to 33, and 25 of them are enough for any */
  negs r5, r5
  cmp r5, #25
  it gt
  movgt r5, #25
14:
  each double, \pixels
  subs r5, r5, #1
  bne 14b
  b 7b
  .size \name, . - \name
.endm

  strip mcg_conv2d_strip_6, 6
  strip mcg_conv2d_strip_4, 4
  strip mcg_conv2d_strip_1, 1

/* a, b = a group of the word at b */
.macro widen a, b
  sxtab16 \a, r3, \b
  sxtab16 \b, r3, \b, ror #8
.endm

/* void mcg_conv2d_widen_6(int16_t *columns, const int8_t *from, int32_t n, int32_t zero): see conv2d_strip.h.
 *
 *   r0 columns   r1 from   r2 n   r3 the zero point's negative, twice   r4-r11 groups of pixels   r12 three pixels   lr end
 */
  .section .text.mcg_conv2d_widen_6, "ax", %progbits
  .balign 4
  .global mcg_conv2d_widen_6
  .type mcg_conv2d_widen_6, %function
  .thumb_func
mcg_conv2d_widen_6:
  push {r4-r11, lr}
  rsb r3, r3, #0
  pkhbt r3, r3, r3, lsl #16
  add r12, r2, r2, lsl #1
  add lr, r1, r2
1:
  ldr r5, [r1]
  ldr r7, [r1, r2]
  ldr r9, [r1, r2, lsl #1]
  ldr r11, [r1, r12]
  widen r4, r5
  widen r6, r7
  widen r8, r9
  widen r10, r11
  stmia r0!, {r4-r11}
  add r8, r1, r12
  ldr r5, [r1, r2, lsl #2]
  ldr r7, [r8, r2, lsl #1]
  widen r4, r5
  widen r6, r7
  stmia r0!, {r4-r7}
  adds r1, r1, #4
  cmp r1, lr
  bne 1b
  pop {r4-r11, pc}
  .size mcg_conv2d_widen_6, . - mcg_conv2d_widen_6

#endif
