/* void mcg_outer(const mcg_outer_t *s), void mcg_outer_widen(h, pairs, pitch, to), void mcg_outer_turn(const mcg_turn_t *s):
 * see weight_step.h.
 *
 *   r0 x   r1 h   r2, r3 x of two channels   r4, r5 h of two outputs   r6-r12, lr sums: channels 0, 1 of outputs 0, 1, 2, 3
 */
#if defined(__ARM_FEATURE_SIMD32)

#define UNROLLED 8
#define PAIR_BYTES 44
#define GRADS 192 /* bytes from one output to the next */

/* The stack frame. */
#define H 0      /* and bytes of x from the end of a pair of channels to the next */
#define GRAD 8   /* and its end */
#define END 16   /* of h */
#define START 20 /* where a pair of channels begins */
#define ENTRY 24 /* where its pairs begin, or all but the first */
#define FRAME 28

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
  ldm r0, {r3-r9}            /* x, h, grad, channels, pairs, next, keep */
  mov r0, r3
  mov r1, r4
  sub r8, r8, r7, lsl #3
  strd r4, r8, [sp, #H]
  add r6, r5, r6, lsl #2
  strd r5, r6, [sp, #GRAD]
  add r10, r4, r7, lsl #4
  rsb r7, r7, #0
  and r7, r7, #(UNROLLED - 1)
  mov r4, #PAIR_BYTES
  adr r5, 3f + 1
  mla r5, r7, r4, r5
  adr r11, 2f + 1
  cmp r9, #0
  bne 4f
  add r5, r5, #PAIR_BYTES
  adr r11, 1f + 1
4:
  strd r10, r11, [sp, #END] /* and start */
  str r5, [sp, #ENTRY]
  ldr pc, [sp, #START]
  .balign 4
1:
  first_pair
  ldr pc, [sp, #ENTRY]
  .balign 4
2:
  ldr r2, [sp, #GRAD]
  ldrd r6, r7, [r2]
  ldrd r8, r9, [r2, #GRADS]
  ldrd r10, r11, [r2, #(2 * GRADS)]
  ldrd r12, lr, [r2, #(3 * GRADS)]
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
  cmp r1, r2
  bne 3b
  ldrd r2, r3, [sp, #GRAD]   /* and its end */
  strd r8, r9, [r2, #GRADS]
  strd r10, r11, [r2, #(2 * GRADS)]
  strd r12, lr, [r2, #(3 * GRADS)]
  strd r6, r7, [r2], #8
  ldrd r1, r4, [sp, #H]      /* and what x skips */
  str r2, [sp, #GRAD]
  add r0, r0, r4
  cmp r2, r3
  beq 5f
  ldr pc, [sp, #START]
5:
  add sp, sp, #FRAME
  pop {r4-r11, pc}
  .size mcg_outer, . - mcg_outer

.macro widen
  ldr r4, [r0]
  ldr r5, [r0, r2]
  add r0, r0, r2, lsl #1
  pkhbt r6, r4, r5, lsl #16
  pkhtb r5, r5, r4, asr #16
  sxtb16 r4, r6
  sxtb16 r6, r6, ror #8
  sxtb16 r7, r5
  sxtb16 r8, r5, ror #8
  stmia r3!, {r4, r6-r8}
.endm

  .section .text.mcg_outer_widen, "ax", %progbits
  .balign 4
  .global mcg_outer_widen
  .type mcg_outer_widen, %function
  .thumb_func
mcg_outer_widen:
  push {r4-r8, lr}
  tst r1, #1
  bne 2f
1:
  widen
2:
  widen
  subs r1, r1, #2
  bgt 1b
  pop {r4-r8, pc}
  .size mcg_outer_widen, . - mcg_outer_widen

/* r0 x   r1 pairs   r2 pitch   r3, r4 where pairs of channels go   r5-r8 what is added */
  .section .text.mcg_outer_turn, "ax", %progbits
  .balign 4
  .global mcg_outer_turn
  .type mcg_outer_turn, %function
  .thumb_func
mcg_outer_turn:
  push {r4-r11, lr}
  ldm r0, {r0-r6}
  ldrd r7, r8, [r5]
  ssub16 r7, r6, r7
  ssub16 r8, r6, r8
  pkhbt r5, r7, r7, lsl #16
  pkhtb r6, r7, r7, asr #16
  pkhbt r7, r8, r8, lsl #16
  pkhtb r8, r8, r8, asr #16
1:
  ldr r9, [r0]
  ldr r10, [r0, r2]
  add r0, r0, r2, lsl #1
  pkhbt r11, r9, r10, lsl #16
  pkhtb r10, r10, r9, asr #16
  sxtab16 r9, r5, r11
  sxtab16 r11, r6, r11, ror #8
  strd r9, r11, [r3], #8
  sxtab16 r9, r7, r10
  sxtab16 r11, r8, r10, ror #8
  strd r9, r11, [r4], #8
  subs r1, r1, #1
  bne 1b
  pop {r4-r11, pc}
  .size mcg_outer_turn, . - mcg_outer_turn

#endif
