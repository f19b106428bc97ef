/* void mcg_halves_<rows>_<mask>(w, c): see depthwise_halves.h.
 *
 * The 2x2 outputs of four channels at a position of h at a time.  A position of the plane is a register a channel, of which two
 * meet their taps together with those of the next position; outputs of channels 0 and 2 are left in bytes 0 and 2 of a register,
 * those of channels 1 and 3 in bytes 1 and 3, so that one select joins them.
 *   r0 plane   r1 weights   r2-r5 this position and the next, then outputs   r6-r9 sums, then other channels' outputs
 *   lr rounding, then mask
 */
#if defined(__ARM_FEATURE_SIMD32)

#define PLACE 16 /* bytes of a position in the plane */

/* The stack frame is the walk, of which the first eight fields come to r1 and r6-r12; below it are, for a while, four outputs of
 * channels 0 and 2. */
#define UPPER 24
#define END 32
#define PITCH 36
#define WEIGHTS 40 /* and rounding */
#define OTHERS (48 + 16)
#define BACK 56
#define MASK_BACK 60
#define ROWS 64
#define FRAME 68

  .syntax unified
  .thumb

/* Sums, then high words, of the first channel, from here and next: rows' upper ones in r6 and r7, lower ones in r8 and r9. */
.macro first_channel rows, here, next
  ldm r1!, {r6-r11}
.ifnc \rows, lower
  smulbb r6, \here, r6
  smulbt r12, \next, r7
  smlabb r7, \here, r7, r12
  smmla r6, r6, r11, lr
  smmla r7, r7, r11, lr
.endif
.ifnc \rows, upper
  smuad r8, \here, r8
  smuad r9, \here, r9
  smlad r9, \next, r10, r9
  smmla r8, r8, r11, lr
  smmla r9, r9, r11, lr
.endif
.endm

/* The same of the second channel, packed with those of the first by `pack`. */
.macro second_channel rows, pack, here, next
  ldm r1, {r1, r2, r4, r10-r12}
.ifnc \rows, upper
  smuad r10, \here, r10
  smlad r10, \next, r11, r10
  smuad r4, \here, r4
  smmla r10, r10, r12, lr
  smmla r4, r4, r12, lr
  \pack r8, r4
  \pack r9, r10
.endif
.ifnc \rows, lower
  smulbt r11, \next, r2
  smlabb r2, \here, r2, r11
  smulbb r1, \here, r1
  smmla r2, r2, r12, lr
  smmla r1, r1, r12, lr
  \pack r6, r1
  \pack r7, r2
.endif
.endm

.macro high_halves low, high
  pkhtb \low, \high, \low, asr #16
.endm

.macro low_halves low, high
  pkhbt \low, \low, \high, lsl #16
.endm

.macro two_channels rows, pack
  ldrd r4, r5, [r0, #PLACE]
  ldrd r2, r3, [r0], #8
  first_channel \rows, r2, r4
  second_channel \rows, \pack, r3, r5
.endm

.macro stop_bytes out, at, v
  ldr lr, [\out, \at]
  uadd8 lr, lr, r9
  usub8 lr, lr, r10
  sel \v, \v, r8
.endm

.macro stop_bits v, mask:vararg
  ldrb lr, [\mask]
  lsl lr, lr, r10
  msr APSR_g, lr
  sel \v, \v, r8
.endm

/* Masks and stores two outputs of a row. */
.macro leave mask, out, bits, v, w
.ifc \mask, bytes
  stop_bytes \out, r6, \v
  str \v, [\out]
  stop_bytes \out, r1, \w
.else
  stop_bits \v, \bits
  str \v, [\out]
  stop_bits \w, \bits, r9
  add \bits, \bits, r9, lsl #1
.endif
  str \w, [\out, r7]
  add \out, \out, r7, lsl #1
.endm

.macro walk rows, mask
  .section .text.mcg_halves_\rows\()_\mask, "ax", %progbits
  .balign 4
  .global mcg_halves_\rows\()_\mask
  .type mcg_halves_\rows\()_\mask, %function
  .thumb_func
mcg_halves_\rows\()_\mask:
  push {r4-r11, lr}
  sub sp, sp, #FRAME
  ldm r0!, {r2-r12}
  add r8, r8, r1
  add r9, r9, r1
.ifc \mask, bits
  add r2, r2, r1, lsr #3
  add r3, r3, r1, lsr #3
  and r7, r1, #4
  rsb r7, r7, #16
.endif
  stm sp, {r2-r12}
  sub r2, r10, r11           /* the plane, and a place of zeros */
  ldm r0, {r3-r8}
  add r1, sp, #(WEIGHTS + 4)
  stm r1, {r3-r8}
  ldrd r1, lr, [sp, #WEIGHTS]
  add r0, r2, #PLACE
  cmp r8, #0
  ble 9f
1:
  two_channels \rows, high_halves
  push {r6-r9}
  ldrd r1, lr, [sp, #OTHERS]
  two_channels \rows, low_halves
  msr APSR_g, lr
  pop {r2-r5}
.ifnc \rows, lower
  sel r2, r6, r2
  sel r3, r7, r3
.endif
.ifnc \rows, upper
  sel r4, r8, r4
  sel r5, r9, r5
.endif
  ldm sp, {r1, r6-r12}
.ifnc \rows, lower
  leave \mask, r11, r6, r2, r3
.endif
.ifnc \rows, upper
  leave \mask, r12, r1, r4, r5
.endif
.ifc \mask, bits
  strd r1, r6, [sp]
.endif
  strd r11, r12, [sp, #UPPER]
  ldr r2, [sp, #END]
  ldrd r1, lr, [sp, #WEIGHTS]
  cmp r0, r2
  bne 1b
  ldr r3, [sp, #PITCH]
  ldr r4, [sp, #BACK]
  ldr r5, [sp, #ROWS]
  add r0, r0, #PLACE
  add r2, r2, r3
  add r11, r11, r4
  add r12, r12, r4
  strd r11, r12, [sp, #UPPER]
  str r2, [sp, #END]
.ifc \mask, bits
  ldr r4, [sp, #MASK_BACK]
  ldrd r2, r6, [sp]
  add r2, r2, r4
  add r6, r6, r4
  strd r2, r6, [sp]
.endif
  subs r5, r5, #1
  str r5, [sp, #ROWS]
  bne 1b
9:
  add sp, sp, #FRAME
  pop {r4-r11, pc}
  .size mcg_halves_\rows\()_\mask, . - mcg_halves_\rows\()_\mask
.endm

  walk both, bytes
  walk both, bits
  walk upper, bytes
  walk upper, bits
  walk lower, bytes
  walk lower, bits

#endif
