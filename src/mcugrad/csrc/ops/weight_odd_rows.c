/* The step of weights of four residual bits where each output has an odd number: a quad of them may belong to two outputs. */
#include "weight_step.h"

#include "backward.h"

/* by [MCG_FOURS] += sign times the sum mu * w of each row of n weights */
static MCG_APART void weigh_rows(const int16_t *mu, const int8_t *w, int32_t n, int32_t sign, int64_t *by) {
  for (int32_t i = 0; i < MCG_FOURS; ++i, w += n) {
    int32_t sum = 0;
    MCG_ROLLED for (int32_t j = 0; j < n; ++j) sum += mu[j] * w[j];
    by[i] += sign * sum;
  }
}

int mcg_weight_odd_rows(const mcg_weight_step_t *step, int32_t o, const mcg_weight_rows_t *rows, const int16_t *mu) {
  const mcg_weight_params_t *p = step->p;
  const int32_t n = p->live, at = o * n;
  mcg_columns_t s = {{0u}, {0}, step->weight + at, (uint8_t *)step->residual + (at >> 1), rows->grad, 1, rows->key, 0};
  int32_t factor[MCG_FOURS];
  int64_t by[MCG_FOURS] = {0, 0, 0, 0};
  for (int32_t i = 0; i < MCG_FOURS; ++i) {
    const int32_t k = mcg_base(p->rate, o + i) + rows->shift;
    if (!mcg_step_is_bounded(k, rows->positions)) return 0;
    factor[i] = -(int32_t)(1u << (32 - k));
  }
  if (mu != NULL) weigh_rows(mu, s.weight, n, -1, by);
  int32_t *grad = rows->grad;
  uint32_t key = mcg_random_number((uint32_t)(o * p->total));
  for (int32_t i = 0, lane = 0; i < MCG_FOURS; ++i, key += mcg_random_number((uint32_t)p->total)) {
    MCG_ROLLED for (int32_t j = 0; j < n; ++j) {
      *grad++ = rows->grad[i * MCG_GRADS + j];
      s.number[lane] = key + rows->number[j], s.factor[lane] = factor[i];
      lane = (lane + 1) & (MCG_FOURS - 1);
      if (lane != 0) continue;
      if (MCG_ASM) mcg_step_columns(&s);
      s.weight += MCG_FOURS, s.residual += MCG_FOURS / 2, s.grad += MCG_FOURS;
    }
  }
  if (mu == NULL) return 1;
  weigh_rows(mu, step->weight + at, n, 1, by);
  for (int32_t i = 0; i < MCG_FOURS; ++i) mcg_centre(step, o + i, by[i]);
  return 1;
}
