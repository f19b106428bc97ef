/* One SGD step of an int8 weight with 0, 4 or 8 residual bits, in place.
 *
 * W = (w << F) + residual - ((gradient + r) >> k), kept within +-(127 << F); w = RSH(W, F), residual = W - (w << F).
 */
#include "backward.h"
#include "fixed.h"

#define STEP_LIMIT (1 << 20) /* a larger step ends at +-(127 << F) from everywhere */

/* Signed 4-bit element i of `packed`, low nibble first. */
static int32_t load_nibble(const uint8_t *packed, int32_t i) {
  const int32_t v = packed[i >> 1] >> (4 * (i & 1)) & 15;
  return (v ^ 8) - 8;
}

static void store_nibble(uint8_t *packed, int32_t i, int32_t v) {
  const int32_t shift = 4 * (i & 1), kept = packed[i >> 1] & (0xF0 >> shift);
  packed[i >> 1] = (uint8_t)(kept | (v & 15) << shift);
}

/* Rounding term: half for F = 8, else a number in [0, 2^k) that belongs to element n. */
static inline uint32_t rounding(int32_t bits, int32_t k, uint32_t key, uint32_t n) {
  if (k <= 0 || k > 31) return 0;
  return bits == 8 ? 1u << (k - 1) : mcg_random_at(key, n) & ((1u << k) - 1u);
}

/* Moves element i of the weight, whose random index is n, by its gradient; returns the change of the int8 weight. */
static inline int32_t move(const mcg_weight_step_t *step, int32_t bits, int32_t i, int32_t grad, int32_t k,
                           uint32_t key, uint32_t n) {
  const int32_t u = mcg_between(mcg_shift_down(grad, k, rounding(bits, k, key, n)), -STEP_LIMIT, STEP_LIMIT);
  const int32_t old = step->weight[i], limit = 127 * (1 << bits);
  int32_t residual = 0;
  if (bits == 8) residual = ((const int8_t *)step->residual)[i];
  if (bits == 4) residual = load_nibble((const uint8_t *)step->residual, i);
  const int32_t moved = mcg_between(old * (1 << bits) + residual - u, -limit, limit);
  const int32_t new = mcg_rsh(moved, bits);
  step->weight[i] = (int8_t)new;
  if (bits == 8) ((int8_t *)step->residual)[i] = (int8_t)(moved - new * 256);
  if (bits == 4) store_nibble((uint8_t *)step->residual, i, moved - new * 16);
  return new - old;
}

/* k without base[o]; the learning rate's halvings count here. */
static int32_t common_shift(const mcg_weight_step_t *step) {
  return step->c->halvings - mcg_exponent(step->exponents, step->p->slot) - *step->sample_exponent -
         step->p->residual_bits;
}

static uint32_t random_key(const mcg_weight_step_t *step) {
  return mcg_random_key(step->c->seed, step->c->step, (uint32_t)step->p->tensor);
}

static void move_bias(int32_t *bias, int64_t by) {
  const int64_t moved = *bias - by;
  *bias = moved > MCG_BIAS_LIMIT ? MCG_BIAS_LIMIT : moved < -MCG_BIAS_LIMIT ? -MCG_BIAS_LIMIT : (int32_t)moved;
}

/* grad [taps][live] of output o: all its elements; `bits` is a constant in each call. */
static inline int64_t move_all(const mcg_weight_step_t *step, int32_t bits, int32_t o, const int32_t *grad,
                               const int16_t *mu) {
  const mcg_weight_params_t *p = step->p;
  const int32_t k = p->base[o] + common_shift(step), first = o * p->taps * p->live;
  const uint32_t key = random_key(step);
  int64_t shifted = 0;
  for (int32_t tap = 0, i = 0; tap < p->taps; ++tap) {
    const int32_t row = (o * p->taps + tap) * p->total;
    for (int32_t c = 0; c < p->live; ++c, ++i) {
      const int32_t channel = p->order != NULL ? p->order[c] : c;
      const int32_t dw = move(step, bits, first + i, grad[i], k, key, (uint32_t)(row + channel));
      if (mu != NULL) shifted += (int64_t)mu[channel] * dw;
    }
  }
  return shifted;
}

void mcg_weight_step(const mcg_weight_step_t *step, int32_t o, const int32_t *grad, const int16_t *mu) {
  int64_t shifted;
  switch (step->p->residual_bits) {
    case 8: shifted = move_all(step, 8, o, grad, mu); break;
    case 4: shifted = move_all(step, 4, o, grad, mu); break;
    default: shifted = move_all(step, 0, o, grad, mu); break;
  }
  if (mu != NULL) move_bias(&step->bias[o], shifted);
}

void mcg_depthwise_step(const mcg_weight_step_t *step, const int32_t *grad) {
  const mcg_weight_params_t *p = step->p;
  const int32_t shift = common_shift(step);
  const uint32_t key = random_key(step);
  for (int32_t c = 0; c < p->live; ++c) {
    int32_t change = 0;
    for (int32_t tap = 0; tap < p->taps; ++tap) {
      const int32_t i = tap * p->live + c, n = c * p->taps + tap;
      change += move(step, p->residual_bits, i, grad[i], p->base[c] + shift, key, (uint32_t)n);
    }
    if (step->mu != NULL) move_bias(&step->bias[c], (int64_t)step->mu[c] * change);
  }
}
