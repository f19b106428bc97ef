/* void mcg_depthwise_square(const mcg_depthwise_row_t *s): see depthwise_plane.h.
 *
 * Quads of a channel from top to bottom, its weights in registers:
 *   r0 columns   r1-r3 w0 w1 of the rows   r11, r12, lr w1 w2   r4-r6 six columns of a row   r7-r10 sums
 */
#if defined(__ARM_FEATURE_SIMD32)

/* Fields of s. */
#define RAW_OF_S 36
#define LANE_OF_S 40

/* The stack frame. */
#define MULTIPLIER 0 /* and shift, rounding, bias of the channel */
#define ROUND 8
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
#define NEXT 64      /* from one channel of y to the next */
#define TAIL 68      /* what to do with the sums */
#define FRAME 72

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

  .section .text.mcg_depthwise_square, "ax", %progbits
  .balign 4
  .global mcg_depthwise_square
  .type mcg_depthwise_square, %function
  .thumb_func
mcg_depthwise_square:
  push {r4-r11, lr}
  sub sp, sp, #FRAME
  add r12, r0, #LANE_OF_S
  ldm r0, {r1-r7}            /* columns, weight, y, quads, pixel, rows, pitch */
  ldr r8, [r0, #RAW_OF_S]
  strd r4, r6, [sp, #QUADS]
  strd r3, r1, [sp, #Y]
  strd r12, r2, [sp, #LANE]
  strd r5, r7, [sp, #(OUT + 4)]
  movs r9, #4
  str r9, [sp, #CHANNELS]
  adr r10, 5f
  mov r11, #1
  cmp r8, #0
  beq 1f
  adr r10, 6f
  mov r11, #4
1:
  orr r10, r10, #1
  strd r11, r10, [sp, #NEXT]
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
  row r1, r11, r10, r10, r10, r10
  row r2, r12, r7, r8, r9, r10
  row r3, lr, r7, r8, r9, r10
  subs r0, r0, #24
  ldr pc, [sp, #TAIL]
  .balign 4
5:
  ldrd r4, r5, [sp, #MULTIPLIER]
  ldr r6, [sp, #ROUND]
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
  b 7f
  .balign 4
6:
  ldr r4, [sp, #OUT]
  str r7, [r4]
  str r8, [r4, #16]
  str r9, [r4, #32]
  str r10, [r4, #48]
7:
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
  ldrd r4, r5, [sp, #NEXT]
  ldr r6, [sp, #Y]
  ldr r7, [sp, #CHANNELS]
  add r6, r6, r4
  strd r6, r0, [sp, #Y]
  subs r7, r7, #1
  str r7, [sp, #CHANNELS]
  bne 2b
  add sp, sp, #FRAME
  pop {r4-r11, pc}
  .size mcg_depthwise_square, . - mcg_depthwise_square

#endif
