/* Softmax cross-entropy in integers, the two early ends of a step, and the sample's own exponent. */
#include "backward.h"
#include "fixed.h"
#include "ops/exponential.h"

#define ONE 32768  /* probability 1 in Q15 */

/* logits [K], label [1], p_label [1], g [K] */
void mcg_softmax_cross_entropy(const mcg_softmax_t *p, const int32_t *logits, const int32_t *label, int32_t *p_label,
                               int32_t *g) {
  int32_t max = INT32_MIN;
  uint32_t sum = 0;
  for (int32_t k = 0; k < p->classes; ++k) max = logits[k] > max && logits[k] != MCG_UNSEEN ? logits[k] : max;
  for (int32_t k = 0; k < p->classes; ++k) {
    g[k] = logits[k] == MCG_UNSEEN ? 0 : mcg_exponential(p->multiplier, p->shift, (int64_t)max - logits[k]);
    sum += (uint32_t)g[k];
  }
  if (sum == 0) sum = 1; /* no output has been seen */
  for (int32_t k = 0; k < p->classes; ++k) g[k] = (int32_t)(((uint32_t)g[k] << 15) / sum);
  *p_label = g[*label];
  g[*label] -= ONE;
}

int32_t mcg_stop_if_easy(const mcg_context_t *c, const int32_t *p_label) { return *p_label >= c->skip; }

/* gf [n] */
int32_t mcg_stop_if_zero(const int32_t *gf, int32_t n) {
  for (int32_t i = 0; i < n; ++i) {
    if (gf[i] != 0) return 0;
  }
  return 1;
}

/* gf [n], scaled [n] (may be gf): RSH(gf, -k) with k = 14 - bitlength(max |gf|), and the exponent unit - k */
void mcg_sample_scale(int32_t n, int32_t unit, const int32_t *gf, int32_t *scaled, int32_t *sample_exponent) {
  uint32_t all = 0; /* the magnitudes' union has the bit length of the largest */
  for (int32_t i = 0; i < n; ++i) all |= gf[i] < 0 ? 0u - (uint32_t)gf[i] : (uint32_t)gf[i];
  int32_t k = 14;
  for (; all != 0; all >>= 1) --k;
  for (int32_t i = 0; i < n; ++i) scaled[i] = mcg_rsh(gf[i], -k);
  *sample_exponent = unit - k;
}
