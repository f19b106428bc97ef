/* void mcg_halves_<rows>_<mask>(w, weight, c): see depthwise_halves.h.
 *
 * Two outputs of four channels at a time, of which 0, 2 and 1, 3 share a register once they are int16:
 *   r0 plane   r1 weights   r2-r5 gradients, then outputs   r6-r11 weights and sums, then the walk
 *   r12 out, of odd rows the plane's next row   lr rounding, then mask
 */
#if defined(__ARM_FEATURE_SIMD32)

#define PLACE 16      /* bytes of a position in the plane */

/* The stack frame is the walk, of which the first eight fields come to r4-r11. */
#define OUT 12
#define END 20
#define PITCH 32      /* of the plane, and from the last output of a row to the next row */
#define MASK_BACK 40
#define ROWS 44
#define FRAME 48

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

/* Masks and stores the outputs; to the next position, or equal at a row's end. */
.macro leave mask, out
  ldm sp, {r4-r11}
.ifc \mask, bytes
  ldr lr, [\out, r4]
  stop_bytes r2
  ldr lr, [\out, r5]
  str r2, [\out]
  stop_bytes r3
.else
  ldrb lr, [r4]
  stop_bits r2
  ldrb lr, [r4, r5]
  str r2, [\out]
  stop_bits r3
  add r4, r4, r5, lsl #1
  str r4, [sp]
.endif
  str r3, [\out, r6]
  add \out, \out, r6, lsl #1
.ifc \out, r7
  str r7, [sp, #OUT]
.endif
  cmp r0, r9
.endm

/* Equal after the last row. */
.macro next_row mask, out
  ldrd r4, r5, [sp, #PITCH]
  ldr r8, [sp, #ROWS]
  add r9, r9, r4
  str r9, [sp, #END]
  add \out, \out, r5
.ifc \out, r7
  str r7, [sp, #OUT]
.endif
.ifc \mask, bits
  ldr r5, [sp, #MASK_BACK]
  ldr r6, [sp]
  add r6, r6, r5
  str r6, [sp]
.endif
  subs r8, r8, #1
  str r8, [sp, #ROWS]
.endm

.macro begin name, mask
  .section .text.\name, "ax", %progbits
  .balign 4
  .global \name
  .type \name, %function
  .thumb_func
\name:
  push {r4-r11, lr}
  sub sp, sp, #FRAME
  ldm r0!, {r4-r11}
  add r7, r7, r2
.ifc \mask, bits
  add r4, r4, r2, lsr #3
  and r10, r2, #4
  rsb r10, r10, #16
.endif
  stm sp, {r4-r11}
  mov r12, r7
  ldm r0, {r4-r7}
  add r3, sp, #PITCH
  stm r3, {r4-r7}
  subs r0, r9, r4
  cmp r7, #0
  ble 9f
.endm

.macro finish name
9:
  add sp, sp, #FRAME
  pop {r4-r11, pc}
  .size \name, . - \name
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

/* left and right, the outputs 00 and 01 of two channels, from their gradients a and b and their weights in r6-r11 */
.macro edge a, b, left, right
  smulbb r6, \a, r6
  smuad r7, \a, r7
  smulbb r9, \b, r9
  smuad r10, \b, r10
  smmla r6, r6, r8, lr
  smmla r7, r7, r8, lr
  smmla r9, r9, r11, lr
  smmla r10, r10, r11, lr
  pkhtb \left, r9, r6, asr #16
  pkhtb \right, r10, r7, asr #16
.endm

.macro rows mask
  begin mcg_halves_even_\mask, \mask
  adds r1, r1, #28
1:
  ldm r0!, {r2-r5}
  ldmdb r1, {r6-r11, lr}
  edge r3, r2, r2, r3
  ldm r1, {r6-r11}
  edge r4, r5, r4, r5
  join
  leave \mask, r12
  bne 1b
  next_row \mask, r12
  bne 1b
  finish mcg_halves_even_\mask

  begin mcg_halves_odd_\mask, \mask
  add r12, r0, r4
1:
  ldrd r2, r3, [r0], #8
  ldrd r4, r5, [r12], #8
  ldm r1!, {r6-r9, lr}
  corner r6, r7, r8, r9, r3, r5
  ldm r1!, {r8-r11}
  corner r8, r9, r10, r11, r2, r4
  pkhtb r2, r9, r7, asr #16
  pkhtb r3, r8, r6, asr #16
  ldrd r4, r5, [r0], #8
  ldrd r6, r7, [r12], #8
  ldm r1!, {r8-r11}
  corner r8, r9, r10, r11, r4, r6
  ldm r1, {r1, r4, r6, r10, r11} /* r1 as it was */
  corner r4, r6, r10, r11, r5, r7
  pkhtb r5, r4, r8, asr #16
  pkhtb r4, r6, r9, asr #16
  join
  leave \mask, r7
  bne 1b
  next_row \mask, r7
  bne 1b
  finish mcg_halves_odd_\mask
.endm

  rows bytes
  rows bits

#endif
