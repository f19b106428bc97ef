/* Max pooling; padding is not counted. */
#include "kernels.h"
#include "ops/rows.h"

/* Output pixel y [C] from the taps inside the input; there is at least one. */
static void pixel(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, int32_t oy, int32_t ox, int8_t *y) {
  const int32_t top = oy * p->stride_h - p->pad_top, left = ox * p->stride_w - p->pad_left, channels = p->in_c;
  const mcg_taps_t v = mcg_taps(top, p->kernel_h, p->in_h), h = mcg_taps(left, p->kernel_w, p->in_w);
  for (int32_t c = 0; c < channels; ++c) y[c] = INT8_MIN;
  for (int32_t ky = v.first; ky < v.last; ++ky) {
    const int8_t *at = mcg_row(x, top + ky, r->x_rows, p->in_w * channels) + (left + h.first) * channels;
    for (int32_t kx = h.first; kx < h.last; ++kx, at += channels) {
      for (int32_t c = 0; c < channels; ++c) y[c] = at[c] > y[c] ? at[c] : y[c];
    }
  }
}

void mcg_max_pool(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, int8_t *y) {
  for (int32_t oy = r->first; oy < r->last; ++oy) {
    int8_t *to = mcg_row_out(y, oy, r->y_rows, p->out_w * p->out_c);
    for (int32_t ox = 0; ox < p->out_w; ++ox, to += p->out_c) pixel(p, r, x, oy, ox, to);
  }
}
