/* Vectors of 16 int32 lanes: loads and stores, the fixed-point arithmetic of fixed.h lane by lane. */
#ifndef MCG_VECTOR_H
#define MCG_VECTOR_H

#include <stdint.h>

#include "port.h"

#define MCG_WIDTH 16

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
  const mcg_halves_t halves = {n < 8 ? mcg_load_half(at, n) : mcg_load8(at), n > 8 ? mcg_load_half(at + 8, n - 8) : 0u};
  return (mcg_bytes_t)halves;
}

MCG_INLINE void mcg_store_bytes(void *to, mcg_bytes_t v, int32_t n) {
  int8_t *at = (int8_t *)to;
  const mcg_halves_t halves = (mcg_halves_t)v;
  if (n == MCG_WIDTH) {
    __builtin_memcpy(at, &v, MCG_WIDTH);
  } else if (n < 8) {
    mcg_store_half(at, halves[0], n);
  } else {
    mcg_store8(at, halves[0]);
    mcg_store_half(at + 8, halves[1], n - 8);
  }
}

MCG_INLINE mcg_wide_t mcg_signed(mcg_bytes_t v) { return __builtin_convertvector(v, mcg_wide_t); }

MCG_INLINE mcg_wide_t mcg_unsigned(mcg_bytes_t v) {
  return (mcg_wide_t)__builtin_convertvector((mcg_ubytes_t)v, mcg_uwide_t);
}

/* a where the lanes of `which` are all ones, b where they are zero */
MCG_INLINE mcg_wide_t mcg_select(mcg_wide_t which, mcg_wide_t a, mcg_wide_t b) { return (a & which) | (b & ~which); }

MCG_INLINE mcg_wide_t mcg_clamp_wide(mcg_wide_t v, int32_t low, int32_t high) {
  v = mcg_select(v < low, mcg_splat(low), v);
  return mcg_select(v > high, mcg_splat(high), v);
}

MCG_INLINE mcg_bytes_t mcg_narrow(mcg_wide_t v) { return __builtin_convertvector(v, mcg_bytes_t); }

/* Multipliers of 16 channels, those of odd lanes once more in the lanes before, and their shifts less 33. */
typedef struct {
  mcg_wide_t multiplier, odd, shift;
} mcg_scale_t;

MCG_INLINE mcg_wide_t mcg_odd_lanes(mcg_wide_t v) {
  return __builtin_shufflevector(v, v, 1, 1, 3, 3, 5, 5, 7, 7, 9, 9, 11, 11, 13, 13, 15, 15);
}

/* The even lanes as int64. */
MCG_INLINE mcg_longs_t mcg_even_lanes(mcg_wide_t v) { return (mcg_longs_t)((mcg_ulongs_t)v << 32) >> 32; }

/* n int32 of at most 16; the other lanes are 0. */
MCG_INLINE mcg_wide_t mcg_load_some(const int32_t *at, int32_t n) {
  int32_t v[MCG_WIDTH] = {0}, i = 0;
  if (n == MCG_WIDTH) return mcg_load_wide(at);
  for (; i + 4 <= n; i += 4) __builtin_memcpy(v + i, at + i, 16);
  for (; i < n; ++i) v[i] = at[i];
  return mcg_load_wide(v);
}

MCG_INLINE void mcg_store_some(int32_t *at, mcg_wide_t lanes, int32_t n) {
  int32_t v[MCG_WIDTH], i = 0;
  mcg_store_wide(n == MCG_WIDTH ? at : v, lanes);
  if (n == MCG_WIDTH) return;
  for (; i + 4 <= n; i += 4) __builtin_memcpy(at + i, v + i, 16);
  for (; i < n; ++i) at[i] = v[i];
}

MCG_INLINE mcg_scale_t mcg_scale_by(mcg_wide_t multiplier, mcg_wide_t shift) {
  const mcg_scale_t s = {multiplier, mcg_odd_lanes(multiplier), shift - 33};
  return s;
}

/* Of n <= 16 channels. */
MCG_INLINE mcg_scale_t mcg_scale_of(const int32_t *multiplier, const uint8_t *shift, int32_t n) {
  return mcg_scale_by(mcg_load_some(multiplier, n), mcg_unsigned(mcg_load_bytes(shift, n)));
}

/* The high word of v * multiplier. */
MCG_INLINE mcg_wide_t mcg_mulhi_wide(mcg_wide_t v, const mcg_scale_t *s) {
  const mcg_wide_t even = (mcg_wide_t)(mcg_even_lanes(v) * mcg_even_lanes(s->multiplier));
  const mcg_wide_t odd = (mcg_wide_t)(mcg_even_lanes(mcg_odd_lanes(v)) * mcg_even_lanes(s->odd));
  return __builtin_shufflevector(even, odd, 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
}

/* MBQM(v) + zero for shifts of at least 33; offset is 2 * zero + 1. */
MCG_INLINE mcg_wide_t mcg_mbqm_lanes(mcg_wide_t v, const mcg_scale_t *s, int32_t offset) {
  return ((mcg_mulhi_wide(v, s) >> s->shift) + offset) >> 1;
}

/* Whether all n shifts are such that mcg_mbqm_lanes may be used. */
static inline int mcg_long_shifts(const uint8_t *shift, int32_t n, int32_t more) {
  int32_t least = 255, most = 0;
  for (int32_t i = 0; i < n; ++i) {
    least = shift[i] < least ? shift[i] : least;
    most = shift[i] > most ? shift[i] : most;
  }
  return least + more >= 33 && most + more <= 62;
}

#endif
