/* Steps that several samples make: the count of samples, biases and the head; weight_step.c has the weights. */
#include "hold.h"

void mcg_count_sample(int32_t samples, int32_t *count) { *count = *count + 1 < samples ? *count + 1 : 0; }

void mcg_bias_hold(const mcg_bias_step_t *step, int32_t shift, int32_t channels, const int32_t *sum) {
  const mcg_hold_t *h = step->hold;
  MCG_ROLLED for (int32_t c = 0; c < channels; ++c) {
    const int32_t share = mcg_rsh(sum[c], mcg_base(step->rate, c) + shift - h->fraction);
    const int32_t by = step->delta != NULL ? mcg_hold_16(h, c, share) : mcg_hold_32(h, c, share);
    mcg_move_bias(step->bias, step->delta, c, by);
  }
}

/* x [F], g [K], weight [F][K] and bias [K] in place */
void mcg_head_hold(const mcg_head_t *p, const mcg_context_t *c, const int8_t *x, const int32_t *g, int16_t *weight,
                   int32_t *bias, const mcg_hold_t *w, const mcg_hold_t *b) {
  const int32_t kw = p->weight_shift + c->halvings - w->fraction, kb = p->bias_shift + c->halvings - b->fraction;
  for (int32_t i = 0; i < p->features; ++i) {
    const int32_t f = x[i] - p->zero;
    for (int32_t k = 0; k < p->classes; ++k) {
      const int32_t at = i * p->classes + k, by = mcg_hold_16(w, at, mcg_rsh(f * g[k], kw));
      weight[at] = (int16_t)mcg_between(weight[at] - by, -p->limit, p->limit);
    }
  }
  for (int32_t k = 0; k < p->classes; ++k) {
    const int32_t by = mcg_hold_32(b, k, mcg_rsh(g[k], kb));
    bias[k] = mcg_met(bias[k], by);
    mcg_move_bias(bias, NULL, k, by);
  }
}
