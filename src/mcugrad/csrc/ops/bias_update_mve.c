/* Sums and steps of biases by MVE: see bias_update.c. */
#include "bias_update_mve.h"

#include "fixed.h"
#include "ops/mve.h"

#if MCG_MVE

#define CHANNELS 16

/* sum [n] of n <= 16 channels, the int16 sums of 256 positions at a time. */
static MCG_APART void sum_16(const int8_t *h, int32_t positions, int32_t n, int32_t channels, int32_t *sum) {
  const mve_pred16_t first = mcg_first_bytes(mcg_min(2 * n, 16)), second = mcg_first_bytes(2 * mcg_max(n - 8, 0));
  mcg_zero(sum, n);
  while (positions > 0) {
    const int32_t few = mcg_min(positions, 256);
    int16x8_t a = vdupq_n_s16(0), b = a;
    int16_t kept[CHANNELS];
    if (n == CHANNELS) {
      for (int32_t i = few; i > 0; --i, h += channels) a = vaddq_s16(a, vldrbq_s16(h)), b = vaddq_s16(b, vldrbq_s16(h + 8));
    } else {
      for (int32_t i = few; i > 0; --i, h += channels) {
        a = vaddq_s16(a, vldrbq_z_s16(h, first)), b = vaddq_s16(b, vldrbq_z_s16(h + 8, second));
      }
    }
    vstrhq_s16(kept, a), vstrhq_s16(kept + 8, b);
    for (int32_t i = 0; i < n; ++i) sum[i] += kept[i];
    positions -= few;
  }
}

/* mcg_base of channels c ... c + 3, those of `some`. */
static int32x4_t bases(const mcg_rate_t *r, int32_t c, mve_pred16_t some) {
  if (r->base != NULL) return vldrbq_z_s32(r->base + c, some);
  const int32x4_t m = vldrwq_z_s32(r->multiplier + c, some), sh = vreinterpretq_s32_u32(vldrbq_z_u32(r->shift + c, some));
  const int32x4_t most = vsubq_s32(vdupq_n_s32(r->most), vaddq_s32(sh, sh));
  const int32x4_t less = vaddq_s32(most, vshrq_n_s32(vsubq_n_s32(m, r->first), 31));
  return vaddq_s32(less, vshrq_n_s32(vsubq_n_s32(m, r->second), 31));
}

void mcg_bias_step_mve(const mcg_bias_step_t *step, int32_t shift, int32_t channels, const int32_t *sum) {
  const int32x4_t most = vdupq_n_s32(MCG_BIAS_LIMIT), least = vdupq_n_s32(-MCG_BIAS_LIMIT), far = vdupq_n_s32(32);
  int32_t *bias = step->bias;
  for (int32_t c = 0; c < channels; c += 4, sum += 4, bias += 4) {
    const mve_pred16_t some = vctp32q((uint32_t)(channels - c));
    const int32x4_t k = vaddq_n_s32(bases(step->rate, c, some), shift);
    const int32x4_t left = vmaxq_s32(vminq_s32(vnegq_s32(k), far), vnegq_s32(far));
    const int32x4_t moved = vqsubq_s32(vldrwq_z_s32(bias, some), vqrshlq_s32(vldrwq_z_s32(sum, some), left));
    vstrwq_p_s32(bias, vmaxq_s32(vminq_s32(moved, most), least), some);
  }
}

void mcg_bias_sums_mve(const int8_t *h, int32_t positions, int32_t channels, int32_t *sum) {
  for (int32_t c = 0; c < channels; c += CHANNELS) {
    sum_16(h + c, positions, mcg_min(CHANNELS, channels - c), channels, sum + c);
  }
}

#endif
