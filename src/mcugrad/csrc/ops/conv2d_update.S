/* void mcg_outer(const mcg_outer_t *s), void mcg_outer_widen(h, pairs, pitch, to): see weight_step.h.
 *
 *   r0 x   r1 h   r2, r3 x of two channels   r4, r5 h of two outputs   r6-r12, lr sums: channels 0, 1 of outputs 0, 1, 2, 3
 */
#if defined(__ARM_FEATURE_SIMD32)

#define UNROLLED 8
#define PAIR_BYTES 44
#define GRADS 192 /* bytes from one output to the next */

/* The stack frame. */
#define X 0
#define H 4
#define GRAD 8
#define LEFT 12  /* channels */
#define END 16   /* of x */
#define NEXT 20
#define KEEP 24
#define ENTRY 28 /* where the pairs begin, or all but the first */
#define FRAME 32

  .syntax unified
  .thumb

/* sums += a pair of positions */
.macro pair
  ldrd r2, r3, [r0], #8
  ldrd r4, r5, [r1], #8
  smlad r6, r2, r4, r6
  smlad r7, r3, r4, r7
  smlad r8, r2, r5, r8
  smlad r9, r3, r5, r9
  ldrd r4, r5, [r1], #8
  smlad r10, r2, r4, r10
  smlad r11, r3, r4, r11
  smlad r12, r2, r5, r12
  smlad lr, r3, r5, lr
.endm

/* sums = a pair of positions */
.macro first_pair
  ldrd r2, r3, [r0], #8
  ldrd r4, r5, [r1], #8
  smuad r6, r2, r4
  smuad r7, r3, r4
  smuad r8, r2, r5
  smuad r9, r3, r5
  ldrd r4, r5, [r1], #8
  smuad r10, r2, r4
  smuad r11, r3, r4
  smuad r12, r2, r5
  smuad lr, r3, r5
.endm

  .section .text.mcg_outer, "ax", %progbits
  .balign 4
  .global mcg_outer
  .type mcg_outer, %function
  .thumb_func
mcg_outer:
  push {r4-r11, lr}
  sub sp, sp, #FRAME
  ldm r0, {r4-r10}           /* x, h, grad, channels, pairs, next, keep */
  add r11, r4, r8, lsl #3
  stm sp, {r4-r7, r11}
  strd r9, r10, [sp, #NEXT]
  rsb r8, r8, #0
  and r8, r8, #(UNROLLED - 1)
  mov r9, #PAIR_BYTES
  adr r10, 3f
  mla r8, r8, r9, r10
  ldr r3, [sp, #KEEP]
  cbnz r3, 4f
  add r8, r8, #PAIR_BYTES
4:
  orr r8, r8, #1
  str r8, [sp, #ENTRY]
  mov r2, r6
1:
  ldr r3, [sp, #KEEP]
  ldrd r0, r1, [sp, #X]
  cbz r3, 2f
  ldrd r6, r7, [r2]
  ldrd r8, r9, [r2, #GRADS]
  ldrd r10, r11, [r2, #(2 * GRADS)]
  ldrd r12, lr, [r2, #(3 * GRADS)]
  ldr pc, [sp, #ENTRY]
2:
  first_pair
  ldr pc, [sp, #ENTRY]
  .balign 4
3:
  pair
  pair
  pair
  pair
  pair
  pair
  pair
  pair
  ldr r2, [sp, #END]
  cmp r0, r2
  bne 3b
  ldr r2, [sp, #GRAD]
  strd r6, r7, [r2]
  strd r8, r9, [r2, #GRADS]
  strd r10, r11, [r2, #(2 * GRADS)]
  strd r12, lr, [r2, #(3 * GRADS)]
  add r2, r2, #8
  ldrd r3, r4, [sp, #LEFT]   /* and end */
  ldr r5, [sp, #NEXT]
  ldr r0, [sp, #X]
  add r4, r4, r5
  add r0, r0, r5
  str r2, [sp, #GRAD]
  str r0, [sp, #X]
  subs r3, r3, #2
  strd r3, r4, [sp, #LEFT]
  bne 1b
  add sp, sp, #FRAME
  pop {r4-r11, pc}
  .size mcg_outer, . - mcg_outer

.macro widen
  ldr r4, [r0]
  ldr r5, [r0, r2]
  add r0, r0, r2, lsl #1
  sxtb16 r6, r4
  sxtb16 r4, r4, ror #8
  sxtb16 r7, r5
  sxtb16 r5, r5, ror #8
  pkhbt r8, r6, r7, lsl #16
  pkhbt r9, r4, r5, lsl #16
  pkhtb r10, r7, r6, asr #16
  pkhtb r11, r5, r4, asr #16
  stmia r3!, {r8-r11}
.endm

  .section .text.mcg_outer_widen, "ax", %progbits
  .balign 4
  .global mcg_outer_widen
  .type mcg_outer_widen, %function
  .thumb_func
mcg_outer_widen:
  push {r4-r11, lr}
  tst r1, #1
  bne 2f
1:
  widen
2:
  widen
  subs r1, r1, #2
  bgt 1b
  pop {r4-r11, pc}
  .size mcg_outer_widen, . - mcg_outer_widen

#endif
