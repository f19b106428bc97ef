/* Losses beside softmax: sigmoid cross-entropy and mean squared error; and the logits of a model that keeps its output. */
#include "fixed.h"
#include "kernels.h"
#include "ops/exponential.h"

#define ONE 32768 /* probability 1 in Q15 */

/* x [n], logits [n] */
void mcg_logits(int32_t n, int32_t zero, const int8_t *x, int32_t *logits) {
  for (int32_t i = 0; i < n; ++i) logits[i] = x[i] - zero;
}

/* Sigmoid of a logit in Q15. */
static int32_t sigmoid(const mcg_softmax_t *p, int32_t a) {
  const int64_t distance = a < 0 ? -(int64_t)a : a;
  const uint32_t e = (uint32_t)mcg_exponential(p->multiplier, p->shift, distance);
  const int32_t high = (int32_t)((1u << 30) / (ONE + e));
  return a < 0 ? ONE - high : high;
}

/* logits, target and g [K]; *least: the smallest probability of a right answer */
void mcg_sigmoid_cross_entropy(const mcg_softmax_t *p, int32_t shift, const int32_t *logits, const int32_t *target,
                               int32_t *least, int32_t *g) {
  *least = ONE;
  for (int32_t k = 0; k < p->classes; ++k) {
    const int32_t q = sigmoid(p, logits[k]), right = target[k] != 0 ? q : ONE - q;
    if (right < *least) *least = right;
    g[k] = mcg_rsh(target[k] != 0 ? q - ONE : q, shift);
  }
}

/* v within [-limit, limit] */
static inline int32_t within(int64_t v, int32_t limit) {
  return v > limit ? limit : v < -(int64_t)limit ? -limit : (int32_t)v;
}

/* Target of output k in units of the difference. */
static int32_t target_of(const mcg_squared_error_t *p, const int32_t *target, const int8_t *x, int32_t k) {
  if (x != NULL) return mcg_mbqm(x[k] - p->target_zero, p->target_multiplier, p->target_shift);
  return target[k];
}

void mcg_mean_squared_error(const mcg_squared_error_t *p, const int32_t *logits, const int32_t *target, const int8_t *x,
                            int32_t *score, int32_t *g) {
  int32_t sum = 0;
  for (int32_t k = 0; k < p->outputs; ++k) {
    const int32_t t = target_of(p, target, x, k);
    if (p->multiplier != 0) {
      int64_t d = (int64_t)logits[k] - t;
      d = d > INT32_MAX ? INT32_MAX : d < INT32_MIN ? INT32_MIN : d;
      g[k] = within(mcg_mbqm((int32_t)d, p->multiplier, p->shift), p->limit);
    } else {
      g[k] = logits[k] * (1 << p->fraction) - mcg_between(t, -MCG_TARGET_LIMIT, MCG_TARGET_LIMIT);
    }
    const int64_t square = (int64_t)g[k] * g[k];
    sum += p->score_shift == 0 ? (int32_t)square : (int32_t)((square + ((int64_t)1 << (p->score_shift - 1))) >> p->score_shift);
  }
  *score = sum;
}
