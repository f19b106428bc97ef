/* int32_t mcg_chain_quad_<mask>(const mcg_quad_t *q): see chain_quad.h.
 *
 *   r0 acc   r1 mask   r2 out   r3 lanes   r4-r7 quad   r8-r10 lane   r11 mask of the quad   r12 outputs below -127
 *   lr positions left   [sp] steps of mask, out, acc
 */
#if defined(__ARM_FEATURE_SIMD32)

#define STEPS_OF_Q 16
#define LANES_OF_Q 28
#define LANE_BYTES 12

  .syntax unified
  .thumb

/* r11: a byte whose lowest bit says that the output passed, strict at both ends */
.macro load_bytes
  ldr r11, [r1]
  mov r8, #0x81818181
  mov r9, #0x02020202
  uadd8 r11, r11, r8
  usub8 r11, r11, r9
  sel r11, r8, r9
.endm

.macro load_bits
  ldrb r11, [r1]
.endm

.macro apply_mask acc, bit
  sbfx r8, r11, #\bit, #1
  and \acc, \acc, r8
.endm

.macro requantize acc
  ldm r3!, {r8-r10}
  smmla \acc, \acc, r8, r9
  asr \acc, \acc, r10
  ssat \acc, #8, \acc
.endm

.macro quad name, load, bit, next
  .section .text.\name, "ax", %progbits
  .balign 4
  .global \name
  .type \name, %function
  .thumb_func
\name:
  push {r4-r11, lr}
  sub sp, sp, #12
  mov r12, #0
  msr APSR_nzcvq, r12
  add r4, r0, #STEPS_OF_Q
  ldm r4, {r5-r7}
  add r3, r0, #LANES_OF_Q
  stm sp, {r5-r7}
  ldm r0, {r0-r2, lr}
1:
  \load
  ldm r0, {r4-r7}
  apply_mask r4, \bit
  apply_mask r5, (\bit + \next)
  apply_mask r6, (\bit + 2 * \next)
  apply_mask r7, (\bit + 3 * \next)
  stm r0, {r4-r7}
  requantize r4
  requantize r5
  requantize r6
  requantize r7
  bfi r4, r5, #8, #8
  bfi r4, r6, #16, #8
  bfi r4, r7, #24, #8
  mov r10, #0x01010101
  qsub8 r8, r4, r10
  qadd8 r8, r8, r10
  eor r4, r4, r8
  str r8, [r2]
  orr r12, r12, r4
  ldm sp, {r8-r10}
  sub r3, r3, #(4 * LANE_BYTES)
  add r1, r1, r8
  add r2, r2, r9
  add r0, r0, r10
  subs lr, lr, #1
  bne 1b
  mrs r0, APSR
  and r0, r0, #0x08000000
  orr r0, r0, r12
  add sp, sp, #12
  pop {r4-r11, pc}
  .size \name, . - \name
.endm

  quad mcg_chain_quad_bytes, load_bytes, 0, 8
  quad mcg_chain_quad_low, load_bits, 0, 1
  quad mcg_chain_quad_high, load_bits, 4, 1

#endif
