/* Gradient and step of a bias: b -= RSH(sum over positions of h, k), kept within +-2^30. */
#include "backward.h"
#include "bias_update_mve.h"
#include "fixed.h"
#include "port.h"

/* sum [n] of n channels of h [positions][channels] */
static void sum_plain(const int8_t *h, int32_t positions, int32_t n, int32_t channels, int32_t *sum) {
  mcg_zero(sum, n);
  if (n == 0) return;
  for (; positions > 0; --positions, h += channels) {
    for (int32_t c = 0; c < n; ++c) sum[c] += h[c];
  }
}

/* The same for eight channels by pairs, whose sums of 256 positions fit int16. */
static MCG_NOINLINE void sum_packed(const int8_t *h, int32_t positions, int32_t channels, int32_t *sum) {
  for (int32_t i = 0; i < 8; ++i) sum[i] = 0;
  while (positions > 0) {
    uint32_t a = 0u, b = 0u, c = 0u, d = 0u;
    MCG_ROLLED for (int32_t n = mcg_min(positions, 256); n > 0; --n, --positions, h += channels) {
      const uint32_t v = mcg_load4(h), w = mcg_load4(h + 4);
      a = mcg_sxtab16(a, v);
      b = mcg_sxtab16_odd(b, v);
      c = mcg_sxtab16(c, w);
      d = mcg_sxtab16_odd(d, w);
    }
    const uint32_t pairs[4] = {a, b, c, d};
    MCG_ROLLED for (int32_t i = 0; i < 8; ++i) {
      const uint32_t pair = pairs[(i & 1) + (i >> 2 << 1)];
      sum[i] += i & 2 ? mcg_high(pair) : mcg_low(pair);
    }
  }
}

/* h [positions][channels], scratch int32 [channels] */
void mcg_bias_update(const int8_t *h, int32_t positions, int32_t channels, const mcg_bias_step_t *step, void *scratch) {
  int32_t *sum = (int32_t *)scratch;
  int32_t packed = 0;
  for (; MCG_DUAL_MAC && !MCG_MVE && packed + 8 <= channels; packed += 8) {
    sum_packed(h + packed, positions, channels, sum + packed);
  }
  if (MCG_MVE) mcg_bias_sums_mve(h, positions, channels, sum);
  else sum_plain(h + packed, positions, channels - packed, channels, sum + packed);
  if (mcg_gather(step->sum, 0, channels, sum)) return;
  const int32_t shift =
      step->c->halvings - mcg_exponent(step->exponents, step->p->slot) - *step->sample_exponent;
  if (MCG_MVE) {
    mcg_bias_step_mve(step, shift, channels, sum);
    return;
  }
  for (int32_t c = 0; c < channels; ++c) {
    const int64_t moved = (int64_t)step->bias[c] - mcg_rsh(sum[c], step->p->base[c] + shift);
    step->bias[c] = moved > MCG_BIAS_LIMIT    ? MCG_BIAS_LIMIT
                    : moved < -MCG_BIAS_LIMIT ? -MCG_BIAS_LIMIT
                                              : (int32_t)moved;
  }
}
