/* int32_t mcg_chain_quad_<mask>(const mcg_quad_t *q): see chain_quad.h.
 *
 * Two positions at a time:
 *   r0 acc   r3 lanes   r4-r7, r8-r11 quads   r1, r2, r12 lane   lr how many -128 the clamp changed
 */
#if defined(__ARM_FEATURE_SIMD32)

#define LANES_OF_Q 28
#define LANE_BYTES 12

/* The stack frame: mask, out, their steps, table; acc's step and end. */
#define STEP 20
#define END 24
#define FRAME 28
#define SATURATED (1 << 27) /* Q, which SSAT sets: also for what the mask stops */

  .syntax unified
  .thumb

/* One lane of both quads. */
.macro requantize a, b
  ldm r3!, {r1, r2, r12}
  smmla \a, \a, r1, r2
  smmla \b, \b, r1, r2
  asr \a, \a, r12
  asr \b, \b, r12
  ssat \a, #8, \a
  ssat \b, #8, \b
.endm

/* r10, r11: bytes of ones where the outputs passed, strict at both ends; r5 mask, r7 its step, r12 table. */
.macro load_bytes
  ldr r10, [r5]
  ldr r11, [r5, r7]
  mov r1, #0x81818181
  mov r2, #0x02020202
  mvn r12, #0
  uadd8 r10, r10, r1
  uadd8 r11, r11, r1
  mov r1, #0
  usub8 r10, r10, r2
  sel r10, r12, r1
  usub8 r11, r11, r2
  sel r11, r12, r1
.endm

.macro load_low
  ldrb r10, [r5]
  ldrb r11, [r5, r7]
  and r10, r10, #15
  and r11, r11, #15
  ldr r10, [r12, r10, lsl #2]
  ldr r11, [r12, r11, lsl #2]
.endm

.macro load_high
  ldrb r10, [r5]
  ldrb r11, [r5, r7]
  lsrs r10, r10, #4
  lsrs r11, r11, #4
  ldr r10, [r12, r10, lsl #2]
  ldr r11, [r12, r11, lsl #2]
.endm

/* v: -128 becomes -127; lr counts that.  r1 is a one in each byte, spare is overwritten. */
.macro clamp v, spare
  qsub8 \spare, \v, r1
  qadd8 \spare, \spare, r1
  usada8 lr, \v, \spare, lr
.endm

.macro quad name, load
  .section .text.\name, "ax", %progbits
  .balign 4
  .global \name
  .type \name, %function
  .thumb_func
\name:
  push {r4-r11, lr}
  sub sp, sp, #FRAME
  add r3, r0, #LANES_OF_Q
  ldm r0, {r0, r5-r7, r8-r10}  /* acc, mask, out, count, steps of mask, out, acc */
  mla r11, r7, r10, r0
  strd r10, r11, [sp, #STEP]
  mov r7, r8
  mov r8, r9
  ldr r9, 9f
  stm sp, {r5-r9}
  mov lr, #0
  msr APSR_nzcvq, lr
1:
  ldr r1, [sp, #STEP]
  ldm r0, {r4-r7}
  add r0, r0, r1
  ldm r0, {r8-r11}
  add r0, r0, r1
  requantize r4, r8
  requantize r5, r9
  requantize r6, r10
  requantize r7, r11
  bfi r4, r5, #8, #8
  bfi r4, r6, #16, #8
  bfi r4, r7, #24, #8
  bfi r8, r9, #8, #8
  bfi r8, r10, #16, #8
  bfi r8, r11, #24, #8
  ldm sp, {r5, r6, r7, r9, r12}
  \load
  and r4, r4, r10
  and r8, r8, r11
  mov r1, #0x01010101
  clamp r4, r10
  clamp r8, r11
  str r10, [r6]
  str r11, [r6, r9]
  add r5, r5, r7, lsl #1
  add r6, r6, r9, lsl #1
  ldr r1, [sp, #END]
  strd r5, r6, [sp]
  sub r3, r3, #(4 * LANE_BYTES)
  cmp r0, r1
  bne 1b
  mrs r0, APSR
  and r0, r0, #SATURATED
  orr r0, r0, lr
  add sp, sp, #FRAME
  pop {r4-r11, pc}
  .balign 4
9:
  .word mcg_chain_quad_table
  .size \name, . - \name
.endm

  quad mcg_chain_quad_bytes, load_bytes
  quad mcg_chain_quad_low, load_low
  quad mcg_chain_quad_high, load_high

/* int32_t mcg_chain_words_<mask>(const mcg_words_t *q): see chain_quad.h.
 *
 *   r0 words   r1 how many -128   r2 0   r3 a one in each byte   r4 mask   r5 out   r6 count   r7, r8 their steps   r9 up
 */

/* v: 0 where the mask says so; m is overwritten, at: of the mask */
.macro stop_bytes v, m, at:vararg
  ldr \m, [\at]
  uadd8 \m, \m, r9
  usub8 \m, \m, r12
  sel \v, \v, r2
.endm

.macro stop_bits v, m, at:vararg
  ldrb \m, [\at]
  lsl \m, \m, r9
  msr APSR_g, \m
  sel \v, \v, r2
.endm

/* m = v with -127 for -128 */
.macro limit v, m
  qsub8 \m, \v, r3
  qadd8 \m, \m, r3
  usada8 r1, \v, \m, r1
.endm

.macro words name, stop
  .section .text.\name, "ax", %progbits
  .balign 4
  .global \name
  .type \name, %function
  .thumb_func
\name:
  mrs r1, APSR
  mov r2, #0
  msr APSR_nzcvq, r2
  ands r1, r1, #SATURATED
  itt ne
  mvnne r0, r2
  bxne lr
  push {r4-r11, lr}
  ldm r0, {r0, r4-r9}
.ifc \stop, stop_bytes
  mov r9, #0x81818181
  mov r12, #0x02020202
.endif
  mov r3, #0x01010101
  lsrs r6, r6, #1
  bcc 1f
  ldr r10, [r0], #4
  \stop r10, lr, r4
  limit r10, lr
  str lr, [r5]
  add r4, r4, r7
  add r5, r5, r8
  cbz r6, 2f
1:
  ldrd r10, r11, [r0], #8
  \stop r10, lr, r4
  \stop r11, lr, r4, r7
  limit r10, lr
  limit r11, r10
  str lr, [r5]
  str r10, [r5, r8]
  add r4, r4, r7, lsl #1
  add r5, r5, r8, lsl #1
  subs r6, r6, #1
  bne 1b
2:
  mov r0, r1
  pop {r4-r11, pc}
  .size \name, . - \name
.endm

  words mcg_chain_words_bytes, stop_bytes
  words mcg_chain_words_bits, stop_bits

  .section .text.mcg_chain_clear_q, "ax", %progbits
  .balign 4
  .global mcg_chain_clear_q
  .type mcg_chain_clear_q, %function
  .thumb_func
mcg_chain_clear_q:
  mov r0, #0
  msr APSR_nzcvq, r0
  bx lr
  .size mcg_chain_clear_q, . - mcg_chain_clear_q

/* Four bits as bytes of ones. */
  .section .rodata.mcg_chain_quad_table, "a", %progbits
  .balign 4
mcg_chain_quad_table:
  .word 0x00000000, 0x000000FF, 0x0000FF00, 0x0000FFFF, 0x00FF0000, 0x00FF00FF, 0x00FFFF00, 0x00FFFFFF
  .word 0xFF000000, 0xFF0000FF, 0xFF00FF00, 0xFF00FFFF, 0xFFFF0000, 0xFFFF00FF, 0xFFFFFF00, 0xFFFFFFFF

#endif
