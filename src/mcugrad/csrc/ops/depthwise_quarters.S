/* void mcg_depthwise_quarters_3(const mcg_depthwise_row_t *s): see depthwise_plane.h.
 *
 * 2x2 gradients of four neighbours in a row of h, from top to bottom:
 *   r0 columns   r1 gradients   r2, r4, r5 weights   r3 multiplier   r12 bytes of a row of gradients   lr rounding
 *   r6-r11 columns and sums
 */
#if defined(__ARM_FEATURE_SIMD32)

/* Fields of s. */
#define LANE_OF_S 36
#define LANE_BYTES 16
#define SHIFT 11     /* MCG_JOINT_SHIFT */

#define ROW_BYTES 12 /* of a strip of columns */

/* The stack frame begins with the weights of the channel: (w12 w10) w11, (w22 w20) (w02 w00), (w21 w01). */
#define EVEN 0
#define ODD 8
#define MIDDLE 16
#define LEFT 20      /* rows of the quad */
#define QUADS_LEFT 24
#define LINE 28
#define QUADS 32
#define ROWS 36
#define WEIGHT 40    /* of the next channel, and lane */
#define Y 48         /* of the channel */
#define CHANNELS 52
#define FRAME 56

  .syntax unified
  .thumb

/* Stores the four as int8 at r1 + at and every fourth byte after it. */
.macro store at, a, b, c, d
  smmla \a, \a, r3, lr
  smmla \b, \b, r3, lr
  smmla \c, \c, r3, lr
  smmla \d, \d, r3, lr
  ssat \a, #8, \a, asr #SHIFT
  ssat \b, #8, \b, asr #SHIFT
  ssat \c, #8, \c, asr #SHIFT
  ssat \d, #8, \d, asr #SHIFT
  strb \a, [r1, #\at]
  strb \b, [r1, #(\at + 4)]
  strb \c, [r1, #(\at + 8)]
  strb \d, [r1, #(\at + 12)]
.endm

/* Both weights of w times r12. */
.macro scale w
  smulbb r2, \w, r12
  smultb \w, \w, r12
  pkhbt \w, r2, \w, lsl #16
.endm

/* The even row under the second and third of four columns. */
.macro even column, at
  ldrd r6, r7, [r0, #\column]
  smultb r8, r6, r4
  smultb r9, r6, r2
  smulbb r10, r7, r4
  smuad r11, r7, r2
  smlabt r9, r7, r2, r9
  store \at, r8, r9, r10, r11
.endm

/* The odd row, from the next row of columns, too. */
.macro odd column, at
  ldrd r6, r7, [r0, #\column]
  ldrd r8, r9, [r0, #(ROW_BYTES + \column)]
  smultb r10, r6, r5
  smultb r11, r6, r2
  smlatt r10, r8, r5, r10
  smlatb r11, r8, r4, r11
  smulbb r6, r7, r5
  smlabt r11, r7, r2, r11
  smuad r8, r7, r2
  smlabt r6, r9, r5, r6
  smlabt r11, r9, r4, r11
  smlad r8, r9, r4, r8
  store \at, r10, r11, r6, r8
.endm

  .section .text.mcg_depthwise_quarters_3, "ax", %progbits
  .balign 4
  .global mcg_depthwise_quarters_3
  .type mcg_depthwise_quarters_3, %function
  .thumb_func
mcg_depthwise_quarters_3:
  push {r4-r11, lr}
  sub sp, sp, #FRAME
  add r6, r0, #LANE_OF_S
  ldm r0, {r0, r1-r5, r7}    /* columns, weight, y, quads, pixel, rows, pitch */
  strd r1, r6, [sp, #WEIGHT]
  strd r3, r5, [sp, #QUADS]
  movs r4, #4
  strd r2, r4, [sp, #Y]
  lsrs r7, r7, #1
  str r7, [sp, #LINE]
  adds r0, r0, #ROW_BYTES    /* past the row above */
1: /* a channel */
  ldrd r5, r6, [sp, #WEIGHT]
  ldm r5!, {r7-r11}
  ldm r6, {r3, r12, lr}
  scale r7
  scale r8
  scale r9
  scale r10
  scale r11
  stm sp, {r7-r11}
  ldr r12, [sp, #LINE]
  adds r6, r6, #LANE_BYTES
  strd r5, r6, [sp, #WEIGHT]
  ldr r1, [sp, #Y]
  ldr r6, [sp, #QUADS]
2: /* a quad */
  ldr r7, [sp, #ROWS]
  strd r7, r6, [sp, #LEFT]
3: /* a row */
  ldrd r2, r4, [sp, #EVEN]
  even 0, 0
  even 4, 16
  ldrd r2, r4, [sp, #ODD]
  ldr r5, [sp, #MIDDLE]
  add r1, r1, r12
  odd 0, 0
  odd 4, 16
  ldr r7, [sp, #LEFT]
  adds r0, r0, #ROW_BYTES
  add r1, r1, r12
  subs r7, r7, #1
  str r7, [sp, #LEFT]
  bne 3b
  ldr r7, [sp, #ROWS]
  adds r0, r0, #(2 * ROW_BYTES) /* the row below, and that above the next strip */
  lsls r7, r7, #1
  mls r1, r12, r7, r1        /* back to the top */
  adds r1, r1, #32
  ldr r6, [sp, #QUADS_LEFT]
  subs r6, r6, #1
  bne 2b
  ldrd r6, r7, [sp, #Y]
  adds r6, r6, #1
  subs r7, r7, #1
  strd r6, r7, [sp, #Y]
  bne 1b
  add sp, sp, #FRAME
  pop {r4-r11, pc}
  .size mcg_depthwise_quarters_3, . - mcg_depthwise_quarters_3

#endif
