/* Gradient and step of a bias: b -= RSH(sum over positions of h, k), kept within +-2^30. */
#include "backward.h"
#include "bias_update.h"
#include "bias_update_mve.h"
#include "fixed.h"
#include "port.h"
#include "uses.h"
#include "wide.h"

/* sum [n] of n channels of h [positions][channels] */
static void sum_plain(const int8_t *h, int32_t positions, int32_t n, int32_t channels, int32_t *sum) {
  mcg_zero(sum, n);
  if (n == 0) return;
  for (; positions > 0; --positions, h += channels) {
    for (int32_t c = 0; c < n; ++c) sum[c] += h[c];
  }
}

#define MOST 256 /* positions whose sums fit int16 */

/* mcg_bias_sum by pairs. */
static MCG_NOINLINE void sum_packed(const int8_t *h, int32_t positions, int32_t channels, int32_t *sum) {
  uint32_t a = 0u, b = 0u, c = 0u, d = 0u;
  MCG_ROLLED for (; positions > 0; --positions, h += channels) {
    const uint32_t v = mcg_load4(h), w = mcg_load4(h + 4);
    a = mcg_sxtab16(a, v);
    b = mcg_sxtab16_odd(b, v);
    c = mcg_sxtab16(c, w);
    d = mcg_sxtab16_odd(d, w);
  }
  sum[0] = mcg_low(a), sum[1] = mcg_low(b), sum[2] = mcg_high(a), sum[3] = mcg_high(b);
  sum[4] = mcg_low(c), sum[5] = mcg_low(d), sum[6] = mcg_high(c), sum[7] = mcg_high(d);
}

static void sum_some(const int8_t *h, int32_t positions, int32_t channels, int32_t *sum) {
  if (MCG_ASM) mcg_bias_sum(h, positions, channels, sum);
  else sum_packed(h, positions, channels, sum);
}

/* The same for any number of positions. */
static void sum_eight(const int8_t *h, int32_t positions, int32_t channels, int32_t *sum) {
  sum_some(h, mcg_min(positions, MOST), channels, sum);
  while (positions > MOST) {
    int32_t more[8];
    positions -= MOST, h += MOST * channels;
    sum_some(h, mcg_min(positions, MOST), channels, more);
    MCG_ROLLED for (int32_t i = 0; i < 8; ++i) sum[i] += more[i];
  }
}

MCG_RARE int32_t moved_wide(int32_t bias, int32_t sum, int32_t k) {
  const int64_t wide = (int64_t)bias - mcg_rsh(sum, k);
  return wide > MCG_BIAS_LIMIT ? MCG_BIAS_LIMIT : wide < -MCG_BIAS_LIMIT ? -MCG_BIAS_LIMIT : (int32_t)wide;
}

/* bias - RSH(sum, k) within its limits. */
static inline int32_t moved(int32_t bias, int32_t sum, int32_t k) {
  if (k <= 0 || k > 31) return moved_wide(bias, sum, k);
  return mcg_between(bias - ((sum >> k) + (sum >> (k - 1) & 1)), -MCG_BIAS_LIMIT, MCG_BIAS_LIMIT); /* both within 2^30 */
}

/* Moves channels from c on with shifts of the forward pass's; returns the first that is left. */
static int32_t run(const mcg_bias_step_t *step, int32_t shift, int32_t c, int32_t channels, const int32_t *sum) {
  const mcg_rate_t *r = step->rate;
  if (!MCG_ASM || r->base != NULL) return c;
  const mcg_bias_run_t s = {r->multiplier + c, sum + c, step->bias + c, r->shift + c, channels - c,
                            r->first, r->second, r->most + shift};
  return MCG_ASM ? channels - mcg_bias_run(&s) : c;
}

/* h [positions][channels], scratch int32 [channels] */
void mcg_bias_update(const int8_t *h, int32_t positions, int32_t channels, const mcg_bias_step_t *step, void *scratch) {
  int32_t *sum = (int32_t *)scratch;
  int32_t packed = 0;
  for (; MCG_DUAL_MAC && !MCG_MVE && !MCG_WIDE && packed + 8 <= channels; packed += 8) {
    sum_eight(h + packed, positions, channels, sum + packed);
  }
  if (MCG_MVE) mcg_bias_sums_mve(h, positions, channels, sum);
  else if (MCG_WIDE) mcg_bias_sums_wide(h, positions, channels, sum);
  else sum_plain(h + packed, positions, channels - packed, channels, sum + packed);
  if (MCG_USES_SUMS && mcg_gather(step->sum, 0, channels, sum)) return;
  const int32_t shift =
      step->c->halvings - mcg_exponent(step->exponents, step->rate->slot) - *step->sample_exponent;
  if (MCG_USES_HELD && step->hold != NULL) {
    mcg_bias_hold(step, shift, channels, sum);
    return;
  }
  if (MCG_USES_DELTAS && step->delta != NULL) {
    MCG_ROLLED for (int32_t c = 0; c < channels; ++c) {
      mcg_move_bias(NULL, step->delta, c, mcg_rsh(sum[c], mcg_base(step->rate, c) + shift));
    }
    return;
  }
  if (MCG_MVE) {
    mcg_bias_step_mve(step, shift, channels, sum);
    return;
  }
  const int32_t first = MCG_WIDE ? mcg_bias_step_wide(step, shift, channels, sum) : 0;
  MCG_ROLLED for (int32_t c = first; c < channels; ++c) {
    c = run(step, shift, c, channels, sum);
    if (c < channels) step->bias[c] = moved(step->bias[c], sum[c], mcg_base(step->rate, c) + shift);
  }
}
