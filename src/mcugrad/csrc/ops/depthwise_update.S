/* void mcg_depthwise_tap(const mcg_tap_t *t, uint32_t even, uint32_t odd, int32_t *grad): see depthwise_update.h.
 *
 *   r0 x   r1 h   r2, r3 bytes to the next of each   r4 even   r5 odd   r6-r9 sums   r10-r12, lr a position
 */
#if defined(__ARM_FEATURE_SIMD32)

#define UNROLLED 8
#define POSITION_BYTES 48

/* The stack frame. */
#define ENTRY 0  /* where a row begins */
#define ROUND 4  /* of UNROLLED positions in a row, and how many are left */
#define BACK 12  /* from the end of a row to the next, of x and h */
#define ROWS 20  /* left */
#define GRAD 24
#define FRAME 28

  .syntax unified
  .thumb

.macro position
  ldr.w r10, [r0]
  ldr.w r11, [r1]
  add.w r0, r0, r2
  add.w r1, r1, r3
  sxtab16 r12, r4, r10
  sxtab16 r10, r5, r10, ror #8
  sxtb16 lr, r11
  sxtb16 r11, r11, ror #8
  smlabb r6, r12, lr, r6
  smlatt r8, r12, lr, r8
  smlabb r7, r10, r11, r7
  smlatt r9, r10, r11, r9
.endm

  .section .text.mcg_depthwise_tap, "ax", %progbits
  .balign 4
  .global mcg_depthwise_tap
  .type mcg_depthwise_tap, %function
  .thumb_func
mcg_depthwise_tap:
  push {r4-r11, lr}
  sub sp, sp, #FRAME
  mov r12, r1
  mov lr, r2
  str r3, [sp, #GRAD]
  ldm r0, {r0, r1, r4-r9}    /* x, h, rows, columns, x_row, h_row, x_step, h_step */
  mov r2, r8
  mov r3, r9
  mls r6, r5, r2, r6
  mls r7, r5, r3, r7
  strd r6, r7, [sp, #BACK]
  str r4, [sp, #ROWS]
  add r6, r5, #(UNROLLED - 1)
  lsr r6, r6, #3
  rsb r5, r5, #0
  and r5, r5, #(UNROLLED - 1)
  mov r7, #POSITION_BYTES
  adr r8, 3f
  mla r5, r5, r7, r8
  orr r5, r5, #1
  strd r5, r6, [sp, #ENTRY]
  mov r4, r12
  mov r5, lr
  mov r6, #0
  mov r7, #0
  mov r8, #0
  mov r9, #0
1:
  ldr r10, [sp, #ROUND]
  str r10, [sp, #(ROUND + 4)]
  ldr pc, [sp, #ENTRY]
  .balign 4
3:
  .rept UNROLLED
  position
  .endr
  ldr r10, [sp, #(ROUND + 4)]
  subs r10, r10, #1
  str r10, [sp, #(ROUND + 4)]
  bne 3b
  ldrd r10, r11, [sp, #BACK]
  ldr r12, [sp, #ROWS]
  add r0, r0, r10
  add r1, r1, r11
  subs r12, r12, #1
  str r12, [sp, #ROWS]
  bne 1b
  ldr r0, [sp, #GRAD]
  stm r0, {r6-r9}
  add sp, sp, #FRAME
  pop {r4-r11, pc}
  .size mcg_depthwise_tap, . - mcg_depthwise_tap

#endif
