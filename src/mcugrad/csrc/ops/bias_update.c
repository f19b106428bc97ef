/* Gradient and step of a bias: b -= RSH(sum over positions of h, k), kept within +-2^30. */
#include "backward.h"
#include "fixed.h"

/* sum [channels] of h [positions][channels] */
static void sum_plain(const int8_t *h, int32_t positions, int32_t channels, int32_t *sum) {
  mcg_zero(sum, channels);
  for (int32_t n = 0; n < positions; ++n, h += channels) {
    for (int32_t c = 0; c < channels; ++c) sum[c] += h[c];
  }
}

/* h [positions][channels], scratch int32 [channels] */
void mcg_bias_update(const int8_t *h, int32_t positions, int32_t channels, const mcg_bias_step_t *step, void *scratch) {
  int32_t *sum = (int32_t *)scratch;
  sum_plain(h, positions, channels, sum);
  const int32_t shift =
      step->c->halvings - mcg_exponent(step->exponents, step->p->slot) - *step->sample_exponent;
  for (int32_t c = 0; c < channels; ++c) {
    const int64_t moved = (int64_t)step->bias[c] - mcg_rsh(sum[c], step->p->base[c] + shift);
    step->bias[c] = moved > MCG_BIAS_LIMIT    ? MCG_BIAS_LIMIT
                    : moved < -MCG_BIAS_LIMIT ? -MCG_BIAS_LIMIT
                                              : (int32_t)moved;
  }
}
