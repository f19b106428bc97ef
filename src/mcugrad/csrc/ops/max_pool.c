/* Max pooling; padding is not counted. */
#include "kernels.h"
#include "ops/rows.h"
#include "port.h"

/* The largest of each of four channels of n neighbouring pixels, and of `most`. */
static inline uint32_t max_row(const int8_t *at, int32_t pixel, int32_t n, uint32_t most) {
  MCG_ROLLED for (; n > 0; --n, at += pixel) most = mcg_max8(most, mcg_load4(at));
  return most;
}

/* Output pixel y [C] from the taps inside the input; there is at least one. */
static void pixel(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, int32_t oy, int32_t ox, int8_t *y) {
  const int32_t top = oy * p->stride_h - p->pad_top, left = ox * p->stride_w - p->pad_left, channels = p->in_c;
  const mcg_taps_t v = mcg_taps(top, p->kernel_h, p->in_h), h = mcg_taps(left, p->kernel_w, p->in_w);
  const int32_t pitch = p->in_w * channels, taps = h.last - h.first;
  for (int32_t c = 0; c < channels; c += 4) {
    uint32_t most = 0x80808080u;
    int8_t few[4] = {INT8_MIN, INT8_MIN, INT8_MIN, INT8_MIN};
    const int32_t lanes = channels - c < 4 ? channels - c : 4;
    for (int32_t ky = v.first; ky < v.last; ++ky) {
      const int8_t *at = mcg_row(x, top + ky, r->x_rows, pitch) + (left + h.first) * channels + c;
      if (lanes == 4) most = max_row(at, channels, taps, most);
      for (int32_t kx = 0; lanes < 4 && kx < taps; ++kx, at += channels) {
        MCG_ROLLED for (int32_t i = 0; i < lanes; ++i) few[i] = at[i] > few[i] ? at[i] : few[i];
      }
    }
    if (lanes == 4) mcg_store4(y + c, most);
    MCG_ROLLED for (int32_t i = 0; lanes < 4 && i < lanes; ++i) y[c + i] = few[i];
  }
}

void mcg_max_pool(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, int8_t *y) {
  for (int32_t oy = r->first; oy < r->last; ++oy) {
    int8_t *to = mcg_row_out(y, oy, r->y_rows, p->out_w * p->out_c);
    for (int32_t ox = 0; ox < p->out_w; ++ox, to += p->out_c) pixel(p, r, x, oy, ox, to);
  }
}
