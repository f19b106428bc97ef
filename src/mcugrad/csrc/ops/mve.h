/* What the MVE kernels share.  Empty without it. */
#ifndef MCG_OPS_MVE_H
#define MCG_OPS_MVE_H

#include "kernels.h"
#include "port.h"

#if MCG_MVE

/* The compiler forgets how it came by a pointer: else clang keeps several sums of it and its steps instead of adding. */
#define MCG_STEPPED(pointer) __asm__("" : "+r"(pointer))

/* The predicate of the first `bytes` bytes, 0 ... 16, for use in loops that count something else.  VCTP would say the same,
 * but clang (22) takes a loop with such a predicate for one over those bytes. */
MCG_INLINE mve_pred16_t mcg_first_bytes(int32_t bytes) { return (mve_pred16_t)((1u << bytes) - 1u); }

/* Requantization of four sums, for shifts of 33 and more: MBQM(v) = RSH(high word of v * multiplier, shift - 32). */
typedef struct {
  int32x4_t bias, multiplier, shift; /* shift: 32 - that of MBQM */
} mcg_lanes_t;

/* RSH(high word of acc * multiplier, -shift); VRSHL rounds without a limit of its own, and what VMULH cuts off cannot
 * reach the rounding bit. */
MCG_INLINE int32x4_t mcg_mbqm_lanes(int32x4_t acc, int32x4_t multiplier, int32x4_t shift) {
  return vrshlq_s32(vmulhq_s32(acc, multiplier), shift);
}

/* The low byte of each word = clamp8(v). */
MCG_INLINE int32x4_t mcg_clamp8_lanes(int32x4_t v) {
  const int16x8_t half = vqmovnbq_s32(vreinterpretq_s16_s32(v), v);
  return vreinterpretq_s32_s8(vqmovnbq_s16(vreinterpretq_s8_s16(half), half));
}

/* The low byte of each word = clamp8(MBQM(acc + bias) + zero). */
MCG_INLINE int32x4_t mcg_requantize_lanes(int32x4_t acc, const mcg_lanes_t *l, int32_t zero) {
  return mcg_clamp8_lanes(vaddq_n_s32(mcg_mbqm_lanes(vaddq_s32(acc, l->bias), l->multiplier, l->shift), zero));
}

/* y at 8 offsets = clamp8(v + zero) of v in low (even lanes) and high (odd lanes). */
MCG_INLINE void mcg_store_pairs(int8_t *y, uint16x8_t offsets, int32x4_t low, int32x4_t high, int32_t zero) {
  const int16x8_t both = vqmovntq_s32(vqmovnbq_s32(vreinterpretq_s16_s32(low), low), high);
  const int16x8_t sum = vqaddq_n_s16(both, (int16_t)zero);
  vstrbq_scatter_offset_s16(y, offsets, vreinterpretq_s16_s8(vqmovnbq_s16(vreinterpretq_s8_s16(sum), sum)));
}

MCG_INLINE int32x4_t mcg_words(int32_t a, int32_t b, int32_t c, int32_t d) {
  int32x4_t v = vdupq_n_s32(a);
  v = vsetq_lane_s32(b, v, 1);
  v = vsetq_lane_s32(c, v, 2);
  return vsetq_lane_s32(d, v, 3);
}

/* to [n] = from [n]; returns the end. */
MCG_INLINE int8_t *mcg_copy_lanes(int8_t *to, const int8_t *from, int32_t n) {
  int8_t *const end = to + n;
  for (; n > 0; n -= 16, to += 16, from += 16) {
    const mve_pred16_t some = vctp8q((uint32_t)n);
    vstrbq_p_s8(to, vldrbq_z_s8(from, some), some);
  }
  return end;
}

/* to [n] = value; returns the end. */
MCG_INLINE int8_t *mcg_fill_lanes(int8_t *to, int32_t value, int32_t n) {
  int8_t *const end = to + n;
  const int8x16_t v = vdupq_n_s8((int8_t)value);
  for (; n > 0; n -= 16, to += 16) vstrbq_p_s8(to, v, vctp8q((uint32_t)n));
  return end;
}

/* The sum of n bytes. */
MCG_INLINE int32_t mcg_sum_lanes(const int8_t *at, int32_t n) {
  int32_t sum = 0;
  for (; n > 0; n -= 16, at += 16) {
    const mve_pred16_t some = vctp8q((uint32_t)n);
    sum = vaddvaq_p_s8(sum, vldrbq_z_s8(at, some), some);
  }
  return sum;
}

/* sum [4] += n > 0 bytes at x[0] and x[1] times those at w[0] and w[1]: products x0 w0, x0 w1, x1 w0, x1 w1.  The pointers
 * go on by whole vectors.  In assembly, so that they and the sums stay in registers from one call to the next. */
MCG_INLINE void mcg_multiply_2x2(const int8_t *x[2], const int8_t *w[2], int32_t n, int32_t sum[4]) {
  int8x16_t a, b, c;
  __asm__("dlstp.8 lr, %11\n"
          "1:\n\tvldrb.8 %q4, [%7], #16\n\tvldrb.8 %q5, [%9], #16\n\tvmladava.s8 %0, %q4, %q5\n\t"
          "vldrb.8 %q6, [%10], #16\n\tvmladava.s8 %1, %q4, %q6\n\tvldrb.8 %q4, [%8], #16\n\t"
          "vmladava.s8 %2, %q4, %q5\n\tvmladava.s8 %3, %q4, %q6\n\tletp lr, 1b"
          : "+Te"(sum[0]), "+Te"(sum[1]), "+Te"(sum[2]), "+Te"(sum[3]), "=&w"(a), "=&w"(b), "=&w"(c), "+r"(x[0]), "+r"(x[1]),
            "+r"(w[0]), "+r"(w[1])
          : "r"(n)
          : "lr", "memory");
}

/* The least of n bytes. */
MCG_INLINE int32_t mcg_least_lanes(const uint8_t *at, int32_t n) {
  uint32_t least = 255u;
  for (; n > 0; n -= 16, at += 16) {
    const mve_pred16_t some = vctp8q((uint32_t)n);
    least = vminvq_p_u8((uint8_t)least, vldrbq_z_u8(at, some), some);
  }
  return (int32_t)least;
}

#endif

#endif
