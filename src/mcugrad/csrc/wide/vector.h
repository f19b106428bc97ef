/* Vectors of 16 int32 lanes: loads and stores, the fixed-point arithmetic of fixed.h lane by lane. */
#ifndef MCG_VECTOR_H
#define MCG_VECTOR_H

#include <stdint.h>

#include "machine.h"

#define MCG_WIDTH 16
#define MCG_HALF 8

typedef int64_t mcg_longs_t __attribute__((vector_size(64)));
typedef uint64_t mcg_ulongs_t __attribute__((vector_size(64)));
typedef uint8_t mcg_ubytes_t __attribute__((vector_size(16)));

MCG_INLINE mcg_wide_t mcg_splat(int32_t v) { return v - (mcg_wide_t){0}; }

MCG_INLINE mcg_wide_t mcg_load_wide(const void *at) {
  mcg_wide_t v;
  __builtin_memcpy(&v, at, sizeof v);
  return v;
}

MCG_INLINE void mcg_store_wide(void *at, mcg_wide_t v) { __builtin_memcpy(at, &v, sizeof v); }

typedef uint64_t mcg_halves_t __attribute__((vector_size(16)));

MCG_INLINE uint64_t mcg_load8(const int8_t *at) {
  uint64_t v;
  __builtin_memcpy(&v, at, sizeof v);
  return v;
}

MCG_INLINE void mcg_store8(int8_t *at, uint64_t v) { __builtin_memcpy(at, &v, sizeof v); }

/* n <= 8 bytes, the others 0: two overlapping words where there are so many. */
MCG_INLINE uint64_t mcg_load_half(const int8_t *at, int32_t n) {
  uint64_t v = 0u;
  if (n == 8) return mcg_load8(at);
  if (n >= 4) return mcg_load4(at) | (uint64_t)mcg_load4(at + n - 4) << (8 * (n - 4));
  for (int32_t i = 0; i < n; ++i) v |= (uint64_t)(uint8_t)at[i] << (8 * i);
  return v;
}

MCG_INLINE void mcg_store_half(int8_t *at, uint64_t v, int32_t n) {
  if (n == 8) {
    mcg_store8(at, v);
  } else if (n >= 4) {
    mcg_store4(at, (uint32_t)v);
    mcg_store4(at + n - 4, (uint32_t)(v >> (8 * (n - 4))));
  } else {
    for (int32_t i = 0; i < n; ++i) at[i] = (int8_t)(v >> (8 * i));
  }
}

/* The first n <= 16 bytes at an address, the others 0. */
MCG_INLINE mcg_bytes_t mcg_load_bytes(const void *from, int32_t n) {
  const int8_t *at = (const int8_t *)from;
  mcg_bytes_t v;
  if (n == MCG_WIDTH) {
    __builtin_memcpy(&v, at, MCG_WIDTH);
    return v;
  }
#if MCG_MASKS
  return mcg_load_first_bytes(from, n);
#else
  const mcg_halves_t halves = {n < 8 ? mcg_load_half(at, n) : mcg_load8(at), n > 8 ? mcg_load_half(at + 8, n - 8) : 0u};
  return (mcg_bytes_t)halves;
#endif
}

MCG_INLINE void mcg_store_bytes(void *to, mcg_bytes_t v, int32_t n) {
  if (n == MCG_WIDTH) {
    __builtin_memcpy(to, &v, MCG_WIDTH);
    return;
  }
  int8_t *at = (int8_t *)to;
  const mcg_halves_t halves = (mcg_halves_t)v;
  if (n == 8) { /* a store with a mask would hold up loads from what follows */
    mcg_store8(at, halves[0]);
    return;
  }
#if MCG_MASKS
  mcg_store_first_bytes(to, v, n);
#else
  if (n < 8) {
    mcg_store_half(at, halves[0], n);
  } else {
    mcg_store8(at, halves[0]);
    mcg_store_half(at + 8, halves[1], n - 8);
  }
#endif
}

MCG_INLINE mcg_wide_t mcg_signed(mcg_bytes_t v) { return __builtin_convertvector(v, mcg_wide_t); }

MCG_INLINE mcg_wide_t mcg_unsigned(mcg_bytes_t v) {
  return (mcg_wide_t)__builtin_convertvector((mcg_ubytes_t)v, mcg_uwide_t);
}

/* a where the lanes of `which` are all ones, b where they are zero */
MCG_INLINE mcg_wide_t mcg_select(mcg_wide_t which, mcg_wide_t a, mcg_wide_t b) { return (a & which) | (b & ~which); }

/* Whether some lane is all ones; the others are 0. */
MCG_INLINE int mcg_any(mcg_wide_t which) {
  int32_t any = 0;
  for (int i = 0; i < MCG_WIDTH; ++i) any |= which[i];
  return any != 0;
}

MCG_INLINE mcg_wide_t mcg_clamp_wide(mcg_wide_t v, int32_t low, int32_t high) {
  v = mcg_select(v < low, mcg_splat(low), v);
  return mcg_select(v > high, mcg_splat(high), v);
}

MCG_INLINE mcg_bytes_t mcg_narrow(mcg_wide_t v) { return __builtin_convertvector(v, mcg_bytes_t); }

MCG_INLINE mcg_wide_t mcg_odd_lanes(mcg_wide_t v) {
  return __builtin_shufflevector(v, v, 1, 1, 3, 3, 5, 5, 7, 7, 9, 9, 11, 11, 13, 13, 15, 15);
}

/* The even lanes as int64. */
MCG_INLINE mcg_longs_t mcg_even_lanes(mcg_wide_t v) { return (mcg_longs_t)((mcg_ulongs_t)v << 32) >> 32; }

typedef int32_t mcg_eight_t __attribute__((vector_size(32)));

/* The other lanes are 0. */
MCG_INLINE mcg_wide_t mcg_load_eight(const void *at) {
  const mcg_eight_t zero = {0};
  mcg_eight_t v;
  __builtin_memcpy(&v, at, sizeof v);
  return __builtin_shufflevector(v, zero, 0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8, 8, 8, 8, 8);
}

/* The first 8 lanes twice. */
MCG_INLINE mcg_wide_t mcg_twice(mcg_wide_t v) {
  return __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7);
}

MCG_INLINE mcg_bytes_t mcg_twice_bytes(mcg_bytes_t v) {
  return __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7);
}

/* The last 8 lanes twice. */
MCG_INLINE mcg_wide_t mcg_second(mcg_wide_t v) {
  return __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15);
}

/* 8 lanes of each. */
MCG_INLINE mcg_wide_t mcg_halves(int32_t low, int32_t high) {
  return __builtin_shufflevector(mcg_splat(low), mcg_splat(high), 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);
}

/* n int32 of at most 16; the other lanes are 0. */
MCG_INLINE mcg_wide_t mcg_load_some(const int32_t *at, int32_t n) {
  if (n == MCG_WIDTH) return mcg_load_wide(at);
  if (n == MCG_HALF) return mcg_load_eight(at);
#if MCG_MASKS
  return mcg_load_first(at, n);
#else
  int32_t v[MCG_WIDTH] = {0}, i = 0;
  for (; i + 4 <= n; i += 4) __builtin_memcpy(v + i, at + i, 16);
  for (; i < n; ++i) v[i] = at[i];
  return mcg_load_wide(v);
#endif
}

MCG_INLINE void mcg_store_some(int32_t *at, mcg_wide_t lanes, int32_t n) {
  if (n == MCG_WIDTH) {
    mcg_store_wide(at, lanes);
    return;
  }
  if (n == MCG_HALF) {
    __builtin_memcpy(at, &lanes, 4 * MCG_HALF);
    return;
  }
#if MCG_MASKS
  mcg_store_first(at, lanes, n);
#else
  int32_t v[MCG_WIDTH], i = 0;
  mcg_store_wide(v, lanes);
  for (; i + 4 <= n; i += 4) __builtin_memcpy(at + i, v + i, 16);
  for (; i < n; ++i) at[i] = v[i];
#endif
}

/* Lanes 0, 2, 1 and 3 of each four: products of even and of odd lanes come in that order for the least.  Its own inverse. */
MCG_INLINE mcg_wide_t mcg_crossed(mcg_wide_t v) {
  return __builtin_shufflevector(v, v, 0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15);
}

/* Crossed: the high word of a * b; odd: the odd lanes of b once more in the lanes before. */
MCG_INLINE mcg_wide_t mcg_mulhi_crossed(mcg_wide_t a, mcg_wide_t b, mcg_wide_t odd) {
  const mcg_wide_t even = (mcg_wide_t)(mcg_even_lanes(a) * mcg_even_lanes(b));
  const mcg_wide_t other = (mcg_wide_t)(mcg_even_lanes(mcg_odd_lanes(a)) * mcg_even_lanes(odd));
  return __builtin_shufflevector(even, other, 1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29, 31);
}

/* Multipliers of 16 channels, those of odd lanes once more in the lanes before; crossed: what is added to the high word of
 * a product, and the shift that follows. */
typedef struct {
  mcg_wide_t multiplier, odd, round, shift;
} mcg_scale_t;

/* For MBQM(v) with shifts of at least 33.  Lesser ones are of lanes that do not matter, and give 0 for 0. */
MCG_INLINE mcg_scale_t mcg_scale_by(mcg_wide_t multiplier, mcg_wide_t shift) {
  const mcg_wide_t by = mcg_crossed(mcg_select(shift < 33, mcg_splat(0), shift - 33));
  const mcg_scale_t s = {multiplier, mcg_odd_lanes(multiplier), mcg_splat(1) << by, by + 1};
  return s;
}

/* Crossed: MBQM(v).  The high word of the product is below 2^30 and what is added as well, so nothing overflows. */
MCG_INLINE mcg_wide_t mcg_mbqm_crossed(mcg_wide_t v, const mcg_scale_t *s) {
  return (mcg_mulhi_crossed(v, s->multiplier, s->odd) + s->round) >> s->shift;
}

/* The scale of an int8 output of 16 channels: what is added to the high word of a product, the shift that follows, and the
 * one that mcg_narrow_four does; `far`: some shift is too long for it alone. */
typedef struct {
  mcg_wide_t multiplier, odd, round, shift, factor;
  int far;
} mcg_output_scale_t;

/* Shifts of at least 33 and at most MCG_LONGEST; others are of lanes that do not matter. */
#define MCG_LONGEST 54
MCG_INLINE mcg_output_scale_t mcg_output_scale_by(mcg_wide_t multiplier, mcg_wide_t shift, int32_t zero) {
  const mcg_wide_t all = mcg_crossed(mcg_select(shift < 33, mcg_splat(1), shift - 32));
  const mcg_wide_t far = all > MCG_NARROW_BITS, narrow = mcg_select(far, mcg_splat(MCG_NARROW_BITS), all);
  const mcg_output_scale_t s = {multiplier, mcg_odd_lanes(multiplier), mcg_splat(2 * (zero + MCG_NARROW_LESS) + 1) << (all - 1),
                                all - narrow, mcg_splat(1 << 16) >> narrow, MCG_NARROW_BITS > 0 && mcg_any(far)};
  return s;
}

/* Of n <= 16 channels. */
MCG_INLINE mcg_output_scale_t mcg_output_scale_of(const int32_t *multiplier, const uint8_t *shift, int32_t n, int32_t zero) {
  return mcg_output_scale_by(mcg_load_some(multiplier, n), mcg_unsigned(mcg_load_bytes(shift, n)), zero);
}

/* far is a constant of each call. */
MCG_INLINE mcg_four_t mcg_requantize_four_as(const mcg_wide_t v[4], const mcg_output_scale_t *even,
                                             const mcg_output_scale_t *odd, mcg_wide_t factor, int far) {
  mcg_wide_t q[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const mcg_output_scale_t *const s = i % 2 == 0 ? even : odd;
    q[i] = mcg_mulhi_crossed(v[i], s->multiplier, s->odd) + s->round;
    if (far) q[i] >>= s->shift;
  }
  return mcg_narrow_four(q, factor);
}

/* clamp8(MBQM(v) + zero) of four vectors, `even` for v[0] and v[2]; factor = mcg_pair_words of theirs. */
MCG_INLINE mcg_four_t mcg_requantize_four(const mcg_wide_t v[4], const mcg_output_scale_t *even, const mcg_output_scale_t *odd,
                                          mcg_wide_t factor) {
  if (MCG_NARROW_BITS == 0 || (even->far | odd->far)) return mcg_requantize_four_as(v, even, odd, factor, 1);
  return mcg_requantize_four_as(v, even, odd, factor, 0);
}

/* Bytes 32 * i ... 32 * i + 31. */
MCG_INLINE mcg_eight_t mcg_half_bytes(mcg_four_t v, int i) {
  const union { mcg_four_t all; mcg_eight_t part[2]; } two = {v};
  return two.part[i];
}

/* Bytes 16 * i ... 16 * i + 15. */
MCG_INLINE mcg_bytes_t mcg_quarter_bytes(mcg_four_t v, int i) {
  const union { mcg_four_t all; mcg_bytes_t part[4]; } four = {v};
  return four.part[i];
}

/* Whether all n shifts are such that mcg_requantize_four may be used. */
static inline int mcg_long_shifts(const uint8_t *shift, int32_t n) {
  int32_t least = 255, most = 0;
  for (int32_t i = 0; i < n; ++i) {
    least = shift[i] < least ? shift[i] : least;
    most = shift[i] > most ? shift[i] : most;
  }
  return least >= 33 && most <= MCG_LONGEST;
}

#endif
