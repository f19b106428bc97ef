/* The only fixed-point arithmetic in C; mirrors quant/affine.py bit for bit.
 *
 * `>>` of a negative number is arithmetic on every compiler we build with.  Nothing here overflows for any argument.
 */
#ifndef MCG_FIXED_H
#define MCG_FIXED_H

#include <stdint.h>

#include "port.h"

#define MCG_BIAS_LIMIT (1 << 30)
#define MCG_UNSEEN (-MCG_BIAS_LIMIT) /* bias, and logit, of an output that no sample has reached */

static inline int32_t mcg_between(int32_t v, int32_t low, int32_t high) {
  return v < low ? low : v > high ? high : v;
}

/* [-128, 127]: activations. */
static inline int8_t mcg_clamp8(int32_t v) { return (int8_t)mcg_between(v, -128, 127); }

/* [-127, 127]: gradients. */
static inline int8_t mcg_clampg(int32_t v) { return (int8_t)mcg_between(v, -127, 127); }

/* v * 2^n saturating to int32, n >= 0. */
static inline int32_t mcg_shift_up(int32_t v, int32_t n) {
  if (n > 31) return v > 0 ? INT32_MAX : v < 0 ? INT32_MIN : 0;
  if (v > INT32_MAX >> n) return INT32_MAX;
  if (v < INT32_MIN >> n) return INT32_MIN;
  return (int32_t)((uint32_t)v << n);
}

/* RSH: v / 2^k to nearest, halves up; 0 beyond k = 31, saturating left shift below k = 0. */
static inline int32_t mcg_rsh(int32_t v, int32_t k) {
  if (k > 31) return 0;
  if (k <= 0) return mcg_shift_up(v, -k);
  return (v >> k) + ((v >> (k - 1)) & 1);
}

/* (v + r) >> k with the limits of mcg_rsh; r < 2^k is the rounding term. */
static inline int32_t mcg_shift_down(int32_t v, int32_t k, uint32_t r) {
  if (k <= 0 || k > 31) return mcg_rsh(v, k);
  return (v >> k) + (int32_t)((((uint32_t)v & ((1u << k) - 1u)) + r) >> k);
}

/* MBQM for 33 <= sh <= 62: exact, the low word of the product cannot matter. */
static inline int32_t mcg_mbqm_high(int32_t v, int32_t m, int32_t sh) {
  return ((mcg_mulhi(v, m) >> (sh - 33)) + 1) >> 1;
}

/* MBQM for any 1 <= sh <= 62, saturating; out of line, because scales of 1/2 and more are rare. */
MCG_RARE int32_t mcg_mbqm_wide(int32_t v, int32_t m, int32_t sh) {
  const int64_t wide = ((int64_t)v * m + ((int64_t)1 << (sh - 1))) >> sh;
  return wide > MCG_BIAS_LIMIT ? MCG_BIAS_LIMIT : wide < -MCG_BIAS_LIMIT ? -MCG_BIAS_LIMIT : (int32_t)wide;
}

/* MBQM: (v * m + 2^(sh-1)) >> sh for 0 <= m, 1 <= sh <= 62, saturating to [-2^30, 2^30], so that adding a zero point
 * cannot overflow and every narrower clamp that follows is exact. */
static inline int32_t mcg_mbqm(int32_t v, int32_t m, int32_t sh) {
  return sh > 32 ? mcg_mbqm_high(v, m, sh) : mcg_mbqm_wide(v, m, sh);
}

/* clamp8(MBQM(acc) + zero) for 33 <= sh <= 62; the sum is halved last, so that SSAT shifts for nothing. */
static inline int8_t mcg_requantize_high(int32_t acc, int32_t m, int32_t sh, int32_t zero) {
  return mcg_clamp8(((mcg_mulhi(acc, m) >> (sh - 33)) + 2 * zero + 1) >> 1);
}

/* clamp8(MBQM(acc) + zero) */
static inline int8_t mcg_requantize(int32_t acc, int32_t m, int32_t sh, int32_t zero) {
  return sh > 32 ? mcg_requantize_high(acc, m, sh, zero) : mcg_clamp8(mcg_mbqm_wide(acc, m, sh) + zero);
}

/* Bits by which a small v (|v| < 2^(31 - bits)) may go up with the shift, so that MBQM takes the short way; 0: none. */
static inline int32_t mcg_headroom(int32_t sh, int32_t bits) { return sh < 33 && sh + bits >= 33 ? bits : 0; }

/* clampg(v), and counts in *clamped whether the clamp changed it. */
static inline int8_t mcg_clampg_counted(int32_t v, int32_t *clamped) {
  const int8_t g = mcg_clampg(v);
  *clamped += g != v;
  return g;
}

/* clampg(MBQM(acc)), and counts in *clamped whether the clamp changed it. */
static inline int8_t mcg_requantize_grad(int32_t acc, int32_t m, int32_t sh, int32_t *clamped) {
  return mcg_clampg_counted(mcg_mbqm(acc, m, sh), clamped);
}

/* What a whole tensor has in common: mcg_random(seed, step, tensor, n) = mcg_random_at(mcg_random_key(...), n). */
static inline uint32_t mcg_random_key(uint32_t seed, uint32_t step, uint32_t tensor) {
  return seed ^ step * 0x9E3779B1u ^ tensor * 0x85EBCA6Bu;
}

/* The element's share: that of n + m is the sum of theirs. */
static inline uint32_t mcg_random_number(uint32_t n) { return n * 0x9E3779B1u; }

static inline uint32_t mcg_random_at(uint32_t key, uint32_t n) {
  uint32_t v = mcg_random_number(n) + key;
  v ^= v >> 15;
  v *= 0x85EBCA6Bu;
  v ^= v >> 13;
  v *= 0xC2B2AE35u;
  return v ^ v >> 16;
}

/* 32 random bits of element n: a function of the element, never of the order of evaluation. */
static inline uint32_t mcg_random(uint32_t seed, uint32_t step, uint32_t tensor, uint32_t n) {
  return mcg_random_at(mcg_random_key(seed, step, tensor), n);
}

#endif
