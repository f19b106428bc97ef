/* uint32_t mcg_halves_widen(const mcg_halves_plane_t *t, int32_t c): see depthwise_halves.h.
 *
 *   r0 h   r1 step   r2, r3 this and the next row of the plane   r4 bytes of a row of h   r5, r12, lr rows of h
 *   r5-r8 pairs   r9 bits that differ from a neighbour   r10 positions left   r11 bytes 1 and 3
 */
#if defined(__ARM_FEATURE_SIMD32)

#define PLACE 16 /* bytes of a position in the plane */

/* The stack frame is all of t from `width` on, which `ldm` leaves after the first four registers. */
#define WIDTH 0 /* and back */
#define PLANE 8
#define ABOVE 12
#define TWOS 16
#define BELOW 20
#define ONES 24 /* and keep */
#define FRAME 32

  .syntax unified
  .thumb

/* If k is the highest bit of v that differs from its lower neighbour, or 0, |v| is at most 2^k. */
.macro peak v
  eor r6, \v, \v, lsl #1
  orr r9, r9, r6
.endm

.macro pairs v, w, to
  pkhbt r7, \v, \w, lsl #16
  pkhtb r8, \w, \v, asr #16
  and r5, r11, r7, lsl #8
  and r6, r11, r8, lsl #8
  sxtb16 r7, r7, ror #8
  sxtb16 r8, r8, ror #8
  stm \to!, {r5-r8}
.endm

.macro next_position again
  subs r10, r10, #1
  bne \again
.endm

/* Two rows of the plane from three of h, the last of which may be zeros in lr. */
.macro two_rows three
  ldr r10, [sp, #WIDTH]
  add r3, r2, r10, lsl #4
  add r3, r3, #PLACE
2:
  ldr r5, [r0]
  ldr r12, [r0, r4]
.if \three
  ldr lr, [r0, r4, lsl #1]
.endif
  add r0, r0, r1
  peak r5
  peak r12
  pairs r5, r12, r2
  pairs r12, lr, r3
  next_position 2b
  add r2, r3, #PLACE
.endm

/* A row of the plane; r3, lr: bits of its second and first halves to keep. */
.macro one_row
  ldr r10, [sp, #WIDTH]
2:
  ldr r5, [r0]
  ldr r12, [r0, r4]
  add r0, r0, r1
  peak r5
  peak r12
  and r5, r5, lr
  and r12, r12, r3
  pairs r5, r12, r2
  next_position 2b
  add r2, r2, #PLACE
.endm

  .section .text.mcg_halves_widen, "ax", %progbits
  .balign 4
  .global mcg_halves_widen
  .type mcg_halves_widen, %function
  .thumb_func
mcg_halves_widen:
  push {r4-r11, lr}
  sub sp, sp, #FRAME
  mov r3, r1
  ldm r0, {r0, r1, r4-r12}   /* h, step, line, then what comes to the stack */
  stm sp, {r5-r12}
  add r0, r0, r3
  mov r2, r7
  mov r9, #0x01010101
  mov r11, #0xFF00FF00
  cmp r8, #0
  beq 1f
  mov r5, r0
  strd r4, r5, [sp, #PLANE]
  movs r4, #0
  mov lr, #0
  mov r3, #-1
  one_row
  ldrd r4, r0, [sp, #PLANE]
1: /* pairs of rows */
  ldr r5, [sp, #TWOS]
  subs r5, r5, #1
  blt 3f
  str r5, [sp, #TWOS]
  two_rows 1
  ldr r5, [sp, #(WIDTH + 4)]
  add r0, r0, r5
  add r0, r0, r4
  b 1b
3:
  ldr r5, [sp, #BELOW]
  mov lr, #0
  cmp r5, #0
  beq 4f
  two_rows 0
4: /* single rows */
  ldr r5, [sp, #ONES]
  ldr r3, [sp, #(ONES + 4)]
  mov lr, #-1
  subs r5, r5, #1
  blt 6f
  str r5, [sp, #ONES]
  and r4, r4, r3
  one_row
  ldr r5, [sp, #(WIDTH + 4)]
  add r0, r0, r5
  b 4b
6:
  and r0, r9, #0xFEFEFEFE
  orr r9, r9, r0, lsr #1
  and r0, r9, #0xFCFCFCFC
  orr r9, r9, r0, lsr #2
  and r0, r9, #0xF0F0F0F0
  orr r9, r9, r0, lsr #4
  and r0, r9, #0xFEFEFEFE
  sub r0, r9, r0, lsr #1
  add sp, sp, #FRAME
  pop {r4-r11, pc}
  .size mcg_halves_widen, . - mcg_halves_widen

/* uint32_t mcg_halves_most(const mcg_halves_plane_t *t, int32_t c, int32_t rows): see depthwise_halves.h.
 *
 *   r0 largest   r3 h   r4 step   r6 width   r7 from a row's end to the next   r8 positions left   r12 smallest
 */
  .section .text.mcg_halves_most, "ax", %progbits
  .balign 4
  .global mcg_halves_most
  .type mcg_halves_most, %function
  .thumb_func
mcg_halves_most:
  push {r4-r8, lr}
  ldm r0, {r3-r7}
  add r3, r3, r1
  movs r0, #0
  mov r12, #0
  cmp r2, #0
  beq 3f
1:
  mov r8, r6
2:
  ldr r5, [r3]
  add r3, r3, r4
  ssub8 lr, r5, r0
  sel r0, r5, r0
  ssub8 lr, r12, r5
  sel r12, r5, r12
  subs r8, r8, #1
  bne 2b
  add r3, r3, r7
  subs r2, r2, #1
  bne 1b
3:
  movs r1, #0
  ssub8 r12, r1, r12
  usub8 r1, r0, r12
  sel r0, r0, r12
  pop {r4-r8, pc}
  .size mcg_halves_most, . - mcg_halves_most

/* int32_t mcg_halves_weigh(weight, next, lane, most, to, row): see depthwise_halves.h.
 *
 *   r4-r12 taps w00 ... w22, then as int16 those of two channels   r3 to   lr factor
 */

/* The stack: the taps; after them come lane and most. */
#define REACH 36 /* of each channel, half the sum of the weights that one output meets, less 2 at most */
#define AGAIN 40
#define ROOM 44
#define LANE 44
#define MOST 48
#define TO 88
#define ROW 92
#define LANE_BYTES 16
#define UP 8          /* between the outputs of sums and those that the sums times the multiplier have */

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
.macro channel half, c
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
  str r0, [r3, #20]
  smul\half\()b r0, r8, lr
  str r0, [r3], #4
  pair r9, r7, \half, r3
  pair r11, r5, \half, r3, #4
  pair r12, r6, \half, r3, #8
  pair r10, r4, \half, r3, #12
  adds r3, r3, #20
.endm

  .section .text.mcg_halves_weigh, "ax", %progbits
  .balign 4
  .global mcg_halves_weigh
  .type mcg_halves_weigh, %function
  .thumb_func
mcg_halves_weigh:
  push {r2-r11, lr}
  sub sp, sp, #ROOM
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
  movs r1, #1
  str r1, [sp, #AGAIN]
1: /* channels 0 and 2, then 1 and 3 */
  stm sp, {r4-r12}
  .irp w, r4, r5, r6, r7, r8, r9, r10, r11, r12
  sxtb16 \w, \w
  .endr
  channel b, 0
  channel t, 2
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
  add sp, sp, #(ROOM + 8)
  pop {r4-r11, pc}
  .size mcg_halves_weigh, . - mcg_halves_weigh

#endif
