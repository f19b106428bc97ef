/* Input gradient of average pooling: each element collects the windows that hold it; the 1/P is in the chain. */
#include "backward.h"
#include "uses.h"

/* acc [in_w][C]: `step` hands over one output position's gradient; int8 and int32 share the walk. */
#define GATHER_ROW(p, g, r, acc)                                                                              \
  do {                                                                                                        \
    const int32_t channels = (p)->in_c;                                                                       \
    mcg_zero(acc, (p)->in_w * channels);                                                                      \
    for (int32_t ky = 0; ky < (p)->kernel_h; ++ky) {                                                          \
      const int32_t oy = mcg_reader(r, ky, (p)->stride_h, (p)->pad_top, (p)->out_h);                          \
      for (int32_t kx = 0; oy >= 0 && kx < (p)->kernel_w; ++kx) {                                             \
        const mcg_span_t span = mcg_span(kx, (p)->stride_w, (p)->pad_left, (p)->in_w, (p)->out_w);            \
        for (int32_t ox = span.first; ox < span.last; ++ox) {                                                 \
          int32_t *to = (acc) + (ox * (p)->stride_w + kx - (p)->pad_left) * channels;                         \
          MCG_COMPACT for (int32_t c = 0; c < channels; ++c) to[c] += (g)[(oy * (p)->out_w + ox) * channels + c];         \
        }                                                                                                     \
      }                                                                                                       \
    }                                                                                                         \
  } while (0)

/* Whether one window is the whole input, and its rows hold quads of channels for a block. */
static int is_global(const mcg_conv2d_t *p) {
  return p->out_h == 1 && p->out_w == 1 && p->kernel_h == p->in_h && p->kernel_w == p->in_w && p->pad_top == 0 &&
         p->pad_left == 0 && p->in_c % 4 == 0;
}

/* g [C] for every position, four channels at a time; acc [in_w][C] */
static void spread(const mcg_conv2d_t *p, const int32_t *g, const mcg_chain_t *chain, int32_t *acc) {
  const int32_t rows = mcg_min(p->in_h, p->in_c / 4);
  mcg_block_t b = {acc, 4, 0, 0, p->in_w, p->in_c, 4, 0};
  for (; b.row < p->in_h; b.row += rows) {
    b.rows = mcg_min(rows, p->in_h - b.row);
    for (b.first = 0; b.first < p->in_c; b.first += 4) {
      const int32_t *from = g + b.first, v0 = from[0], v1 = from[1], v2 = from[2], v3 = from[3];
      int32_t *to = acc;
      MCG_ROLLED for (int32_t i = b.rows * p->in_w; i > 0; --i, to += 4) to[0] = v0, to[1] = v1, to[2] = v2, to[3] = v3;
      mcg_chain_block(chain, &b);
    }
  }
}

/* g [out_h][out_w][C], scratch int32 [in_w][C] */
void mcg_avg_pool_grad_s8(const mcg_conv2d_t *p, const int8_t *g, const mcg_chain_t *chain, void *scratch) {
  int32_t *acc = (int32_t *)scratch;
  mcg_chain_start(chain);
  for (int32_t r = 0; r < p->in_h; ++r) {
    GATHER_ROW(p, g, r, acc);
    mcg_chain_row(chain, r, p->in_w * p->in_c, acc);
  }
}

void mcg_avg_pool_grad_s32(const mcg_conv2d_t *p, const int32_t *g, const mcg_chain_t *chain, void *scratch) {
  int32_t *acc = (int32_t *)scratch;
  mcg_chain_start(chain);
  if (!MCG_USES_POOL_WINDOWS || (!MCG_WIDE && is_global(p))) {
    spread(p, g, chain, acc);
    return;
  }
  for (int32_t r = 0; r < p->in_h; ++r) {
    GATHER_ROW(p, g, r, acc);
    mcg_chain_row(chain, r, p->in_w * p->in_c, acc);
  }
}
