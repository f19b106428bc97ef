/* Products of int8 rows with four int16 columns, and the widening of those columns: see dot.h.
 *
 * Each word of a row is loaded and widened once for four columns: 13 instructions for 16 products.
 */
#if defined(__ARM_FEATURE_SIMD32)

#define UNROLLED 8
#define GROUP_BYTES 52

/* The stack frame of mcg_dot_rows, its last arguments above it. */
#define ENTRY 0    /* where the groups begin */
#define LAST 4     /* end of out */
#define REST 8     /* from the end of a row to the next */
#define ZERO 12    /* [4] */
#define FRAME 28
#define COLUMNS (FRAME + 36)
#define ROUNDS (FRAME + 40) /* takes the place of out */
#define KEEP (FRAME + 44)

  .syntax unified
  .thumb

/* acc += four elements of a row . four columns */
.macro group
  ldr r12, [r1], #4
  ldmia.w r0!, {r4-r7}
  sxtb16 r3, r12
  sxtb16 r12, r12, ror #8
  smlad r8, r4, r3, r8
  smlad r9, r6, r3, r9
  smlad r8, r5, r12, r8
  smlad r9, r7, r12, r9
  ldmia.w r0!, {r4-r7}
  smlad r10, r4, r3, r10
  smlad r11, r6, r3, r11
  smlad r10, r5, r12, r10
  smlad r11, r7, r12, r11
.endm

/* void mcg_dot_rows(rows, count, n, pitch, columns, out, keep)
 *   r0 columns   r1 row   r2 rounds of UNROLLED groups, the first may begin further down   r3, r12 widened row
 *   r4-r7 columns   r8-r11 accumulators   lr out
 */
  .section .text.mcg_dot_rows, "ax", %progbits
  .balign 4
  .global mcg_dot_rows
  .type mcg_dot_rows, %function
  .thumb_func
mcg_dot_rows:
  push {r4-r11, lr}
  sub sp, sp, #FRAME
  ldr lr, [sp, #ROUNDS]
  ldr r8, [sp, #KEEP]
  sub r3, r3, r2
  add r4, lr, r1, lsl #4
  strd r4, r3, [sp, #LAST]
  lsr r2, r2, #2
  add r5, r2, #(UNROLLED - 1)
  lsr r5, r5, #3
  str r5, [sp, #ROUNDS]
  rsb r2, r2, #0
  and r2, r2, #(UNROLLED - 1)
  mov r6, #GROUP_BYTES
  adr r7, 3f
  mla r2, r2, r6, r7
  orr r2, r2, #1
  str r2, [sp, #ENTRY]
  mov r4, #0
  mov r5, #0
  mov r6, #0
  mov r7, #0
  add r12, sp, #ZERO
  stm r12, {r4-r7}
  cmp r8, #0
  it ne
  movne r12, #0
  str r12, [sp, #KEEP] /* 0, or zeros */
  mov r1, r0
1:
  ldr r3, [sp, #KEEP]
  ldrd r0, r2, [sp, #COLUMNS]
  cmp r3, #0
  it eq
  moveq r3, lr
  ldm r3, {r8-r11}
  ldr pc, [sp, #ENTRY]
  .balign 4
3:
  group
  group
  group
  group
  group
  group
  group
  group
  subs r2, r2, #1
  bne 3b
  ldrd r3, r4, [sp, #LAST]
  stmia lr!, {r8-r11}
  add r1, r1, r4
  cmp lr, r3
  bne 1b
  add sp, sp, #FRAME
  pop {r4-r11, pc}
  .size mcg_dot_rows, . - mcg_dot_rows

/* Rows w0 and w2 (or w1 and w3) of a group, from r0 on, as pairs: the elements of columns 0 ... 3 */
.macro pairs c0, c1, c2, c3
  ldr r12, [r0]
  ldr lr, [r0, r2, lsl #1]
  add r0, r0, r2
  sxtb16 \c2, lr
  sxtb16 \c3, lr, ror #8
  sxtb16 lr, r12
  sxtb16 r12, r12, ror #8
  pkhbt \c0, lr, \c2, lsl #16
  pkhtb \c2, \c2, lr, asr #16
  pkhbt \c1, r12, \c3, lsl #16
  pkhtb \c3, \c3, r12, asr #16
.endm

/* void mcg_dot_widen(w, groups, pitch, to) */
  .section .text.mcg_dot_widen, "ax", %progbits
  .balign 4
  .global mcg_dot_widen
  .type mcg_dot_widen, %function
  .thumb_func
mcg_dot_widen:
  push {r4-r11, lr}
1:
  pairs r4, r6, r8, r10
  pairs r5, r7, r9, r11
  add r0, r0, r2, lsl #1
  stmia r3!, {r4-r11}
  subs r1, r1, #1
  bne 1b
  pop {r4-r11, pc}
  .size mcg_dot_widen, . - mcg_dot_widen

#endif
