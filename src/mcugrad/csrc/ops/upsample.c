/* Upsampling by repetition, and its gradient: the sum over the copies. */
#include "backward.h"
#include "ops/bytes.h"
#include "ops/rows.h"

void mcg_upsample(const mcg_upsample_t *p, const mcg_rows_t *r, const int8_t *x, int8_t *y) {
  const int32_t channels = p->channels, row = p->in_w * p->factor_w * channels;
  for (int32_t oy = r->first; oy < r->last; ++oy) {
    const int8_t *from = mcg_row(x, mcg_over(oy, p->factor_h), r->x_rows, p->in_w * channels);
    int8_t *to = mcg_row_out(y, oy, r->y_rows, row);
    for (int32_t ix = 0; ix < p->in_w; ++ix, from += channels) {
      for (int32_t k = 0; k < p->factor_w; ++k, to += channels) mcg_copy(to, from, channels);
    }
  }
}

/* g [in_h * factor_h][in_w * factor_w][C], scratch int32 [in_w][C] */
void mcg_upsample_grad(const mcg_upsample_t *p, const int8_t *g, const mcg_chain_t *chain, void *scratch) {
  const int32_t channels = p->channels, row = p->in_w * channels;
  int32_t *acc = (int32_t *)scratch;
  mcg_chain_start(chain);
  for (int32_t r = 0; r < p->in_h; ++r) {
    mcg_zero(acc, row);
    for (int32_t k = 0; k < p->factor_h; ++k) {
      for (int32_t i = 0; i < row; i += channels) {
        for (int32_t j = 0; j < p->factor_w; ++j, g += channels) {
          MCG_COMPACT for (int32_t c = 0; c < channels; ++c) acc[i + c] += g[c];
        }
      }
    }
    mcg_chain_row(chain, r, row, acc);
  }
}
