/* Convolution in the simplest way, any groups. */
#include "fixed.h"
#include "kernels.h"
#include "ops/rows.h"

/* One input of the sum: sum over taps inside the input and channels of (x - x_zero) * weight. */
static int32_t plain_sum(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight,
                         const int8_t *rest, int32_t o, int32_t oy, int32_t ox) {
  const int32_t per = p->in_c / p->groups, resting = per - p->live, first = o / (p->out_c / p->groups) * per;
  int32_t acc = 0;
  for (int32_t ky = 0; ky < p->kernel_h; ++ky) {
    for (int32_t kx = 0; kx < p->kernel_w; ++kx) {
      const int32_t iy = oy * p->stride_h - p->pad_top + ky * p->dilation_h;
      const int32_t ix = ox * p->stride_w - p->pad_left + kx * p->dilation_w;
      const int32_t tap = (o * p->kernel_h + ky) * p->kernel_w + kx;
      if (iy < 0 || iy >= p->in_h || ix < 0 || ix >= p->in_w) continue;
      const int8_t *at = mcg_row(x, iy, r->x_rows, p->in_w * p->in_c) + ix * p->in_c + first;
      for (int32_t i = 0; i < per; ++i) {
        const int32_t v = at[p->order != NULL ? p->order[i] : i] - p->x_zero;
        acc += v * (i < p->live ? weight[tap * p->live + i] : rest[tap * resting + i - p->live]);
      }
    }
  }
  return acc;
}

void mcg_conv2d_plain(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight,
                      const int8_t *rest, const int32_t *bias, int8_t *y, void *scratch) {
  (void)scratch;
  for (int32_t oy = r->first; oy < r->last; ++oy) {
    int8_t *to = mcg_row_out(y, oy, r->y_rows, p->out_w * p->out_c);
    for (int32_t ox = 0; ox < p->out_w; ++ox) {
      for (int32_t o = 0; o < p->out_c; ++o) {
        const int32_t acc = bias[o] + plain_sum(p, r, x, weight, rest, o, oy, ox);
        *to++ = mcg_requantize(acc, p->multiplier[o], p->shift[o], p->y_zero);
      }
    }
  }
}
