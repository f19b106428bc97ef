/* void mcg_depthwise_four_<kernel>(const mcg_depthwise_row_t *s): see depthwise_plane.h.
 *
 * A row of four outputs at a time; no product meets the padding.
 */
#if defined(__ARM_FEATURE_SIMD32)

/* Fields of s. */
#define LANE_OF_S 36

#define CHANNEL_BYTES 32 /* of columns */
#define ROW_BYTES 8

  .syntax unified
  .thumb

.macro each4 op, a, b, c, d, more:vararg
  \op \a, \a, \more
  \op \b, \b, \more
  \op \c, \c, \more
  \op \d, \d, \more
.endm

.macro saturate a, b, c, d
  ssat \a, #8, \a
  ssat \b, #8, \b
  ssat \c, #8, \c
  ssat \d, #8, \d
.endm

/* Stores the four at r4, r5 bytes apart; r4 moves on to the third. */
.macro put a, b, c, d
  strb \a, [r4]
  strb \b, [r4, r5]
  add r4, r4, r5, lsl #1
  strb \c, [r4]
  strb \d, [r4, r5]
.endm

/* 3x3, the weights of a channel in registers:
 *   r0 columns   r1-r3 w0 w1 of the rows   r6, r11, r12 w1 w2   r4, r5 four columns of a row   r7-r10 sums
 */
#define MULTIPLIER 0 /* and rounding */
#define SHIFT 8      /* and bias */
#define NEXT 16      /* from the third output of a row to the next row */
#define OUT 20       /* of the row, and pixel */
#define LANE 28      /* of the channel, and weight */
#define Y 36         /* of the channel */
#define LEFT 40      /* channels */
#define FRAME 44

/* sums = before + row `row` of the input . weights */
.macro product row, w01, w12, a, b, c, d
  ldrd r4, r5, [r0, #(\row * ROW_BYTES)]
  smlad r7, r4, \w12, \a
  smlad r8, r4, \w01, \b
  smlatb r9, r4, \w01, \c
  smlad r10, r5, \w01, \d
  smlabt r8, r5, \w12, r8
  smlad r9, r5, \w12, r9
.endm

.macro begin row, w01, w12
  product \row, \w01, \w12, r10, r10, r10, r10
.endm

.macro go_on row, w01, w12
  product \row, \w01, \w12, r7, r8, r9, r10
.endm

  .section .text.mcg_depthwise_four_3, "ax", %progbits
  .balign 4
  .global mcg_depthwise_four_3
  .type mcg_depthwise_four_3, %function
  .thumb_func
mcg_depthwise_four_3:
  push {r4-r11, lr}
  sub sp, sp, #FRAME
  add r12, r0, #LANE_OF_S
  ldm r0, {r0, r2-r7}        /* columns, weight, y, quads, pixel, rows, pitch */
  strd r12, r2, [sp, #LANE]
  sub r7, r7, r5, lsl #1
  str r5, [sp, #(OUT + 4)]
  str r7, [sp, #NEXT]
  movs r4, #4
  strd r3, r4, [sp, #Y]
1: /* a channel */
  ldrd r4, r5, [sp, #LANE]
  ldmia r4!, {r7-r10}
  ldm r5!, {r1-r3, r6, r11, r12}
  strd r7, r9, [sp, #MULTIPLIER]
  strd r8, r10, [sp, #SHIFT]
  strd r4, r5, [sp, #LANE]
  ldr r4, [sp, #Y]
  str r4, [sp, #OUT]
  adds r4, r4, #1
  str r4, [sp, #Y]
  begin 0, r2, r11
  go_on 1, r3, r12
  bl 2f
  begin 0, r1, r6
  go_on 1, r2, r11
  go_on 2, r3, r12
  bl 2f
  begin 1, r1, r6
  go_on 2, r2, r11
  go_on 3, r3, r12
  bl 2f
  begin 2, r1, r6
  go_on 3, r2, r11
  bl 2f
  ldr r4, [sp, #LEFT]
  adds r0, r0, #CHANNEL_BYTES
  subs r4, r4, #1
  str r4, [sp, #LEFT]
  bne 1b
  add sp, sp, #FRAME
  pop {r4-r11, pc}
2: /* a row of outputs */
  ldrd r4, r5, [sp, #MULTIPLIER]
  each4 smmla, r7, r8, r9, r10, r4, r5
  ldr r5, [sp, #SHIFT]
  each4 asr, r7, r8, r9, r10, r5
  saturate r7, r8, r9, r10
  ldrd r4, r5, [sp, #OUT]
  put r7, r8, r9, r10
  ldrd r10, r5, [sp, #(SHIFT + 4)]
  add r4, r4, r5
  str r4, [sp, #OUT]
  bx lr
  .size mcg_depthwise_four_3, . - mcg_depthwise_four_3

/* 5x5:
 *   r0 columns   r1 weights   r2, r3 four columns of a row   r4-r7, r12, lr a row of weights   r8-r11 sums
 */
#define F_BIAS 0        /* four times */
#define F_MULTIPLIER 16 /* and shift */
#define F_ROUND 24
#define F_X 28          /* and weights of the channel */
#define F_OUT 36        /* of the row, and pixel */
#define F_LANE 44
#define F_Y 48
#define F_LEFT 52
#define F_ROW 56        /* the next one */
#define F_FRAME 60
#define WEIGHT_BYTES 24 /* of a row */

.macro product_5
  ldrd r2, r3, [r0], #8
  ldm r1!, {r4-r7, r12, lr}  /* w0 w1, 0 w0, w2 w3, w1 w2, w4 0, w3 w4 */
  smlad r8, r2, r6, r8
  smlad r9, r2, r7, r9
  smlad r10, r2, r4, r10
  smlad r11, r2, r5, r11
  smlad r8, r3, r12, r8
  smlad r9, r3, lr, r9
  smlad r10, r3, r6, r10
  smlad r11, r3, r7, r11
.endm

  .section .text.mcg_depthwise_four_5, "ax", %progbits
  .balign 4
  .global mcg_depthwise_four_5
  .type mcg_depthwise_four_5, %function
  .thumb_func
mcg_depthwise_four_5:
  push {r4-r11, lr}
  sub sp, sp, #F_FRAME
  add r12, r0, #LANE_OF_S
  ldm r0, {r1-r5}            /* columns, weight, y, quads, pixel */
  strd r1, r2, [sp, #F_X]
  strd r12, r3, [sp, #F_LANE]
  str r5, [sp, #(F_OUT + 4)]
  movs r4, #4
  str r4, [sp, #F_LEFT]
1: /* a channel */
  ldrd r12, r3, [sp, #F_LANE]
  ldm r12!, {r4-r7}
  strd r4, r5, [sp, #F_MULTIPLIER]
  str r6, [sp, #F_ROUND]
  str r3, [sp, #F_OUT]
  adds r3, r3, #1
  strd r12, r3, [sp, #F_LANE]
  mov r8, r7
  strd r7, r8, [sp, #F_BIAS]
  strd r7, r8, [sp, #(F_BIAS + 8)]
  adr r2, 8f
2: /* a row of outputs */
  ldmia r2!, {r3-r5}
  ldrd r0, r1, [sp, #F_X]
  str r2, [sp, #F_ROW]
  add r0, r0, r3
  add r1, r1, r4
  ldm sp, {r8-r11}
  cbnz r5, 3f
  product_5
3:
  product_5
  product_5
  product_5
  ldrd r4, r5, [sp, #F_MULTIPLIER]
  ldr r6, [sp, #F_ROUND]
  each4 smmla, r8, r9, r10, r11, r4, r6
  each4 asr, r8, r9, r10, r11, r5
  saturate r8, r9, r10, r11
  ldrd r4, r5, [sp, #F_OUT]
  put r8, r9, r10, r11
  add r4, r4, r5, lsl #1
  ldr r2, [sp, #F_ROW]
  adr r3, 9f
  str r4, [sp, #F_OUT]
  cmp r2, r3
  bne 2b
  ldrd r0, r1, [sp, #F_X]
  ldr r4, [sp, #F_LEFT]
  adds r0, r0, #CHANNEL_BYTES
  adds r1, r1, #(5 * WEIGHT_BYTES)
  strd r0, r1, [sp, #F_X]
  subs r4, r4, #1
  str r4, [sp, #F_LEFT]
  bne 1b
  add sp, sp, #F_FRAME
  pop {r4-r11, pc}
  .balign 4
8: /* of each row of outputs: bytes of columns and weights before those that meet, and whether these are three rows, not four */
  .word 0, 2 * WEIGHT_BYTES, 1
  .word 0, WEIGHT_BYTES, 0
  .word 0, 0, 0
  .word ROW_BYTES, 0, 1
9:
  .size mcg_depthwise_four_5, . - mcg_depthwise_four_5

#endif
