/* Input gradient of max pooling: a window's gradient goes to its first largest element in row-major order. */
#include "backward.h"

/* First largest element of channel c under the window at (oy, ox): index into x [in_h][in_w][C] without the channel. */
static int32_t winner(const mcg_conv2d_t *p, const int8_t *x, int32_t oy, int32_t ox, int32_t c) {
  const int32_t top = oy * p->stride_h - p->pad_top, left = ox * p->stride_w - p->pad_left;
  int32_t best = -129, at = 0;
  for (int32_t iy = mcg_max(top, 0); iy < mcg_min(top + p->kernel_h, p->in_h); ++iy) {
    for (int32_t ix = mcg_max(left, 0); ix < mcg_min(left + p->kernel_w, p->in_w); ++ix) {
      const int32_t v = x[(iy * p->in_w + ix) * p->in_c + c];
      if (v <= best) continue;
      best = v;
      at = iy * p->in_w + ix;
    }
  }
  return at;
}

/* acc [in_w][C] += the gradients of output row oy that fall on input row r. */
static void scatter(const mcg_conv2d_t *p, const int8_t *g, const int8_t *x, int32_t oy, int32_t r, int32_t *acc) {
  const int8_t *row = g + oy * p->out_w * p->in_c;
  for (int32_t ox = 0; ox < p->out_w; ++ox) {
    for (int32_t c = 0; c < p->in_c; ++c, ++row) {
      const int32_t column = *row != 0 ? winner(p, x, oy, ox, c) - r * p->in_w : -1;
      if (column >= 0 && column < p->in_w) acc[column * p->in_c + c] += *row;
    }
  }
}

/* g [out_h][out_w][C], x [in_h][in_w][C], scratch int32 [in_w][C] */
void mcg_max_pool_grad(const mcg_conv2d_t *p, const int8_t *g, const int8_t *x, const mcg_chain_t *chain,
                       void *scratch) {
  int32_t *acc = (int32_t *)scratch;
  mcg_chain_start(chain);
  for (int32_t r = 0; r < p->in_h; ++r) {
    mcg_zero(acc, p->in_w * p->in_c);
    for (int32_t ky = 0; ky < p->kernel_h; ++ky) {
      const int32_t oy = mcg_reader(r, ky, p->stride_h, p->pad_top, p->out_h);
      if (oy >= 0) scatter(p, g, x, oy, r, acc);
    }
    mcg_chain_row(chain, r, p->in_w * p->in_c, acc);
  }
}
