/* One SGD step of an int8 weight with 0, 4 or 8 residual bits, in place.
 *
 * W = (w << F) + residual - ((gradient + r) >> k), kept within +-(127 << F); w = RSH(W, F), residual = W - (w << F).
 */
#include "backward.h"

#define STEP_LIMIT (1 << 20) /* a larger step ends at +-(127 << F) from everywhere */

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

/* Rounding term: half for F = 8, else a number in [0, 2^k) that belongs to element n. */
static inline uint32_t rounding(int32_t bits, int32_t k, uint32_t key, uint32_t n) {
  if (k <= 0 || k > 31) return 0;
  return bits == 8 ? 1u << (k - 1) : mcg_random_at(key, n) & ((1u << k) - 1u);
}

/* Moves element i of the run, whose random index is n, by its gradient; returns the change of the int8 weight. */
MCG_INLINE int32_t move(const run_t *run, int32_t bits, int32_t i, int32_t grad, uint32_t n) {
  const int32_t step = mcg_shift_down(grad, run->k, rounding(bits, run->k, run->key, n));
  const int32_t u = mcg_between(step, -STEP_LIMIT, STEP_LIMIT), old = run->weight[i], limit = 127 * (1 << bits);
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

/* Elements 0 ... n - 1 of the run, random indices `row` + channel; returns sum mu * change. */
MCG_INLINE int64_t move_all(run_t run, int32_t bits, int32_t n, const int32_t *grad, int32_t row, int32_t channel,
                            const uint16_t *order, const int16_t *mu) {
  int64_t shifted = 0;
  for (int32_t i = 0; i < n; ++i) {
    const int32_t c = order != NULL ? order[i] : channel + i;
    const int32_t change = move(&run, bits, i, grad[i], (uint32_t)(row + c));
    if (mu != NULL && change != 0) shifted += (int64_t)mu[c] * change;
  }
  return shifted;
}

int64_t mcg_weight_step(const mcg_weight_step_t *step, int32_t o, int32_t tap, int32_t first, int32_t n,
                        const int32_t *grad, const int16_t *mu) {
  const mcg_weight_params_t *p = step->p;
  const int32_t row = o * p->taps + tap, at = row * p->live + first, full = row * p->total;
  const uint16_t *order = p->order != NULL ? p->order + first : NULL;
  const run_t run = {step->weight + at, step->residual, at, p->base[o] + common_shift(step), random_key(step)};
  if (p->residual_bits == 8) return move_all(run, 8, n, grad, full, first, order, mu);
  if (p->residual_bits == 4) return move_all(run, 4, n, grad, full, first, order, mu);
  return move_all(run, 0, n, grad, full, first, order, mu);
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
