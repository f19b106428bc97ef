/* The classifier: int16 Q12 weights on int8 features, its gradient and its update. */
#include "backward.h"
#include "fixed.h"

/* x [F], weight [F][K], bias [K], logits [K] */
void mcg_head(const mcg_head_t *p, const int8_t *x, const int16_t *weight, const int32_t *bias, int32_t *logits) {
  MCG_COMPACT for (int32_t k = 0; k < p->classes; ++k) logits[k] = bias[k];
  for (int32_t c = 0; c < p->features; ++c, weight += p->classes) {
    const int32_t f = x[c] - p->zero;
    MCG_COMPACT for (int32_t k = 0; f != 0 && k < p->classes; ++k) logits[k] += f * weight[k];
  }
}

/* gf [F] = weight [F][K] * g [K]; sum |g| <= 2^16 keeps it inside int32, and any other g wraps. */
void mcg_head_input_grad(int32_t features, int32_t classes, const int16_t *weight, const int32_t *g, int32_t *gf) {
  for (int32_t c = 0; c < features; ++c, weight += classes) {
    uint32_t sum = 0;
    MCG_COMPACT for (int32_t k = 0; k < classes; ++k) sum += (uint32_t)weight[k] * (uint32_t)g[k];
    gf[c] = (int32_t)sum;
  }
}

/* RSH, once for weights and biases. */
static MCG_APART int32_t shifted(int32_t v, int32_t k) { return mcg_rsh(v, k); }

/* x [F], g [K], weight [F][K] and bias [K] in place */
void mcg_head_update(const mcg_head_t *p, const mcg_context_t *c, const int8_t *x, const int32_t *g, int16_t *weight,
                     int32_t *bias) {
  const int32_t kw = p->weight_shift + c->halvings, kb = p->bias_shift + c->halvings;
  for (int32_t i = 0; i < p->features; ++i, weight += p->classes) {
    const int32_t f = x[i] - p->zero;
    MCG_COMPACT for (int32_t k = 0; k < p->classes; ++k) {
      const int32_t step = mcg_between(shifted(f * g[k], kw), -65536, 65536);
      weight[k] = (int16_t)mcg_between(weight[k] - step, -p->limit, p->limit);
    }
  }
  MCG_ROLLED for (int32_t k = 0; k < p->classes; ++k) {
    const int64_t moved = (int64_t)mcg_met(bias[k], g[k]) - shifted(g[k], kb);
    bias[k] = moved > MCG_BIAS_LIMIT ? MCG_BIAS_LIMIT : moved < -MCG_BIAS_LIMIT ? -MCG_BIAS_LIMIT : (int32_t)moved;
  }
}
