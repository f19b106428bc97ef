/* Sums and steps of biases, 16 channels at a time; ops/bias_update.c says what they are. */
#include "ops/backward.h"
#include "wide.h"
#include "vector.h"

/* n channels of h; n is a constant where that pays. */
MCG_INLINE mcg_wide_t sums(const int8_t *h, int32_t positions, int32_t channels, int32_t n) {
  mcg_wide_t sum = {0};
  for (; positions > 0; --positions, h += channels) sum += mcg_signed(mcg_load_bytes(h, n));
  return sum;
}

void mcg_bias_sums_wide(const int8_t *h, int32_t positions, int32_t channels, int32_t *sum) {
  int32_t c = 0;
  for (; c + MCG_WIDTH <= channels; c += MCG_WIDTH) mcg_store_wide(sum + c, sums(h + c, positions, channels, MCG_WIDTH));
  if (c < channels) mcg_store_some(sum + c, sums(h + c, positions, channels, channels - c), channels - c);
}

/* mcg_base of n <= 16 channels from c on. */
static mcg_wide_t bases(const mcg_rate_t *r, int32_t c, int32_t n) {
  if (r->base != NULL) return mcg_signed(mcg_load_bytes(r->base + c, n));
  const mcg_wide_t m = mcg_load_some(r->multiplier + c, n), shift = mcg_unsigned(mcg_load_bytes(r->shift + c, n));
  return r->most - 2 * shift + (m < r->first) + (m < r->second);
}

int32_t mcg_bias_step_wide(const mcg_bias_step_t *step, int32_t shift, int32_t channels, const int32_t *sum) {
  const mcg_wide_t lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  for (int32_t c = 0; c < channels; c += MCG_WIDTH) {
    const int32_t n = channels - c < MCG_WIDTH ? channels - c : MCG_WIDTH;
    const mcg_wide_t k = bases(step->rate, c, n) + shift, far = k > 31, v = mcg_load_some(sum + c, n);
    if (mcg_any((k <= 0) & (lane < n))) return c;
    const mcg_wide_t by = mcg_select(far | (lane >= n), mcg_splat(31), k), moves = ((v >> by) + ((v >> (by - 1)) & 1)) & ~far;
    const mcg_wide_t moved = mcg_load_some(step->bias + c, n) - moves;
    mcg_store_some(step->bias + c, mcg_clamp_wide(moved, -MCG_BIAS_LIMIT, MCG_BIAS_LIMIT), n);
  }
  return channels;
}
