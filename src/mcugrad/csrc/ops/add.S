/* void mcg_add_words(const mcg_add_words_t *s): see add.h.
 *
 *   r0, r1 operands   r2 sums   r3 the end of those   r4, r5 pairs of factors   r6 offset   r7-r12, lr words and pairs
 */
#if defined(__ARM_FEATURE_SIMD32)

#define ADD_BITS 15

  .syntax unified
  .thumb

/* acc = the sum of a pair */
.macro sum acc, pair
  smlad \acc, \pair, r5, r6
  smlad \acc, \pair, r4, \acc
  ssat \acc, #8, \acc, asr #ADD_BITS
.endm

  .section .text.mcg_add_words, "ax", %progbits
  .balign 4
  .global mcg_add_words
  .type mcg_add_words, %function
  .thumb_func
mcg_add_words:
  push {r4-r11, lr}
  ldm r0, {r0-r6}
1:
  ldr r7, [r0], #4
  ldr r8, [r1], #4
  sxtb16 r9, r7
  sxtb16 r7, r7, ror #8
  sxtb16 r10, r8
  sxtb16 r8, r8, ror #8
  pkhbt r11, r9, r10, lsl #16
  pkhbt r12, r7, r8, lsl #16
  pkhtb r10, r10, r9, asr #16
  pkhtb r8, r8, r7, asr #16
  sum r9, r11
  sum r7, r12
  sum r11, r10
  sum r12, r8
  bfi r9, r7, #8, #8
  bfi r9, r11, #16, #8
  bfi r9, r12, #24, #8
  str r9, [r2], #4
  cmp r2, r3
  bne 1b
  pop {r4-r11, pc}
  .size mcg_add_words, . - mcg_add_words

#endif
