/* Input gradient of a depthwise convolution, row by row: a[c] = sum over taps of w * h. */
#include "backward.h"

/* acc [in_w][C] of row r. */
static void row_plain(const mcg_conv2d_t *p, const int8_t *h, const int8_t *weight, int32_t r, int32_t *acc) {
  const int32_t channels = p->in_c;
  mcg_zero(acc, p->in_w * channels);
  for (int32_t ky = 0; ky < p->kernel_h; ++ky) {
    const int32_t oy = mcg_reader(r, ky, p->stride_h, p->pad_top, p->out_h);
    for (int32_t kx = 0; oy >= 0 && kx < p->kernel_w; ++kx) {
      const mcg_span_t span = mcg_span(kx, p->stride_w, p->pad_left, p->in_w, p->out_w);
      const int8_t *w = weight + (ky * p->kernel_w + kx) * channels;
      for (int32_t ox = span.first; ox < span.last; ++ox) {
        const int8_t *from = h + (oy * p->out_w + ox) * channels;
        int32_t *to = acc + (ox * p->stride_w + kx - p->pad_left) * channels;
        for (int32_t c = 0; c < channels; ++c) to[c] += w[c] * from[c];
      }
    }
  }
}

/* h [out_h][out_w][C], weight [kh][kw][C], scratch int32 [in_w][C] */
void mcg_depthwise_input_grad(const mcg_conv2d_t *p, const int8_t *h, const int8_t *weight, const mcg_chain_t *chain,
                              void *scratch) {
  int32_t *acc = (int32_t *)scratch;
  mcg_chain_start(chain);
  for (int32_t r = 0; r < p->in_h; ++r) {
    row_plain(p, h, weight, r, acc);
    mcg_chain_row(chain, r, p->in_w * p->in_c, acc);
  }
}
