/* void mcg_depthwise_apart(s, from, even, odd), mcg_depthwise_taps(t): see depthwise_update.h. */
#if defined(__ARM_FEATURE_SIMD32)

#include "uses.h"

  .syntax unified
  .thumb

/* Two pixels at a time:
 *   r0 pixels   r1 pairs of channel 0   r4, r2 bytes from it to channels 1 and 3   r3 pixels left, less 2
 *   r5 bytes of a pixel   r6 even   r7 odd   r8-r12, lr pixels and pairs
 * The stack frame: where the row begins, of both, bytes to the next, of both, and */
#define PIXELS 16 /* of a row, less 2 */
#define ENTRY 20  /* of a row */
#define ROWS 24   /* left */
#define FRAME 28

  .section .text.mcg_depthwise_apart, "ax", %progbits
  .balign 4
  .global mcg_depthwise_apart
  .type mcg_depthwise_apart, %function
  .thumb_func
mcg_depthwise_apart:
  push {r4-r11, lr}
  sub sp, sp, #FRAME
  mov r6, r2
  mov r7, r3
  ldm r0, {r2-r5, r8-r11}    /* to, row, plane, pixel, pitch, odd_place, pixels, rows */
  stm sp, {r1-r3, r8}
  str r11, [sp, #ROWS]
  subs r8, r10, #2
  adr r10, 2f
  it lt
  adrlt r10, 5f
  cmp r9, #0
  it ne
  adrne r10, 6f
  orr r9, r10, #1
  strd r8, r9, [sp, #PIXELS]
  mov r0, r1
  mov r1, r2
  add r2, r4, r4, lsl #1
1: /* a row */
  ldr r3, [sp, #PIXELS]
  ldr pc, [sp, #ENTRY]
  .balign 4
2: /* a pair */
  ldr r8, [r0]
  sxtab16 r10, r6, r8
  sxtab16 r8, r7, r8, ror #8
3: /* its second half */
  ldr r9, [r0, r5]
  add r0, r0, r5, lsl #1
  sxtab16 r11, r6, r9
  sxtab16 r9, r7, r9, ror #8
4:
  pkhbt r12, r10, r11, lsl #16
  pkhtb r11, r11, r10, asr #16
  pkhbt lr, r8, r9, lsl #16
  pkhtb r9, r9, r8, asr #16
  str lr, [r1, r4]
  str r11, [r1, r4, lsl #1]
  str r9, [r1, r2]
  str r12, [r1], #4
  subs r3, r3, #2
  bge 2b
  .balign 4
5: /* one pixel or none is left */
  adds r3, r3, #1
  beq 7f
  ldm sp, {r0, r1, r8, r9}
  ldr r3, [sp, #ROWS]
  add r0, r0, r8
  add r1, r1, r9
  strd r0, r1, [sp]
  subs r3, r3, #1
  str r3, [sp, #ROWS]
  bne 1b
  add sp, sp, #FRAME
  pop {r4-r11, pc}
  .balign 4
6: /* a zero comes first */
  movs r8, #0
  mov r10, r8
  b 3b
7: /* a zero comes last */
  ldr r8, [r0]
  sxtab16 r10, r6, r8
  sxtab16 r8, r7, r8, ror #8
  mov r9, r3
  mov r11, r3
  b 4b
  .size mcg_depthwise_apart, . - mcg_depthwise_apart

#undef ENTRY
#undef ROWS
#undef FRAME

/* Two quads of positions at a time:
 *   r0 x   r1 h   r2-r6 sums of the taps   r7, r8 pairs of h   r9-r11 pairs of x   r12 of two of these, exchanged   lr rounds
 * Of up to three taps r5 has the rows left and r6 the skip. */

/* The stack frame, which begins with x, h and grad of the channel, and next. */
#define PLANES 16   /* from channel to channel, x and h */
#define SKIP 24
#define LEFT 28     /* rows */
#define TO 32       /* gradients, and next */
#define ROUNDS 40   /* of two quads in a row */
#define ROW 44      /* where a row begins */
#define ENTRY 48    /* its first round: in the middle if the quads are odd */
#define CHANNELS 52 /* left */
#define MET 56      /* the first row of the window, and the end */
#define AT 64       /* the next one */
#define FRAME 68

/* Up to three taps.  w0 is loaded, of the next quad w2. */
.macro quad taps, w0, w1, w2
  ldrd r7, r8, [r1], #8
  ldrd \w1, \w2, [r0], #8
  smlad r2, \w0, r7, r2
  smlad r2, \w1, r8, r2
.if \taps > 1
  pkhbt r12, \w1, \w0
  smladx r3, r12, r7, r3
  pkhbt r12, \w2, \w1
  smladx r3, r12, r8, r3
.endif
.if \taps > 2
  smlad r4, \w1, r7, r4
  smlad r4, \w2, r8, r4
.endif
.endm

/* Five taps.  w0, w1 and the pair of both are loaded, of the next quad w0 and w2. */
.macro quad_five w0, w1, w2
  ldrd r7, r8, [r1], #8
  smlad r2, \w0, r7, r2
  smladx r3, r12, r7, r3
  smlad r4, \w1, r7, r4
  smlad r2, \w1, r8, r2
  ldrd \w0, \w2, [r0], #8
  pkhbt r12, \w0, \w1
  smladx r5, r12, r7, r5
  smladx r3, r12, r8, r3
  smlad r6, \w0, r7, r6
  smlad r4, \w0, r8, r4
  pkhbt r12, \w2, \w0
  smladx r5, r12, r8, r5
  smlad r6, \w2, r8, r6
.endm

.macro rows taps, store
row_\taps:
  ldr r9, [r0], #4
  ldr lr, [sp, #ROUNDS]
  mov r11, r9
  ldr pc, [sp, #ENTRY]
even_\taps:
  quad \taps, r9, r10, r11
odd_\taps:
  quad \taps, r11, r10, r9
  subs lr, lr, #1
  bne even_\taps
  add r0, r0, r6
  subs r5, r5, #1
  bne row_\taps
  ldrd r7, r8, [sp, #TO]
  b store_\taps
.endm

.macro places taps
  .hword row_\taps - places + 1, even_\taps - places + 1, odd_\taps - places + 1
.endm

  .section .text.mcg_depthwise_taps, "ax", %progbits
  .balign 4
  .global mcg_depthwise_taps
  .type mcg_depthwise_taps, %function
  .thumb_func
mcg_depthwise_taps:
  push {r4-r11, lr}
  sub sp, sp, #FRAME
  ldm r0, {r0-r10}           /* x, h, grad, next, x_plane, h_plane, skip, quads, taps, met, end */
  stm sp, {r0-r6}
  str r3, [sp, #(TO + 4)]
  strd r9, r10, [sp, #MET]
  sub r8, r8, #1
  add r8, r8, r8, lsl #1
  and r9, r7, #1
  add r9, r9, r8
  adr r11, places
  add r9, r11, r9, lsl #1
  ldrh r8, [r11, r8, lsl #1]
  ldrh r9, [r9, #2]
  add r8, r8, r11
  add r9, r9, r11
  add r7, r7, #1
  lsr r7, r7, #1
  strd r7, r8, [sp, #ROUNDS]
  mov r10, #4
  strd r9, r10, [sp, #ENTRY]
1: /* a channel */
  ldr r12, [sp, #MET]
2: /* a row of the window */
  ldm r12!, {r0, r1, r5, r7} /* x, h, rows, grad */
  ldm sp, {r8-r11}
  str r12, [sp, #AT]
  ldr r6, [sp, #SKIP]
  add r0, r0, r8
  add r1, r1, r9
  add r7, r7, r10
  str r7, [sp, #TO]
  ldr r2, [r7]
  ldr r3, [r7, r11]
  ldr r4, [r7, r11, lsl #1]
  ldr pc, [sp, #ROW]
  .balign 4
places:
  places 1
  places 2
  places 3
#if MCG_USES_UPDATE_FIVES
  .hword 0, 0, 0
  places 5
#endif
  rows 1
  rows 2
  rows 3
#if MCG_USES_UPDATE_FIVES
row_5:
  str r5, [sp, #LEFT]
  add r9, r7, r11, lsl #1
  ldr r5, [r9, r11]
  ldr r6, [r7, r11, lsl #2]
3:
  ldrd r9, r10, [r0], #8
  ldr lr, [sp, #ROUNDS]
  mov r11, r10
  pkhbt r12, r10, r9
  ldr pc, [sp, #ENTRY]
even_5:
  quad_five r9, r10, r11
odd_5:
  quad_five r9, r11, r10
  subs lr, lr, #1
  bne even_5
  ldrd r7, r8, [sp, #SKIP]   /* and rows left */
  add r0, r0, r7
  subs r8, r8, #1
  str r8, [sp, #LEFT]
  bne 3b
  ldrd r7, r8, [sp, #TO]
  add r9, r7, r8, lsl #1
  str r5, [r9, r8]
  str r6, [r7, r8, lsl #2]
#endif
store_3:
  str r4, [r7, r8, lsl #1]
store_2:
  str r3, [r7, r8]
store_1:
  str r2, [r7]
  ldrd r11, r12, [sp, #(AT - 4)]
  cmp r11, r12
  bne 2b
  ldm sp, {r0-r5}
  ldr r6, [sp, #CHANNELS]
  add r0, r0, r4
  add r1, r1, r5
  add r2, r2, #4
  stm sp, {r0-r2}
  subs r6, r6, #1
  str r6, [sp, #CHANNELS]
  bne 1b
  add sp, sp, #FRAME
  pop {r4-r11, pc}
  .size mcg_depthwise_taps, . - mcg_depthwise_taps

#endif
