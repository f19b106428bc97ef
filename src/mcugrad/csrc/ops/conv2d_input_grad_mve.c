/* Input gradient of a 1x1 convolution by MVE, four channels of a block of rows at a time, as rows of h times columns of the
 * weight, which are turned into rows first. */
#include "conv2d_input_grad_mve.h"

#include "dot_mve.h"

#if MCG_MVE

/* Turns outputs o ... o + n - 1 of input channels first ... first + 3, wherever the order puts them; columns [4][next]. */
static void turn(const mcg_conv2d_t *p, const int8_t *weight, const int8_t *rest, int32_t first, int32_t o, int32_t n,
                 int8_t *columns, int32_t next) {
  const int32_t live = p->live, resting = p->in_c - live, count = mcg_min(MCG_COLUMNS_MVE, p->in_c - first);
  if (p->order == NULL) {
    for (int32_t k = 0; k < count; ++k) mcg_turn_column(weight + o * live + first + k, n, live, columns + k * next);
    return;
  }
  for (int32_t j = 0; j < p->in_c; ++j) {
    const int32_t k = p->order[j] - first;
    if (k < 0 || k >= count) continue;
    if (j < live) mcg_turn_column(weight + o * live + j, n, live, columns + k * next);
    else mcg_turn_column(rest + o * resting + j - live, n, resting, columns + k * next);
  }
}

void mcg_pointwise_input_grad_mve(const mcg_conv2d_t *p, const int8_t *h, const int8_t *weight, const int8_t *rest,
                                  const mcg_chain_t *chain, void *scratch, int32_t outputs, int32_t rows) {
  int8_t *const columns = (int8_t *)scratch;
  int32_t *const acc = (int32_t *)scratch + 2 * outputs;
  mcg_block_t b = {acc, MCG_COLUMNS_MVE, 0, 0, p->in_w, p->in_c, 0, 0};
  for (b.row = 0; b.row < p->in_h; b.row += rows) {
    b.rows = mcg_min(rows, p->in_h - b.row);
    for (b.first = 0; b.first < p->in_c; b.first += MCG_COLUMNS_MVE) {
      b.n = mcg_min(MCG_COLUMNS_MVE, p->in_c - b.first);
      for (int32_t o = 0; o < p->out_c; o += 2 * outputs) { /* a column of bytes in the room of two of int16 */
        const int32_t n = mcg_min(2 * outputs, p->out_c - o);
        const mcg_products_t s = {h + b.row * p->in_w * p->out_c + o, columns, p->out_c, n, b.rows * p->in_w, n,
                                  acc, MCG_COLUMNS_MVE, 1, o > 0};
        turn(p, weight, rest, b.first, o, n, columns, n);
        mcg_products(&s);
      }
      mcg_chain_block(chain, &b);
    }
  }
}

#endif
