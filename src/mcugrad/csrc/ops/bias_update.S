/* void mcg_bias_sum(h, positions, channels, sum), int32_t mcg_bias_run(const mcg_bias_run_t *s): see bias_update.h. */
#if defined(__ARM_FEATURE_SIMD32)

#define UNROLLED 4
#define POSITION_BYTES 28

  .syntax unified
  .thumb

/* r4-r7: sums of channels 0 2, 1 3, 4 6, 5 7 */
.macro position
  ldr.w r8, [r0]
  ldr.w r9, [r0, #4]
  add.w r0, r0, r2
  sxtab16 r4, r4, r8
  sxtab16 r5, r5, r8, ror #8
  sxtab16 r6, r6, r9
  sxtab16 r7, r7, r9, ror #8
.endm

.macro store even, odd
  sxth r8, \even
  sxth r9, \odd
  asr r10, \even, #16
  asr r11, \odd, #16
  stmia r3!, {r8-r11}
.endm

  .section .text.mcg_bias_sum, "ax", %progbits
  .balign 4
  .global mcg_bias_sum
  .type mcg_bias_sum, %function
  .thumb_func
mcg_bias_sum:
  push {r3-r11, lr}           /* and room for an address */
  rsb r4, r1, #0
  and r4, r4, #(UNROLLED - 1)
  mov r5, #POSITION_BYTES
  adr r6, 3f + 1
  mla r8, r4, r5, r6
  mov r4, #0
  mov r5, #0
  mov r6, #0
  mov r7, #0
  str r8, [sp]
  ldr pc, [sp]
  .balign 4
3:
  .rept UNROLLED
  position
  .endr
  subs r1, r1, #UNROLLED
  bgt 3b
  store r4, r5
  store r6, r7
  pop {r3-r11, pc}
  .size mcg_bias_sum, . - mcg_bias_sum

/* r0 multiplier   r1 sum   r2 bias   r3 shift   r4 left   r5 first   r6 second   r7 most   r10 k */
  .section .text.mcg_bias_run, "ax", %progbits
  .balign 4
  .global mcg_bias_run
  .type mcg_bias_run, %function
  .thumb_func
mcg_bias_run:
  push {r4-r11, lr}
  ldm r0, {r0-r7}
1:
  ldr r8, [r0], #4
  ldrb r9, [r3], #1
  sub r10, r8, r5
  sub r8, r8, r6
  sub r9, r7, r9, lsl #1
  add r10, r9, r10, asr #31
  add r10, r10, r8, asr #31
  sub r8, r10, #1
  cmp r8, #30
  bhi 3f
  ldr r9, [r1], #4
  ldr r11, [r2]
  asrs r9, r9, r10
  adc r9, r9, #0             /* the last bit that was shifted out rounds */
  sub r11, r11, r9
  add r8, r11, #0x40000000   /* both were within 2^30 */
  cmp r8, #0x80000000
  bhi 4f
2:
  str r11, [r2], #4
  subs r4, r4, #1
  bne 1b
3:
  mov r0, r4
  pop {r4-r11, pc}
4:
  mov r8, #0x40000000
  cmp r11, #0
  it mi
  rsbmi r8, r8, #0
  mov r11, r8
  b 2b
  .size mcg_bias_run, . - mcg_bias_run

#endif
