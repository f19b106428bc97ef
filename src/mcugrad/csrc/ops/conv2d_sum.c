/* A 1x1 convolution some input channels at a time: int32 sums, and their requantization. */
#include "fixed.h"
#include "kernels.h"
#include "ops/conv2d_groups.h"
#include "port.h"

#define PIXELS 4 /* that are widened and multiplied together */

/* columns [n / 4][PIXELS][4] = x - zero of `count` pixels, the last of which stands for those that lack; in the order in
 * which SXTB16 takes weights apart (conv2d_strip.h). */
static MCG_APART void widen(int16_t *columns, const int8_t *x, int32_t n, int32_t count, int32_t zero) {
  const uint32_t minus = mcg_pair(-zero, -zero);
  MCG_ROLLED for (int32_t j = 0; j < PIXELS; ++j, columns += 4) {
    int16_t *to = columns;
    MCG_ROLLED for (int32_t i = 0; i < n; i += 4, to += 4 * PIXELS) {
      if (MCG_DUAL_MAC) {
        const uint32_t v = mcg_load4(x + i);
        mcg_store4_aligned(to, mcg_sxtab16(minus, v));
        mcg_store4_aligned(to + 2, mcg_sxtab16_odd(minus, v));
      } else {
        for (int k = 0; k < 4; ++k) to[k] = (int16_t)(x[i + k] - zero);
      }
    }
    if (j + 1 < count) x += n;
  }
}

/* The outputs of `count` pixels, all that `columns` holds. */
static MCG_APART void outputs(const mcg_conv2d_sum_t *p, const int16_t *columns, const int8_t *w, int32_t count,
                              int32_t *sum) {
  const int32_t pitch = p->outputs;
  MCG_ROLLED for (int32_t o = 0; o < pitch; ++o, w += p->pitch, ++sum) {
    int32_t acc[PIXELS] = {0, 0, 0, 0};
    MCG_ROLLED for (int32_t j = 0; p->more && j < count; ++j) acc[j] = sum[j * pitch];
    mcg_dot_groups(columns, w, p->inputs >> 2, acc);
    MCG_ROLLED for (int32_t j = 0; j < count; ++j) sum[j * pitch] = acc[j];
  }
}

void mcg_conv2d_sum(const mcg_conv2d_sum_t *p, const int8_t *x, const int8_t *weight, int32_t *sum, void *scratch) {
  int16_t *const columns = (int16_t *)scratch;
  for (int32_t at = 0; at < p->positions; at += PIXELS) {
    const int32_t left = p->positions - at, count = left < PIXELS ? left : PIXELS;
    widen(columns, x + at * p->inputs, p->inputs, count, p->x_zero);
    outputs(p, columns, weight, count, sum + at * p->outputs);
  }
}

void mcg_requantize_sum(const mcg_requantize_t *p, const int32_t *sum, const int32_t *bias, const int16_t *delta, int8_t *y) {
  for (int32_t at = p->positions; at > 0; --at) {
    MCG_ROLLED for (int32_t c = 0; c < p->channels; ++c) {
      const int32_t moved = delta == NULL ? bias[c] : mcg_between(bias[c] + delta[c], -MCG_BIAS_LIMIT, MCG_BIAS_LIMIT);
      *y++ = mcg_requantize(*sum++ + moved, p->multiplier[c], p->shift[c], p->y_zero);
    }
  }
}
