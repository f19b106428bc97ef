/* void mcg_halves_<rows>_<mask>(const uint32_t *plane, void *table, int8_t *out), mcg_halves_widen(t): see depthwise_halves.h.
 *
 * Two outputs of four channels at a time, of which 0, 2 and 1, 3 share a register once they are int16:
 *   r0 plane   r1 table   r2-r5 gradients, then outputs   r6-r11 weights and sums, then the walk   r12 out
 *   lr rounding, then mask
 */
#if defined(__ARM_FEATURE_SIMD32)

#define EVEN_BYTES 48 /* of weights in the table */
#define ODD_BYTES 64
#define PLACE 16      /* bytes of a position in the plane */

/* Fields of the walk beyond its first eight, which come to r4-r11. */
#define END 20
#define BACK 32       /* and from the last output of a row to the next row */
#define MASK_BACK 40
#define ROWS 44

  .syntax unified
  .thumb

/* r2, r3: bytes of channels 0 and 2, from r4, r5 those of 1 and 3, too */
.macro join
  mov r6, #0xFF00FF00
  and r4, r6, r4, lsl #8
  and r5, r6, r5, lsl #8
  uxtab16 r2, r4, r2
  uxtab16 r3, r5, r3
.endm

.macro stop_bytes v
  uadd8 lr, lr, r10
  usub8 lr, lr, r11
  sel \v, \v, r8
.endm

.macro stop_bits v
  lsl lr, lr, r10
  msr APSR_g, lr
  sel \v, \v, r8
.endm

/* To the next position, or to 2 at a row's end.  weights: bytes of them */
.macro leave mask, weights
  ldm r1, {r4-r11}
.ifc \mask, bytes
  ldr lr, [r12, r4]
  stop_bytes r2
  ldr lr, [r12, r5]
  str r2, [r12]
  stop_bytes r3
.else
  ldrb lr, [r4]
  stop_bits r2
  ldrb lr, [r4, r5]
  str r2, [r12]
  stop_bits r3
  add r4, r4, r5, lsl #1
  str r4, [r1]
.endif
  str r3, [r12, r6]
  add r12, r12, r6, lsl #1
  add r0, r0, r7
  sub r1, r1, #\weights
  cmp r0, r9
.endm

.macro next_row mask, weights
  ldrd r4, r5, [r1, #(\weights + BACK)]
  ldr r6, [r1, #(\weights + END)]
  ldr r7, [r1, #(\weights + ROWS)]
  add r0, r0, r4
  add r12, r12, r5
  add r6, r6, #PLACE
  str r6, [r1, #(\weights + END)]
.ifc \mask, bits
  ldr r5, [r1, #(\weights + MASK_BACK)]
  ldr r6, [r1, #\weights]
  add r6, r6, r5
  str r6, [r1, #\weights]
.endif
  subs r7, r7, #1
  str r7, [r1, #(\weights + ROWS)]
.endm

.macro begin name
  .section .text.\name, "ax", %progbits
  .balign 4
  .global \name
  .type \name, %function
  .thumb_func
\name:
  push {r4-r11, lr}
  mov r12, r2
.endm

/* sum and one, the outputs 11 and 10 of a channel: from its gradients p and n in this row and the next */
.macro corner sum, one, w, m, p, n
  smuad \sum, \p, \sum
  smlad \sum, \n, \one, \sum
  smulbb \one, \p, \w
  smlabt \one, \n, \w, \one
  smmla \sum, \sum, \m, lr
  smmla \one, \one, \m, lr
.endm

/* Four outputs 00 and 01 of two channels, gradients a and b, to those of r2, r3 or r4, r5 */
.macro edge a, b, left, right
  ldm r1!, {r6-r11}
  smulbb r6, \a, r6
  smuad r7, \a, r7
  smulbb r8, \b, r8
  smuad r9, \b, r9
  smmla r6, r6, r10, lr
  smmla r7, r7, r10, lr
  smmla r8, r8, r11, lr
  smmla r9, r9, r11, lr
  pkhtb \left, r8, r6, asr #16
  pkhtb \right, r9, r7, asr #16
.endm

.macro rows mask
  begin mcg_halves_even_\mask
1:
  mov lr, #0x8000
  ldm r0, {r2-r5}
  edge r3, r2, r2, r3
  edge r4, r5, r4, r5
  join
  leave \mask, EVEN_BYTES
  bne 1b
  next_row \mask, EVEN_BYTES
  bne 1b
  pop {r4-r11, pc}
  .size mcg_halves_even_\mask, . - mcg_halves_even_\mask

  begin mcg_halves_odd_\mask
1:
  mov lr, #0x8000
  ldrd r2, r3, [r0]
  ldrd r4, r5, [r0, #PLACE]!
  ldm r1!, {r6-r9}
  corner r6, r7, r8, r9, r3, r5
  ldm r1!, {r8-r11}
  corner r8, r9, r10, r11, r2, r4
  pkhtb r2, r9, r7, asr #16
  pkhtb r3, r8, r6, asr #16
  ldrd r4, r5, [r0, #-8]
  ldrd r6, r7, [r0, #8]
  ldm r1!, {r8-r11}
  corner r8, r9, r10, r11, r4, r6
  ldm r1!, {r4, r6, r10, r11}
  corner r4, r6, r10, r11, r5, r7
  pkhtb r5, r4, r8, asr #16
  pkhtb r4, r6, r9, asr #16
  join
  leave \mask, ODD_BYTES
  bne 1b
  next_row \mask, ODD_BYTES
  bne 1b
  pop {r4-r11, pc}
  .size mcg_halves_odd_\mask, . - mcg_halves_odd_\mask
.endm

  rows bytes
  rows bits

/* void mcg_halves_widen(mcg_halves_plane_t *t)
 *
 *   r0 h   r1 bytes of a position   r2 plane   r3, r7 and r4, r8 channels 0, 2 and 1, 3 of neighbours   r5, r6 pairs
 *   r9 from column to column   r10 positions left   r12 largest   lr smallest
 */
#define WIDTH_OF_T 16
#define LARGEST_OF_T 24

/* Pairs of the position in (e, o) and the next, which comes to (f, p) */
.macro place e, o, f, p
  ldr \f, [r0]
  add r0, r0, r1
  ssub8 r11, \f, r12
  sel r12, \f, r12
  ssub8 r11, lr, \f
  sel lr, \f, lr
  and \p, \f, #0xFF00FF00
  lsl \f, \f, #8
  and \f, \f, #0xFF00FF00
  pkhbt r5, \e, \f, lsl #16
  pkhtb \e, \f, \e, asr #16
  pkhbt r6, \o, \p, lsl #16
  pkhtb \o, \p, \o, asr #16
  stm r2, {\e, r5, r6, \o}
  add r2, r2, r9
  subs r10, r10, #1
.endm

.macro last e, o
  uxth r5, \e
  lsr \e, \e, #16
  uxth r6, \o
  lsr \o, \o, #16
  stm r2, {\e, r5, r6, \o}
.endm

  .section .text.mcg_halves_widen, "ax", %progbits
  .balign 4
  .global mcg_halves_widen
  .type mcg_halves_widen, %function
  .thumb_func
mcg_halves_widen:
  push {r0, r4-r11, lr}
  ldm r0, {r0, r1, r2, r9}   /* h, channels, plane, pitch */
  mov r12, #0
  mov lr, #0
1: /* a row */
  ldr r10, [sp]
  ldr r10, [r10, #WIDTH_OF_T]
  ldr r3, [r0]
  add r0, r0, r1
  ssub8 r11, r3, r12
  sel r12, r3, r12
  ssub8 r11, lr, r3
  sel lr, r3, lr
  and r7, r3, #0xFF00FF00
  lsl r3, r3, #8
  and r3, r3, #0xFF00FF00
  subs r10, r10, #1
  beq 3f
2:
  place r3, r7, r4, r8
  beq 4f
  place r4, r8, r3, r7
  bne 2b
3:
  last r3, r7
  b 5f
4:
  last r4, r8
5:
  ldr r10, [sp]
  ldrd r5, r6, [r10, #WIDTH_OF_T] /* and rows */
  sub r5, r5, #1
  mls r2, r5, r9, r2
  add r2, r2, #PLACE
  subs r6, r6, #1
  str r6, [r10, #(WIDTH_OF_T + 4)]
  bne 1b
  strd r12, lr, [r10, #LARGEST_OF_T]
  pop {r0, r4-r11, pc}
  .size mcg_halves_widen, . - mcg_halves_widen

#endif
