/* Weight gradient of a depthwise convolution and its step: dW[tap][c] = sum of (x - x_zero - mu_c) * h. */
#include "backward.h"

/* grad [C] of tap (ky, kx) */
static void tap_plain(const mcg_conv2d_t *p, const int8_t *x, const int8_t *h, const int16_t *mu, int32_t ky,
                      int32_t kx, int32_t *grad) {
  const int32_t channels = p->in_c, zero = p->x_zero;
  const mcg_span_t rows = mcg_span(ky, p->stride_h, p->pad_top, p->in_h, p->out_h);
  const mcg_span_t columns = mcg_span(kx, p->stride_w, p->pad_left, p->in_w, p->out_w);
  mcg_zero(grad, channels);
  for (int32_t oy = rows.first; oy < rows.last; ++oy) {
    const int32_t iy = oy * p->stride_h + ky - p->pad_top;
    for (int32_t ox = columns.first; ox < columns.last; ++ox) {
      const int32_t ix = ox * p->stride_w + kx - p->pad_left;
      const int8_t *from = x + (iy * p->in_w + ix) * channels, *g = h + (oy * p->out_w + ox) * channels;
      if (mu != NULL) {
        for (int32_t c = 0; c < channels; ++c) grad[c] += (from[c] - zero - mu[c]) * g[c];
      } else {
        for (int32_t c = 0; c < channels; ++c) grad[c] += (from[c] - zero) * g[c];
      }
    }
  }
}

/* x [in_h][in_w][C], h [out_h][out_w][C], mu [C] or null, scratch int32 [kh][kw][C] */
void mcg_depthwise_update(const mcg_conv2d_t *p, const int8_t *x, const int8_t *h, const int16_t *mu,
                          const mcg_weight_step_t *step, void *scratch) {
  int32_t *grad = (int32_t *)scratch;
  for (int32_t tap = 0; tap < p->kernel_h * p->kernel_w; ++tap) {
    tap_plain(p, x, h, mu, tap / p->kernel_w, tap % p->kernel_w, grad + tap * p->in_c);
  }
  mcg_depthwise_step(step, 0, p->in_c, grad);
}
