/* One step of the weights of 16 channels at a time; ops/weight_step.c says what it does. */
#include "ops/weight_step.h"

#include "ops/backward.h"
#include "wide.h"
#include "vector.h"

/* The signed nibbles of the first 8 bytes of v, the low one first. */
MCG_INLINE mcg_wide_t nibbles(mcg_bytes_t v) {
  const mcg_bytes_t twice = __builtin_shufflevector(v, v, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
  const mcg_wide_t up = {28, 24, 28, 24, 28, 24, 28, 24, 28, 24, 28, 24, 28, 24, 28, 24};
  return (mcg_wide_t)((mcg_uwide_t)mcg_signed(twice) << (mcg_uwide_t)up) >> 28;
}

/* The low nibbles of each pair of lanes as one of the first 8 bytes. */
MCG_INLINE mcg_bytes_t packed(mcg_wide_t v) {
  const mcg_wide_t next = mcg_odd_lanes(v);
  const mcg_bytes_t pairs = mcg_narrow((v & 15) | (mcg_wide_t)((mcg_uwide_t)next << 4));
  return __builtin_shufflevector(pairs, pairs, 0, 2, 4, 6, 8, 10, 12, 14, 0, 0, 0, 0, 0, 0, 0, 0);
}

/* mcg_random_at */
MCG_INLINE mcg_uwide_t random_lanes(mcg_uwide_t number, uint32_t key) {
  mcg_uwide_t v = number * 0x9E3779B1u + key;
  v ^= v >> 15;
  v *= 0x85EBCA6Bu;
  v ^= v >> 13;
  v *= 0xC2B2AE35u;
  return v ^ v >> 16;
}

/* The step (gradient + r) >> k for 0 < k, within 21 bits; number: the elements of the random numbers. */
MCG_INLINE mcg_wide_t steps(mcg_wide_t grad, mcg_wide_t k, int32_t bits, uint32_t key, mcg_uwide_t number) {
  const mcg_wide_t far = k > 31, by = mcg_select(far, mcg_splat(31), k);
  const mcg_uwide_t below = ((mcg_uwide_t)mcg_splat(1) << (mcg_uwide_t)by) - 1u;
  mcg_wide_t step = grad >> by;
  if (bits == 8) {
    step += (grad >> (by - 1)) & 1;
  } else {
    const mcg_uwide_t low = ((mcg_uwide_t)grad & below) + (random_lanes(number, key) & below);
    step += (mcg_wide_t)(low >> (mcg_uwide_t)by);
  }
  return mcg_clamp_wide(step & ~far, -(1 << 20), (1 << 20) - 1);
}

/* n weights and their residuals; bits is a constant of each call.  Returns their changes. */
MCG_INLINE mcg_wide_t move(int8_t *weight, int8_t *residual, int32_t bits, int32_t n, mcg_wide_t step) {
  const mcg_wide_t old = mcg_signed(mcg_load_bytes(weight, n));
  mcg_wide_t moved = old * (1 << bits) - step;
  if (bits == 8) moved += mcg_signed(mcg_load_bytes(residual, n));
  if (bits == 4) moved += nibbles(mcg_load_bytes(residual, n >> 1));
  moved = mcg_clamp_wide(moved, -127 * (1 << bits), 127 * (1 << bits));
  const mcg_wide_t now = bits > 0 ? (moved + (1 << bits >> 1)) >> bits : moved;
  mcg_store_bytes(weight, mcg_narrow(now), n);
  if (bits == 8) mcg_store_bytes(residual, mcg_narrow(moved - now * 256), n);
  if (bits == 4) mcg_store_bytes(residual, packed(moved - now * 16), n >> 1);
  return now - old;
}

/* Any number of residual bits; `at` counts the elements of the residual, of which nibbles begin and end in whole bytes. */
MCG_INLINE mcg_wide_t move_any(const mcg_weight_step_t *s, int8_t *weight, int32_t at, int32_t n, mcg_wide_t grad,
                               mcg_wide_t k, uint32_t key, mcg_uwide_t number) {
  int8_t *residual = (int8_t *)s->residual;
  switch (s->p->residual_bits) {
    case 8: return move(weight, residual + at, 8, n, steps(grad, k, 8, key, number));
    case 4: return move(weight, residual + (at >> 1), 4, n, steps(grad, k, 4, key, number));
    default: return move(weight, residual, 0, n, steps(grad, k, 0, key, number));
  }
}

static mcg_uwide_t numbers(uint32_t first) {
  const mcg_uwide_t lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return lane + first;
}

static mcg_uwide_t ordered(const uint16_t *order, int32_t n, uint32_t row) {
  typedef uint16_t halves_t __attribute__((vector_size(32)));
  const int32_t low = mcg_min(n, 8);
  const mcg_bytes_t half[2] = {mcg_load_bytes(order, 2 * low), mcg_load_bytes(order + low, 2 * (n - low))};
  halves_t v;
  __builtin_memcpy(&v, half, sizeof v);
  return __builtin_convertvector(v, mcg_uwide_t) + row;
}

static int splits_bytes(const mcg_weight_step_t *s, int32_t at, int32_t n) {
  return s->p->residual_bits == 4 && (at | n) % 2 != 0;
}

int32_t mcg_weight_run_wide(const mcg_weight_step_t *s, int32_t at, int32_t n, int32_t k, uint32_t key, uint32_t row,
                            const uint16_t *order, int32_t *grad) {
  if (k <= 0 || splits_bytes(s, at, n)) return 0;
  for (int32_t i = 0; i < n; i += MCG_WIDTH) {
    const int32_t some = mcg_min(MCG_WIDTH, n - i);
    const mcg_uwide_t number = order != NULL ? ordered(order + i, some, row) : numbers(row + (uint32_t)i);
    const mcg_wide_t g = mcg_load_some(grad + i, some);
    mcg_store_some(grad + i, move_any(s, s->weight + at + i, at + i, some, g, mcg_splat(k), key, number), some);
  }
  return 1;
}

int32_t mcg_depthwise_step_wide(const mcg_weight_step_t *s, int32_t first, int32_t n, const int32_t *grad, int32_t shift,
                                uint32_t key) {
  const mcg_weight_params_t *p = s->p;
  if (n > MCG_WIDTH || splits_bytes(s, first, n) || splits_bytes(s, p->live, 0)) return 0;
  mcg_wide_t k = {0};
  for (int32_t i = 0; i < n; ++i) {
    k[i] = mcg_base(p->rate, first + i) + shift;
    if (k[i] <= 0) return 0;
  }
  mcg_wide_t change = {0};
  mcg_uwide_t number = numbers((uint32_t)first) * (uint32_t)p->taps;
  for (int32_t tap = 0; tap < p->taps; ++tap, grad += n, number += 1u) {
    const int32_t at = tap * p->live + first;
    change += move_any(s, s->weight + at, at, n, mcg_load_some(grad, n), k, key, number);
  }
  for (int32_t i = 0; s->mu != NULL && i < n; ++i) mcg_centre(s, first + i, (int64_t)s->mu[first + i] * change[i]);
  return 1;
}
