/* uint32_t mcg_halves_widen(const mcg_halves_plane_t *t, int32_t c): see depthwise_halves.h.
 *
 *   r0 h   r1 bytes of a position   r2 plane   r3, r4 neighbours   r5-r8 pairs   r9 largest   r10 positions left
 *   r11 bytes 1 and 3   r12 smallest
 */
#if defined(__ARM_FEATURE_SIMD32)

#define WIDTH_OF_T 12
#define ROWS_OF_T 16
#define BACK_OF_T 20

  .syntax unified
  .thumb

/* Pairs of the position v and the next one w */
.macro pairs v, w
  pkhbt r7, \v, \w, lsl #16
  pkhtb r8, \w, \v, asr #16
  and r6, r11, r7, lsl #8
  and r7, r7, r11
  and r5, r11, r8, lsl #8
  and r8, r8, r11
  stm r2!, {r5-r8}
.endm

/* r9 and r12 from the smaller and larger of two positions */
.macro range smaller, larger
  ssub8 lr, \larger, r9
  sel r9, \larger, r9
  ssub8 lr, r12, \smaller
  sel r12, \smaller, r12
.endm

  .section .text.mcg_halves_widen, "ax", %progbits
  .balign 4
  .global mcg_halves_widen
  .type mcg_halves_widen, %function
  .thumb_func
mcg_halves_widen:
  push {r0, r1, r4-r11, lr}
  mov r3, r1
  ldr r4, [r0, #ROWS_OF_T]
  ldm r0, {r0-r2}            /* h, step, plane */
  add r0, r0, r3
  mov r9, #0
  mov r12, #0
  mov r11, #0xFF00FF00
  subs r4, r4, #1
  blt 5f
1: /* a row; on the stack how many are left */
  str r4, [sp, #4]
  ldr r10, [sp]
  ldr r10, [r10, #WIDTH_OF_T]
  ldr r3, [r0]
  add r0, r0, r1
  range r3, r3
  subs r10, r10, #3
  blt 3f
2:
  ldr r4, [r0]
  pairs r3, r4
  ldr r3, [r0, r1]
  add r0, r0, r1, lsl #1
  ssub8 lr, r3, r4
  sel r5, r3, r4
  sel r6, r4, r3
  range r6, r5
  pairs r4, r3
  subs r10, r10, #2
  bge 2b
3: /* one position or none is left before zeros */
  cmn r10, #1
  bne 4f
  ldr r4, [r0]
  add r0, r0, r1
  range r4, r4
  pairs r3, r4
  mov r3, r4
4:
  mov r4, #0
  pairs r3, r4
  ldr r5, [sp]
  ldr r5, [r5, #BACK_OF_T]
  ldr r4, [sp, #4]
  add r0, r0, r5
  subs r4, r4, #1
  bge 1b
5:
  movs r5, #0
  ssub8 r12, r5, r12
  usub8 r5, r9, r12
  sel r0, r9, r12
  add sp, sp, #8
  pop {r4-r11, pc}
  .size mcg_halves_widen, . - mcg_halves_widen

/* int32_t mcg_halves_weigh(weight, next, lane, most, to, row): see depthwise_halves.h.
 *
 *   r4-r12 taps w00 ... w22, then as int16 those of two channels   r3 even rows' weights   lr factor
 */

/* The frame: the taps; after it come lane and most. */
#define REACH 36 /* of each channel, half the sum of the weights that one output meets, less 2 at most */
#define ODD 40   /* odd rows' weights */
#define AGAIN 44
#define FRAME 48
#define LANE 48
#define MOST 52
#define TO 92
#define ROW 96
#define EVEN_BYTES 52 /* of weights */
#define LANE_BYTES 16
#define UP 8          /* h was widened times 2^UP */

/* d: half the magnitudes of v, rounded down */
.macro half d, v
  ssub8 \d, r2, \v
  sel \d, \d, \v
  and \d, lr, \d, lsr #1
.endm

/* r3: at least r0 */
.macro reach
  usub8 r1, r3, r0
  sel r3, r3, r0
.endm

.macro reach_both a, b
  half r0, \a
  half r1, \b
  add r0, r0, r1
  reach
.endm

.macro pair low, high, half, at:vararg
  smul\half\()b r0, \low, lr
  smul\half\()b r1, \high, lr
  pkhbt r0, r0, r1, lsl #16
  str r0, [\at]
.endm

/* The weights of channel c of the two, the lower or upper half of each; to 8 where its outputs might not stay within +-127, or
 * its multiplier would lose bits. */
.macro channel half, c, step
  ldr r2, [sp, #LANE]
  ldrd r0, r1, [r2, #(\c * LANE_BYTES)] /* multiplier, shift */
  ldrb r2, [sp, #(REACH + \c)]
  ldrb lr, [sp, #(MOST + \c)]
  adds r2, r2, #2            /* four were rounded down */
  mul r2, r2, lr
  lsls r2, r2, #(1 + UP)
  smmul r2, r2, r0
  add lr, r1, #UP
  asr r2, r2, lr
  cmp r2, #126
  bgt 8f
  rsbs r1, r1, #UP
  bpl 7f
  rsbs r1, r1, #0
  asr r2, r0, r1
  lsl lr, r2, r1
  cmp lr, r0
  bne 8f
  mov r0, r2
  movs r1, #0
7:
  mov lr, #1
  lsl lr, lr, r1
  ldr r2, [sp, #ODD]
  str r0, [r3, #8]
  str r0, [r2, #12]
  smul\half\()b r0, r8, lr
  str r0, [r3]
  pair r9, r7, \half, r3, #4
  pair r12, r10, \half, r2
  pair r6, r4, \half, r2, #4
  pair r11, r5, \half, r2, #8
  adds r2, r2, #\step
  str r2, [sp, #ODD]
  adds r3, r3, #12
.endm

  .section .text.mcg_halves_weigh, "ax", %progbits
  .balign 4
  .global mcg_halves_weigh
  .type mcg_halves_weigh, %function
  .thumb_func
mcg_halves_weigh:
  push {r2-r11, lr}
  sub sp, sp, #FRAME
  ldr r2, [sp, #ROW]
  ldr r4, [r0]
  ldr r5, [r0, r1]
  ldr r6, [r0, r1, lsl #1]
  add r0, r0, r2
  ldr r7, [r0]
  ldr r8, [r0, r1]
  ldr r9, [r0, r1, lsl #1]
  add r0, r0, r2
  ldr r10, [r0]
  ldr r11, [r0, r1]
  ldr r12, [r0, r1, lsl #1]
  mov lr, #0x7F7F7F7F
  movs r2, #0
  half r3, r4
  half r0, r6
  uqadd8 r3, r3, r0
  half r0, r10
  uqadd8 r3, r3, r0
  half r0, r12
  uqadd8 r3, r3, r0
  reach_both r7, r9
  reach_both r5, r11
  half r0, r8
  reach
  str r3, [sp, #REACH]
  ldr r3, [sp, #TO]
  add r0, r3, #EVEN_BYTES
  movs r1, #1
  strd r0, r1, [sp, #ODD]
1: /* channels 0 and 2, then 1 and 3 */
  stm sp, {r4-r12}
  .irp w, r4, r5, r6, r7, r8, r9, r10, r11, r12
  sxtb16 \w, \w
  .endr
  channel b, 0, 20           /* past rounding, or odd itself */
  channel t, 2, 16
  adds r3, r3, #4            /* past rounding */
  ldr r2, [sp, #AGAIN]
  ldrd r0, r1, [sp, #LANE]
  subs r2, r2, #1
  bmi 9f
  str r2, [sp, #AGAIN]
  adds r0, r0, #LANE_BYTES
  lsrs r1, r1, #8
  strd r0, r1, [sp, #LANE]
  ldr r0, [sp, #REACH]
  lsrs r0, r0, #8
  str r0, [sp, #REACH]
  ldm sp, {r4-r12}
  .irp w, r4, r5, r6, r7, r8, r9, r10, r11, r12
  ror \w, \w, #8
  .endr
  b 1b
8:
  movs r0, #0
  b 10f
9:
  movs r0, #1
10:
  add sp, sp, #(FRAME + 8)
  pop {r4-r11, pc}
  .size mcg_halves_weigh, . - mcg_halves_weigh

#endif
