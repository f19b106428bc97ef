/* void mcg_depthwise_row_<stride><steps>(const mcg_depthwise_row_t *s): see depthwise_row.h.
 *
 * Four neighbouring output pixels of one channel at a time:
 *   r0 columns   r1 weights   r2 bytes of a row of columns   r3 rows left   r4, r5, r12, lr columns   r6, r7 weights
 *   r8-r11 accumulators
 */
#if defined(__ARM_FEATURE_SIMD32)

#define LANE_OF_S 36
#define LANE_BYTES 16

/* The stack frame. */
#define COLUMNS 0       /* of the quad */
#define WEIGHT 4        /* of the channel */
#define ROWS 8
#define LANE 12         /* of the channel */
#define OUT 16          /* of the quad */
#define PIXEL 20
#define LEFT 24         /* quads of the channel */
#define QUADS 28
#define PLANE 32        /* bytes between channels of columns */
#define WEIGHT_PLANE 36
#define FIRST 40        /* columns of the channel */
#define Y 44            /* of the channel */
#define CHANNELS 48     /* left */
#define FRAME 52

  .syntax unified
  .thumb

/* acc += columns under four windows . weights of one step; stride 1: two pairs of columns v0 v1, weights r6 r7 */
.macro step_1 v0, v1
  ldrd r6, r7, [r1], #8
  smlad r8, \v0, r6, r8
  smlad r9, \v0, r7, r9
  smlad r10, \v1, r6, r10
  smlad r11, \v1, r7, r11
.endm

.macro row_1 steps
.if \steps == 2
  ldm r0, {r4, r5, r12}
.else
  ldm r0, {r4, r5, r12, lr}
.endif
  step_1 r4, r5
  step_1 r5, r12
.if \steps > 2
  step_1 r12, lr
.endif
.if \steps > 3
  ldr r4, [r0, #16]
  step_1 lr, r4
.endif
.endm

/* stride 2: four pairs of columns, weights r6 */
.macro step_2 v0, v1, v2, v3
  ldr r6, [r1], #8
  smlad r8, \v0, r6, r8
  smlad r9, \v1, r6, r9
  smlad r10, \v2, r6, r10
  smlad r11, \v3, r6, r11
.endm

.macro row_2 steps
  ldm r0, {r4, r5, r12, lr}
  step_2 r4, r5, r12, lr
  ldr r4, [r0, #16]
  step_2 r5, r12, lr, r4
.if \steps > 2
  ldr r5, [r0, #20]
  step_2 r12, lr, r4, r5
.endif
.if \steps > 3
  ldr r12, [r0, #24]
  step_2 lr, r4, r5, r12
.endif
.endm

/* acc = clamp8((((high word of acc * r3) >> r4) + r5) / 2) */
.macro requantize acc
  smull r12, \acc, \acc, r3
  asr \acc, \acc, r4
  add \acc, \acc, r5
  ssat \acc, #8, \acc, asr #1
.endm

.macro depthwise_row name, stride, steps
  .section .text.\name, "ax", %progbits
  .balign 4
  .global \name
  .type \name, %function
  .thumb_func
\name:
  push {r4-r11, lr}
  sub sp, sp, #FRAME
  add r12, r0, #LANE_OF_S
  ldm r0, {r1-r8}            /* columns, weight, y, quads, pixel, rows, pitch, plane */
  ldr r9, [r0, #32]          /* weight_plane */
  strd r6, r12, [sp, #ROWS]
  strd r5, r4, [sp, #PIXEL]  /* and LEFT, which is set again */
  str r4, [sp, #QUADS]
  lsl r8, r8, #1
  lsl r9, r9, #1
  strd r8, r9, [sp, #PLANE]
  strd r1, r3, [sp, #FIRST]
  str r2, [sp, #WEIGHT]
  lsl r2, r7, #1
  movs r0, #4
  str r0, [sp, #CHANNELS]
1:
  ldrd r0, r1, [sp, #FIRST]
  ldr r3, [sp, #QUADS]
  str r0, [sp, #COLUMNS]
  str r1, [sp, #OUT]
  str r3, [sp, #LEFT]
2:
  ldrd r3, r12, [sp, #ROWS]
  ldrd r0, r1, [sp, #COLUMNS]
  ldr r8, [r12, #12]
  mov r9, r8
  mov r10, r8
  mov r11, r8
3:
  row_\stride \steps
  add r0, r0, r2
  subs r3, r3, #1
  bne 3b
  ldrd r12, r7, [sp, #LANE]
  ldr r6, [sp, #PIXEL]
  ldm r12, {r3-r5}
  requantize r8
  requantize r9
  requantize r10
  requantize r11
  strb r8, [r7]
  strb r9, [r7, r6]
  add r7, r7, r6, lsl #1
  strb r10, [r7]
  strb r11, [r7, r6]
  add r7, r7, r6, lsl #1
  ldr r0, [sp, #COLUMNS]
  ldr r3, [sp, #LEFT]
  str r7, [sp, #OUT]
  add r0, r0, #(8 * \stride)
  subs r3, r3, #1
  str r0, [sp, #COLUMNS]
  str r3, [sp, #LEFT]
  bne 2b
  ldrd r4, r5, [sp, #PLANE]
  ldrd r0, r1, [sp, #FIRST]
  ldr r3, [sp, #WEIGHT]
  ldr r12, [sp, #LANE]
  ldr r7, [sp, #CHANNELS]
  add r1, r1, #1
  add r0, r0, r4
  add r3, r3, r5
  add r12, r12, #LANE_BYTES
  strd r0, r1, [sp, #FIRST]
  str r3, [sp, #WEIGHT]
  str r12, [sp, #LANE]
  subs r7, r7, #1
  str r7, [sp, #CHANNELS]
  bne 1b
  add sp, sp, #FRAME
  pop {r4-r11, pc}
  .size \name, . - \name
.endm

/* void mcg_depthwise_row_3x3_<stride>(const mcg_depthwise_row_t *s): 3x3, the weights of a channel in registers.
 *   r0 columns   r1, r2, r3 weights w0 w1 of the rows   r11, r12, lr weights w1 w2, for stride 2 w2 0
 *   r4-r6 a pair of columns of each row   r7-r10 accumulators
 */
/* The stack frame begins with multiplier, shift and rounding of the channel. */
#define Q_BIAS 12
#define Q_OUT 16        /* and pixel */
#define Q_END 24        /* of the channel's columns */
#define Q_LANE 28
#define Q_FIRST 32      /* columns of the channel, y of the channel */
#define Q_PLANE 40      /* bytes, and of the weights */
#define Q_WEIGHT 48
#define Q_BYTES 52      /* of columns that the quads move over */
#define Q_CHANNELS 56
#define Q_FRAME 60

/* acc = before + the first two columns of a window, and acc += its last one */
.macro begins acc, before
  smlad \acc, r4, r1, \before
  smlad \acc, r5, r2, \acc
  smlad \acc, r6, r3, \acc
.endm

.macro ends acc
  smlabb \acc, r4, r11, \acc
  smlabb \acc, r5, r12, \acc
  smlabb \acc, r6, lr, \acc
.endm

.macro square_row name, stride
  .section .text.\name, "ax", %progbits
  .balign 4
  .global \name
  .type \name, %function
  .thumb_func
\name:
  push {r4-r11, lr}
  sub sp, sp, #Q_FRAME
  add r12, r0, #LANE_OF_S
  ldm r0, {r1-r8}            /* columns, weight, y, quads, pixel, rows, pitch, plane */
  ldr r9, [r0, #32]          /* weight_plane */
  strd r1, r3, [sp, #Q_FIRST]
  lsl r8, r8, #1
  lsl r9, r9, #1
  strd r8, r9, [sp, #Q_PLANE]
  add r4, r4, r4, lsl #1
  lsl r4, r4, #(2 + \stride)
  strd r2, r4, [sp, #Q_WEIGHT]
  str r5, [sp, #(Q_OUT + 4)]
  str r12, [sp, #Q_LANE]
  movs r4, #4
  str r4, [sp, #Q_CHANNELS]
1:
  ldr r7, [sp, #Q_LANE]
  ldmia r7!, {r1-r4}
  str r7, [sp, #Q_LANE]
  stm sp, {r1-r4}
  ldrd r0, r1, [sp, #Q_FIRST]
  ldrd r4, r5, [sp, #Q_PLANE]
  ldrd r6, r7, [sp, #Q_WEIGHT]
  str r1, [sp, #Q_OUT]
  adds r1, r1, #1
  add r7, r7, r0
  add r4, r4, r0
  add r5, r5, r6
  strd r4, r1, [sp, #Q_FIRST]
  str r5, [sp, #Q_WEIGHT]
  str r7, [sp, #Q_END]
  ldr r1, [r6]
  ldr r11, [r6, #(16 - 4 * \stride)]
  ldr r2, [r6, #16]
  ldr r12, [r6, #(32 - 4 * \stride)]
  ldr r3, [r6, #32]
  ldr lr, [r6, #(48 - 4 * \stride)]
2:
  ldr r10, [sp, #Q_BIAS]
.if \stride == 1
  ldmia r0!, {r4-r6}
  smlad r7, r4, r1, r10
  smlatb r8, r4, r1, r10
  smlad r7, r5, r2, r7
  smlatb r8, r5, r2, r8
  smlad r7, r6, r3, r7
  smlatb r8, r6, r3, r8
  ldmia r0!, {r4-r6}
  smlad r9, r4, r1, r10
  smlatb r10, r4, r1, r10
  smlabt r7, r4, r11, r7
  smlad r8, r4, r11, r8
  smlad r9, r5, r2, r9
  smlatb r10, r5, r2, r10
  smlabt r7, r5, r12, r7
  smlad r8, r5, r12, r8
  smlad r9, r6, r3, r9
  smlatb r10, r6, r3, r10
  smlabt r7, r6, lr, r7
  smlad r8, r6, lr, r8
  ldmia r0, {r4-r6}
  smlabt r9, r4, r11, r9
  smlad r10, r4, r11, r10
  smlabt r9, r5, r12, r9
  smlad r10, r5, r12, r10
  smlabt r9, r6, lr, r9
  smlad r10, r6, lr, r10
.else
  ldmia r0!, {r4-r6}
  begins r7, r10
  ldmia r0!, {r4-r6}
  ends r7
  begins r8, r10
  ldmia r0!, {r4-r6}
  ends r8
  begins r9, r10
  ldmia r0!, {r4-r6}
  ends r9
  begins r10, r10
  ldmia r0, {r4-r6}
  ends r10
.endif
  ldm sp, {r4-r6}            /* multiplier, shift, rounding */
  smmla r7, r7, r4, r6
  smmla r8, r8, r4, r6
  smmla r9, r9, r4, r6
  smmla r10, r10, r4, r6
  asrs r7, r7, r5
  asr r8, r8, r5
  asr r9, r9, r5
  asr r10, r10, r5
  ldrd r4, r5, [sp, #Q_OUT]
  ssat r7, #8, r7
  ssat r8, #8, r8
  ssat r9, #8, r9
  ssat r10, #8, r10
  strb r7, [r4]
  strb r8, [r4, r5]
  add r4, r4, r5, lsl #1
  strb r9, [r4]
  strb r10, [r4, r5]
  add r4, r4, r5, lsl #1
  ldr r6, [sp, #Q_END]
  str r4, [sp, #Q_OUT]
  cmp r0, r6
  bne 2b
  ldr r4, [sp, #Q_CHANNELS]
  subs r4, r4, #1
  str r4, [sp, #Q_CHANNELS]
  bne 1b
  add sp, sp, #Q_FRAME
  pop {r4-r11, pc}
  .size \name, . - \name
.endm

  square_row mcg_depthwise_row_3x3_1, 1
  square_row mcg_depthwise_row_3x3_2, 2
  depthwise_row mcg_depthwise_row_12, 1, 2
  depthwise_row mcg_depthwise_row_13, 1, 3
  depthwise_row mcg_depthwise_row_14, 1, 4
  depthwise_row mcg_depthwise_row_22, 2, 2
  depthwise_row mcg_depthwise_row_23, 2, 3
  depthwise_row mcg_depthwise_row_24, 2, 4

/* void mcg_depthwise_widen_taps(int16_t *to, int32_t plane, const int8_t *row, int32_t kw, int32_t next): see depthwise_row.h.
 *
 *   r0, r1, r4, r5 to of channels 0 ... 3   r2 weights   r3 how many are left
 *   r6, r7 the weight before the step   r8, r9 and r10, r11 its two, channels 0 2 and 1 3   r12, lr pairs, or next
 */
#define NEXT_WEIGHT 36 /* the last argument */

  .section .text.mcg_depthwise_widen_taps, "ax", %progbits
  .balign 4
  .global mcg_depthwise_widen_taps
  .type mcg_depthwise_widen_taps, %function
  .thumb_func
mcg_depthwise_widen_taps:
  push {r4-r11, lr}
  add r4, r0, r1, lsl #2
  add r5, r1, r1, lsl #1
  add r5, r0, r5, lsl #1
  add r1, r0, r1, lsl #1
  mov r6, #0
  mov r7, #0
1:
  subs r3, r3, #2
  blt 3f
  ldr r12, [sp, #NEXT_WEIGHT]
  ldr r8, [r2]
  ldr r10, [r2, r12]
  add r2, r2, r12, lsl #1
2:
  sxtb16 r9, r8, ror #8
  sxtb16 r8, r8
  sxtb16 r11, r10, ror #8
  sxtb16 r10, r10
  pkhbt r12, r9, r11, lsl #16
  pkhbt lr, r7, r9, lsl #16
  strd r12, lr, [r1], #8
  pkhtb r12, r11, r9, asr #16
  pkhtb lr, r9, r7, asr #16
  strd r12, lr, [r5], #8
  pkhtb r12, r10, r8, asr #16
  pkhtb lr, r8, r6, asr #16
  strd r12, lr, [r4], #8
  pkhbt r12, r8, r10, lsl #16
  pkhbt lr, r6, r8, lsl #16
  strd r12, lr, [r0], #8
  mov r6, r10
  mov r7, r11
  b 1b
3: /* one weight or none is left, or that is done */
  cmn r3, #2
  blt 4f
  mov r8, #0
  mov r10, #0
  it gt
  ldrgt r8, [r2]
  mov r3, #-2                /* less than none */
  b 2b
4:
  pop {r4-r11, pc}
  .size mcg_depthwise_widen_taps, . - mcg_depthwise_widen_taps

#endif
