/* One SGD step of an int8 weight with 0, 4 or 8 residual bits, in place.
 *
 * W = (w << F) + residual - ((gradient + r) >> k), kept within +-(127 << F); w = RSH(W, F), residual = W - (w << F).
 */
#include "backward.h"

/* Elements of a weight that share their shift. */
typedef struct {
  int8_t *weight; /* the first element */
  void *residual; /* of the whole weight */
  int32_t at;     /* index of the first element in the residual */
  int32_t k;      /* the gradient's shift */
  uint32_t key;   /* of the random numbers */
} run_t;

/* Signed 4-bit element i of `packed`, low nibble first. */
static inline int32_t load_nibble(const uint8_t *packed, int32_t i) {
  const int32_t v = packed[i >> 1] >> (4 * (i & 1)) & 15;
  return (v ^ 8) - 8;
}

static inline void store_nibble(uint8_t *packed, int32_t i, int32_t v) {
  const int32_t shift = 4 * (i & 1), kept = packed[i >> 1] & (0xF0 >> shift);
  packed[i >> 1] = (uint8_t)(kept | (v & 15) << shift);
}

/* The step (gradient + r) >> k of element n, within 21 bits, from where every weight ends at its limit.  r rounds to
 * nearest for F = 8, else it is a number in [0, 2^k) that belongs to n. */
MCG_INLINE int32_t step_of(const run_t *run, int32_t bits, int32_t grad, uint32_t n) {
  const int32_t k = run->k;
  int32_t step;
  if (k <= 0 || k > 31) {
    step = mcg_rsh(grad, k);
  } else if (bits == 8) {
    step = (grad >> k) + (grad >> (k - 1) & 1);
  } else {
    step = mcg_shift_down(grad, k, mcg_random_at(run->key, n) & ((1u << k) - 1u));
  }
  return mcg_between(step, -(1 << 20), (1 << 20) - 1);
}

/* Moves element i of the run by its gradient; returns the change of the int8 weight. */
MCG_INLINE int32_t move(const run_t *run, int32_t bits, int32_t i, int32_t grad, uint32_t n) {
  const int32_t u = step_of(run, bits, grad, n), old = run->weight[i], limit = 127 * (1 << bits);
  int32_t residual = 0;
  if (bits == 8) residual = ((const int8_t *)run->residual)[run->at + i];
  if (bits == 4) residual = load_nibble((const uint8_t *)run->residual, run->at + i);
  const int32_t moved = mcg_between(old * (1 << bits) + residual - u, -limit, limit), now = mcg_rsh(moved, bits);
  run->weight[i] = (int8_t)now;
  if (bits == 8) ((int8_t *)run->residual)[run->at + i] = (int8_t)(moved - now * 256);
  if (bits == 4) store_nibble((uint8_t *)run->residual, run->at + i, moved - now * 16);
  return now - old;
}

/* k without base[o]; the learning rate's halvings count here. */
static int32_t common_shift(const mcg_weight_step_t *step) {
  return step->c->halvings - mcg_exponent(step->exponents, step->p->slot) - *step->sample_exponent -
         step->p->residual_bits;
}

static uint32_t random_key(const mcg_weight_step_t *step) {
  return mcg_random_key(step->c->seed, step->c->step, (uint32_t)step->p->tensor);
}

/* Moves elements 0 ... n - 1 of the run and leaves their changes in grad [n]; random indices are row + channel. */
MCG_INLINE void move_all(run_t run, int32_t bits, int32_t n, int32_t *grad, uint32_t row, const uint16_t *order) {
  if (bits == 8) { /* no random numbers */
    for (int32_t i = 0; i < n; ++i) grad[i] = move(&run, 8, i, grad[i], 0);
  } else if (order != NULL) {
    for (int32_t i = 0; i < n; ++i) grad[i] = move(&run, bits, i, grad[i], row + order[i]);
  } else {
    for (int32_t i = 0; i < n; ++i) grad[i] = move(&run, bits, i, grad[i], row + (uint32_t)i);
  }
}

/* sum of the changes [n], each times its channel's mean */
static int64_t weigh(const int16_t *mu, const uint16_t *order, int32_t n, const int32_t *change) {
  int64_t sum = 0;
  for (int32_t i = 0; i < n; ++i) sum += (int64_t)(order != NULL ? mu[order[i]] : mu[i]) * change[i];
  return sum;
}

int64_t mcg_weight_step(const mcg_weight_step_t *step, int32_t o, int32_t tap, int32_t first, int32_t n, int32_t *grad,
                        const int16_t *mu) {
  const mcg_weight_params_t *p = step->p;
  const int32_t row = o * p->taps + tap, at = row * p->live + first;
  const uint16_t *order = p->order != NULL ? p->order + first : NULL;
  const uint32_t full = (uint32_t)(row * p->total + (order != NULL ? 0 : first));
  const run_t run = {step->weight + at, step->residual, at, p->base[o] + common_shift(step), random_key(step)};
  switch (p->residual_bits) {
    case 8: move_all(run, 8, n, grad, full, order); break;
    case 4: move_all(run, 4, n, grad, full, order); break;
    default: move_all(run, 0, n, grad, full, order); break;
  }
  if (mu == NULL) return 0;
  return weigh(order != NULL ? mu : mu + first, order, n, grad);
}

void mcg_centre(const mcg_weight_step_t *step, int32_t o, int64_t by) {
  const int64_t moved = step->bias[o] - by;
  step->bias[o] = moved > MCG_BIAS_LIMIT    ? MCG_BIAS_LIMIT
                  : moved < -MCG_BIAS_LIMIT ? -MCG_BIAS_LIMIT
                                            : (int32_t)moved;
}

void mcg_depthwise_step(const mcg_weight_step_t *step, int32_t first, int32_t n, const int32_t *grad) {
  const mcg_weight_params_t *p = step->p;
  run_t run = {step->weight, step->residual, 0, 0, random_key(step)};
  const int32_t shift = common_shift(step);
  for (int32_t c = first; c < first + n; ++c) {
    int32_t change = 0;
    run.k = p->base[c] + shift;
    for (int32_t tap = 0; tap < p->taps; ++tap) {
      const uint32_t number = (uint32_t)(c * p->taps + tap);
      change += move(&run, p->residual_bits, tap * p->live + c, grad[tap * n + c - first], number);
    }
    if (step->mu != NULL) mcg_centre(step, c, (int64_t)step->mu[c] * change);
  }
}
