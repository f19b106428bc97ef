/* void mcg_depthwise_span(const mcg_depthwise_span_t *s), uint32_t *mcg_depthwise_span_widen(from, step, n, to): see depthwise_span.h.
 *
 * The taps of a row are unrolled after the first; fewer than the most begin further down.
 *   r0 h   r1 weights   r2 from the end of a row of h to the next   r3 rows left   r4, r5 h   r6, r7 weights
 *   r8-r11 accumulators   lr positions left
 */
#if defined(__ARM_FEATURE_SIMD32)

#define MOST_TAPS 7
#define TAP_BYTES 24

/* Fields of s. */
#define COUNT_OF_S 24
#define PITCH_OF_S 28

/* The stack frame: h, wide, rows and acc, step of the position; then h and acc of the line. */
#define ACC 12
#define LINE 20
#define S 28
#define LEFT 32 /* lines */
#define ENTRY 36 /* where the other taps begin */
#define FRAME 40

  .syntax unified
  .thumb

.macro tap
  ldrd r4, r5, [r0], #8
  ldrd r6, r7, [r1], #8
  smlabb r8, r4, r6, r8
  smlabb r9, r5, r7, r9
  smlatt r10, r4, r6, r10
  smlatt r11, r5, r7, r11
.endm

  .section .text.mcg_depthwise_span, "ax", %progbits
  .balign 4
  .global mcg_depthwise_span
  .type mcg_depthwise_span, %function
  .thumb_func
mcg_depthwise_span:
  push {r4-r11, lr}
  sub sp, sp, #FRAME
  ldm r0, {r4-r11, r12, lr}  /* h, wide, rows, taps, acc, step, count, pitch, line, lines */
  str r4, [sp, #LINE]
  str r8, [sp, #(LINE + 4)]
  strd r5, r6, [sp, #4]
  str r9, [sp, #(ACC + 4)]
  strd r0, lr, [sp, #S]
  sub r2, r11, r7, lsl #3
  rsb r7, r7, #MOST_TAPS
  add r7, r7, r7, lsl #1
  adr r12, 9f
  add r12, r12, r7, lsl #3
  orr r12, r12, #1
  str r12, [sp, #ENTRY]
1:
  ldrd r0, r4, [sp, #LINE]
  ldr r5, [sp, #S]
  str r0, [sp]
  str r4, [sp, #ACC]
  ldr lr, [r5, #COUNT_OF_S]
  ldm sp, {r0, r1, r3}
2:
  ldrd r4, r5, [r0], #8
  ldrd r6, r7, [r1], #8
  smulbb r8, r4, r6
  smulbb r9, r5, r7
  smultt r10, r4, r6
  smultt r11, r5, r7
  ldr pc, [sp, #ENTRY]
3:
  tap
  ldr pc, [sp, #ENTRY]
  .balign 4
9:
  .rept MOST_TAPS - 1
  tap
  .endr
  add r0, r0, r2
  subs r3, r3, #1
  bne 3b
  ldm sp, {r0, r1, r3, r4, r5}
  stm r4, {r8-r11}
  add r4, r4, r5
  add r0, r0, #8
  str r4, [sp, #ACC]
  str r0, [sp]
  subs lr, lr, #1
  bne 2b
  ldr r5, [sp, #S]
  ldrd r0, r4, [sp, #LINE]
  ldrd r6, r7, [r5, #PITCH_OF_S] /* and line */
  ldr r3, [sp, #LEFT]
  add r0, r0, r6
  add r4, r4, r7
  strd r0, r4, [sp, #LINE]
  subs r3, r3, #1
  str r3, [sp, #LEFT]
  bne 1b
  add sp, sp, #FRAME
  pop {r4-r11, pc}
  .size mcg_depthwise_span, . - mcg_depthwise_span

  .section .text.mcg_depthwise_span_widen, "ax", %progbits
  .balign 4
  .global mcg_depthwise_span_widen
  .type mcg_depthwise_span_widen, %function
  .thumb_func
mcg_depthwise_span_widen:
  push {r4, r5, lr}
  lsrs r2, r2, #1
  bcc 1f
  ldr r5, [r0]
  add r0, r0, r1
  sxtb16 r4, r5
  sxtb16 r5, r5, ror #8
  stmia r3!, {r4, r5}
  cbz r2, 2f
1:
  ldr r5, [r0]
  ldr lr, [r0, r1]
  add r0, r0, r1, lsl #1
  sxtb16 r4, r5
  sxtb16 r5, r5, ror #8
  sxtb16 r12, lr
  sxtb16 lr, lr, ror #8
  stmia r3!, {r4, r5, r12, lr}
  subs r2, r2, #1
  bne 1b
2:
  mov r0, r3
  pop {r4, r5, pc}
  .size mcg_depthwise_span_widen, . - mcg_depthwise_span_widen

#endif
