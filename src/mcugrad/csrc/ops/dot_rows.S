/* Products of int8 rows with four int16 columns, and the widening of those columns: see dot.h.
 *
 * Each word of a row is loaded and widened once for four columns: 13 instructions for 16 products.
 */
#if defined(__ARM_FEATURE_SIMD32)

#define UNROLLED 8
#define GROUP_BYTES 52

/* The stack frame of mcg_dot_rows, its last arguments above it. */
#define HEAD 0     /* where a row begins */
#define ENTRY 4    /* where the groups begin, or all but the first */
#define LAST 8     /* end of out */
#define REST 12    /* from the end of a row to the next */
#define FRAME 16
#define COLUMNS (FRAME + 36)
#define ROUNDS (FRAME + 40) /* takes the place of out */
#define KEEP (FRAME + 44)

  .syntax unified
  .thumb

/* acc += column . row, or acc = that */
.macro add_up acc, column, row
  smlad \acc, \column, \row, \acc
.endm

.macro begin acc, column, row
  smuad \acc, \column, \row
.endm

/* acc += four elements of a row . four columns; the first product by `first` */
.macro group first=add_up
  ldr r12, [r1], #4
  ldmia.w r0!, {r4-r7}
  sxtb16 r3, r12
  sxtb16 r12, r12, ror #8
  \first r8, r4, r3
  \first r9, r6, r3
  smlad r8, r5, r12, r8
  smlad r9, r7, r12, r9
  ldmia.w r0!, {r4-r7}
  \first r10, r4, r3
  \first r11, r6, r3
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
  ldr r6, [sp, #KEEP]
  sub r3, r3, r2
  add r4, lr, r1, lsl #4
  strd r4, r3, [sp, #LAST]
  lsr r2, r2, #2
  adr r9, 4f
  cbnz r6, 5f
  sub r2, r2, #1
  adr r9, 2f
5:
  add r5, r2, #(UNROLLED - 1)
  rsb r2, r2, #0
  and r2, r2, #(UNROLLED - 1)
  lsrs r5, r5, #3
  itt eq                     /* the first group is all */
  moveq r5, #1
  moveq r2, #UNROLLED
  str r5, [sp, #ROUNDS]
  mov r6, #GROUP_BYTES
  adr r7, 3f
  mla r2, r2, r6, r7
  orr r2, r2, #1
  orr r9, r9, #1
  strd r9, r2, [sp, #HEAD]
  mov r1, r0
1:
  ldrd r0, r2, [sp, #COLUMNS]
  ldr pc, [sp, #HEAD]
  .balign 4
2:
  group begin
  ldr pc, [sp, #ENTRY]
  .balign 4
4:
  ldm lr, {r8-r11}
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

/* Rows w0 and w2 (or w1 and w3) of a group, from `at` on, as pairs: the elements of columns 0 ... 3 */
.macro pairs at, c0, c1, c2, c3
  ldr r12, [\at]
  ldr lr, [\at, r2, lsl #1]
  pkhbt \c1, r12, lr, lsl #16
  pkhtb \c3, lr, r12, asr #16
  sxtb16 \c0, \c1
  sxtb16 \c1, \c1, ror #8
  sxtb16 \c2, \c3
  sxtb16 \c3, \c3, ror #8
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
  pairs r0, r4, r6, r8, r10
  add lr, r0, r2
  pairs lr, r5, r7, r9, r11
  add r0, r0, r2, lsl #2
  stmia r3!, {r4-r11}
  subs r1, r1, #1
  bne 1b
  pop {r4-r11, pc}
  .size mcg_dot_widen, . - mcg_dot_widen

#endif
