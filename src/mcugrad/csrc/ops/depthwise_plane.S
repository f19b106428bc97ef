/* void mcg_depthwise_square(const mcg_depthwise_row_t *s), mcg_depthwise_square_2: see depthwise_plane.h.
 *
 * Quads of a channel from top to bottom, its weights in registers:
 *   r0 columns   r1-r3 w0 w1 of the rows   r11, r12, lr w1 w2   r4-r6 six columns of a row   r7-r10 sums
 */
#if defined(__ARM_FEATURE_SIMD32)

/* Fields of s. */
#define LANE_OF_S 36

/* The stack frame. */
/* from 0 on: multiplier, shift and rounding of the channel */
#define BIAS 12
#define OUT 16       /* of the quad, and pixel */
#define LINE 24
#define LEFT 28      /* rows of the quad, then quads of the channel, then channels */
#define QUADS_LEFT 32
#define CHANNELS 36
#define QUADS 40
#define ROWS 44
#define Y 48         /* of the channel */
#define STRIP 52     /* of the quad */
#define LANE 56
#define WEIGHT 60
#define FRAME 64

  .syntax unified
  .thumb

/* sums += a row of columns under four windows . w, after which w moves to the next row */
.macro row w01, w12, a, b, c, d
  ldmia r0!, {r4-r6}
  smlad r7, r4, \w01, \a
  smlatb r8, r4, \w01, \b
  smlad r9, r5, \w01, \c
  smlatb r10, r5, \w01, \d
  smlabt r7, r5, \w12, r7
  smlad r8, r5, \w12, r8
  smlabt r9, r6, \w12, r9
  smlad r10, r6, \w12, r10
.endm

.macro square name, taps
  .section .text.\name, "ax", %progbits
  .balign 4
  .global \name
  .type \name, %function
  .thumb_func
\name:
  push {r4-r11, lr}
  sub sp, sp, #FRAME
  add r12, r0, #LANE_OF_S
  ldm r0, {r1-r7}            /* columns, weight, y, quads, pixel, rows, pitch */
  strd r4, r6, [sp, #QUADS]
.if \taps == 2
  adds r1, r1, #12
.endif
  strd r3, r1, [sp, #Y]
  strd r12, r2, [sp, #LANE]
  strd r5, r7, [sp, #(OUT + 4)]
  movs r9, #4
  str r9, [sp, #CHANNELS]
2: /* a channel */
  ldrd r4, r5, [sp, #LANE]
  ldmia r4!, {r6-r9}
  ldm r5!, {r1-r3, r11, r12, lr}
  stm sp, {r6-r9}
  strd r4, r5, [sp, #LANE]
  ldr r4, [sp, #QUADS]
  ldr r5, [sp, #Y]
  ldr r0, [sp, #STRIP]
  str r4, [sp, #QUADS_LEFT]
  str r5, [sp, #OUT]
3: /* a quad */
  ldr r4, [sp, #ROWS]
  ldr r10, [sp, #BIAS]
4: /* a row */
  str r4, [sp, #LEFT]
.if \taps == 2
  row r2, r12, r10, r10, r10, r10
.else
  row r1, r11, r10, r10, r10, r10
  row r2, r12, r7, r8, r9, r10
.endif
  row r3, lr, r7, r8, r9, r10
  subs r0, r0, #(12 * \taps - 12)
  ldm sp, {r4-r6}            /* multiplier, shift, rounding */
  smmla r7, r7, r4, r6
  smmla r8, r8, r4, r6
  smmla r9, r9, r4, r6
  smmla r10, r10, r4, r6
  asrs r7, r7, r5
  asr r8, r8, r5
  asr r9, r9, r5
  asr r10, r10, r5
  ldrd r4, r5, [sp, #OUT]
  ssat r7, #8, r7
  ssat r8, #8, r8
  ssat r9, #8, r9
  ssat r10, #8, r10
  strb r7, [r4]
  strb r8, [r4, r5]
  add r6, r4, r5, lsl #1
  strb r9, [r6]
  strb r10, [r6, r5]
  ldrd r5, r6, [sp, #LINE]   /* and rows left */
  ldr r10, [sp, #BIAS]
  add r5, r5, r4
  str r5, [sp, #OUT]
  subs r4, r6, #1
  bne 4b
  add r0, r0, #24            /* to the next strip, past the two rows below the last */
  ldr r4, [sp, #QUADS_LEFT]
  ldrd r5, r6, [sp, #LINE]
  ldr r7, [sp, #ROWS]
  ldrd r8, r9, [sp, #OUT]
  mls r8, r5, r7, r8         /* back to the top */
  add r8, r8, r9, lsl #2
  str r8, [sp, #OUT]
  subs r4, r4, #1
  str r4, [sp, #QUADS_LEFT]
  bne 3b
  ldr r6, [sp, #Y]
  ldr r7, [sp, #CHANNELS]
  add r6, r6, #1
  strd r6, r0, [sp, #Y]
  subs r7, r7, #1
  str r7, [sp, #CHANNELS]
  bne 2b
  add sp, sp, #FRAME
  pop {r4-r11, pc}
  .size \name, . - \name
.endm

  square mcg_depthwise_square, 3
  square mcg_depthwise_square_2, 2

/* void mcg_depthwise_square_rows(const mcg_square_rows_t *t): see depthwise_plane.h.
 *
 *   r0 pixels   r1 bytes of one   r2 the zero point's negative   r3 quads left   r4 columns of channel 0
 *   r5, r6 from it to channels 1 and 3   r7 from the last pair of a strip to the next strip   r8-r12, lr pixels and pairs
 */

/* The frame: quads, from the last pair of a row to the next row, rows left. */
#define ROWS_LEFT 8
#define ROWS_FRAME 12

/* e: channels 0 and 2 of the pixel v, v: channels 1 and 3 */
.macro widen e, v
  sxtab16 \e, r2, \v
  sxtab16 \v, r2, \v, ror #8
.endm

/* r12, lr, r11, r9: the pairs of channels 0 ... 3 of the pixels r8 and r9, whose bytes are paired first */
.macro pair
  pkhbt r10, r8, r9, lsl #16
  pkhtb r9, r9, r8, asr #16
  sxtab16 r12, r2, r10
  sxtab16 lr, r2, r10, ror #8
  sxtab16 r11, r2, r9
  sxtab16 r9, r2, r9, ror #8
.endm

.macro put c1, c2, c3
  str \c1, [r4, r5]
  str \c2, [r4, r5, lsl #1]
  str \c3, [r4, r6]
.endm

  .section .text.mcg_depthwise_square_rows, "ax", %progbits
  .balign 4
  .global mcg_depthwise_square_rows
  .type mcg_depthwise_square_rows, %function
  .thumb_func
mcg_depthwise_square_rows:
  push {r4-r11, lr}
  sub sp, sp, #ROWS_FRAME
  ldm r0, {r0-r5, r7, r8}    /* the fields in their order */
  str r8, [sp, #ROWS_LEFT]
  rsb r9, r3, #1
  mul r9, r9, r7
  add r9, r9, #4
  strd r3, r9, [sp]
  sub r7, r7, #8
  add r6, r5, r5, lsl #1
1: /* a row: zeros and its first pixel */
  ldr r8, [r0]
  widen r10, r8
  lsl r12, r10, #16
  lsl lr, r8, #16
  bfc r10, #0, #16
  bfc r8, #0, #16
  put lr, r10, r8
  str r12, [r4], #4
2: /* a quad */
  ldr r8, [r0, r1]
  ldr r9, [r0, r1, lsl #1]
  add r0, r0, r1, lsl #1
  pair
  put lr, r11, r9
  str r12, [r4], #4
  ldr r8, [r0, r1]
  subs r3, r3, #1
  beq 3f
  ldr r9, [r0, r1, lsl #1]
  add r0, r0, r1, lsl #1
  pair
  put lr, r11, r9
  str r12, [r4]
  add r4, r4, r7
  put lr, r11, r9
  str r12, [r4], #4
  b 2b
3: /* the last pixel and zeros */
  widen r10, r8
  uxth r12, r10
  uxth lr, r8
  lsr r10, r10, #16
  lsr r8, r8, #16
  put lr, r10, r8
  str r12, [r4]
  ldrd r3, r9, [sp]
  ldr r8, [sp, #ROWS_LEFT]
  add r0, r0, r1, lsl #1
  add r4, r4, r9
  subs r8, r8, #1
  str r8, [sp, #ROWS_LEFT]
  bne 1b
  add sp, sp, #ROWS_FRAME
  pop {r4-r11, pc}
  .size mcg_depthwise_square_rows, . - mcg_depthwise_square_rows

/* void mcg_depthwise_widen_columns(at, pixel, zero, odd_place, n, to, plane, step): mcg_depthwise_widen_pixels.
 *
 *   r0 pixels   r1 bytes of one   r2 the zero point's negative, twice   r3 pixels left   r4 columns of channel 0
 *   r5, r6 bytes from it to channels 1 and 3   r7 bytes from pair to pair   r8-r12, lr pixels and pairs
 */
  .section .text.mcg_depthwise_widen_columns, "ax", %progbits
  .balign 4
  .global mcg_depthwise_widen_columns
  .type mcg_depthwise_widen_columns, %function
  .thumb_func
mcg_depthwise_widen_columns:
  push {r4-r11, lr}
  mov r12, r3
  rsb r2, r2, #0
  pkhbt r2, r2, r2, lsl #16
  ldrd r3, r4, [sp, #36]
  ldrd r5, r7, [sp, #44]
  lsl r5, r5, #1
  lsl r7, r7, #1
  add r6, r5, r5, lsl #1
  cmp r12, #0
  beq 1f
  ldr r8, [r0]
  add r0, r0, r1
  widen r10, r8
  lsl r12, r10, #16
  lsl lr, r8, #16
  bfc r10, #0, #16
  bfc r8, #0, #16
  put lr, r10, r8
  str r12, [r4]
  add r4, r4, r7
  subs r3, r3, #1
1:
  subs r3, r3, #2
  blt 3f
2:
  ldr r8, [r0]
  ldr r9, [r0, r1]
  add r0, r0, r1, lsl #1
  pair
  put lr, r11, r9
  str r12, [r4]
  add r4, r4, r7
  subs r3, r3, #2
  bge 2b
3: /* one pixel or none is left */
  cmn r3, #1
  bne 4f
  ldr r8, [r0]
  widen r10, r8
  uxth r12, r10
  uxth lr, r8
  lsr r10, r10, #16
  lsr r8, r8, #16
  put lr, r10, r8
  str r12, [r4]
4:
  pop {r4-r11, pc}
  .size mcg_depthwise_widen_columns, . - mcg_depthwise_widen_columns

#endif
