/* Input gradient of a convolution, row by row: a[i] = sum over taps and outputs of w * h. */
#include "backward.h"
#include "conv2d_input_grad_mve.h"
#include "dot.h"
#include "uses.h"
#include "wide.h"

#define OUTPUTS 192  /* whose weights are widened together; ops/conv2d.py sizes the scratch by both */
#define POSITIONS 64 /* that a block of a 1x1 convolution aims at */

/* One position's h [per_out] through one tap: acc [kept] += w [per_out][kept] * h, rows of w `pitch` apart. */
static void add_outputs(const int8_t *h, const int8_t *w, int32_t pitch, int32_t outputs, int32_t kept, int32_t *acc) {
  for (int32_t o = 0; o < outputs; ++o, w += pitch) {
    const int32_t v = h[o];
    for (int32_t i = 0; v != 0 && i < kept; ++i) acc[i] += w[i] * v;
  }
}

/* acc [in_w][in_c] += row r's share of one weight segment [O][kh][kw][kept], whose channels start at `first`. */
static void add_segment(const mcg_conv2d_t *p, const int8_t *h, const int8_t *weight, int32_t kept, int32_t first,
                        int32_t r, int32_t *acc) {
  const int32_t pitch = p->kernel_h * p->kernel_w * kept, outputs = p->out_c / p->groups;
  for (int32_t ky = 0; ky < p->kernel_h; ++ky) {
    const int32_t oy = mcg_reader(r, ky * p->dilation_h, p->stride_h, p->pad_top, p->out_h);
    for (int32_t kx = 0; oy >= 0 && kx < p->kernel_w; ++kx) {
      const int32_t left = kx * p->dilation_w - p->pad_left;
      const mcg_span_t span = mcg_span(kx * p->dilation_w, p->stride_w, p->pad_left, p->in_w, p->out_w);
      const int8_t *tap = weight + (ky * p->kernel_w + kx) * kept;
      for (int32_t ox = span.first; ox < span.last; ++ox) {
        const int8_t *from = h + (oy * p->out_w + ox) * p->out_c;
        int32_t *to = acc + (ox * p->stride_w + left) * p->in_c + first;
        for (int32_t g = 0; g < p->groups; ++g) {
          add_outputs(from + g * outputs, tap + g * outputs * pitch, pitch, outputs, kept, to + g * kept);
        }
      }
    }
  }
}

/* acc [in_w][in_c] from segment order (live, then resting channels) to channel order; spare [in_c]. */
static void reorder(const mcg_conv2d_t *p, int32_t *acc, int32_t *spare) {
  for (int32_t ix = 0; ix < p->in_w; ++ix, acc += p->in_c) {
    for (int32_t j = 0; j < p->in_c; ++j) spare[j] = acc[j];
    for (int32_t j = 0; j < p->in_c; ++j) acc[p->order[j]] = spare[j];
  }
}

/* acc [in_w][in_c] of row r for any convolution; spare [in_c] follows it. */
static void row_plain(const mcg_conv2d_t *p, const int8_t *h, const int8_t *weight, const int8_t *rest, int32_t r,
                      int32_t *acc) {
  mcg_zero(acc, p->in_w * p->in_c);
  add_segment(p, h, weight, p->live, 0, r, acc);
  if (rest != NULL) add_segment(p, h, rest, p->in_c - p->live, p->live, r, acc);
  if (p->order != NULL) reorder(p, acc, acc + p->in_w * p->in_c);
}

/* The weights of one input channel of a 1x1 convolution: every `pitch`-th from `at` on. */
typedef struct {
  const int8_t *at;
  int32_t pitch;
} column_t;

/* Columns of input channels first ... first + n - 1, n <= 4, wherever the order puts them. */
static void find_columns(const mcg_conv2d_t *p, const int8_t *weight, const int8_t *rest, int32_t first, int32_t n,
                         column_t column[MCG_COLUMNS]) {
  const int32_t resting = p->in_c - p->live;
  MCG_ROLLED for (int32_t j = 0; j < p->in_c; ++j) {
    const int32_t k = p->order[j] - first;
    if (k < 0 || k >= n) continue;
    column[k].at = j < p->live ? weight + j : rest + j - p->live;
    column[k].pitch = j < p->live ? p->live : resting;
  }
}

/* A column of n weights as dot.h wants it: groups of four elements, `next` from one to the next. */
static MCG_APART void widen_column(const int8_t *w, int32_t pitch, int32_t n, int16_t *to, int32_t next) {
  const int32_t swapped = MCG_DUAL_MAC; /* the second and the third of a group */
  MCG_ROLLED for (; n >= 4; n -= 4, w += 4 * pitch, to += next) {
    const uint32_t a = (uint32_t)w[0], b = (uint32_t)w[pitch], c = (uint32_t)w[2 * pitch], d = (uint32_t)w[3 * pitch];
    mcg_store4_aligned(to, mcg_pkhbt(a, swapped ? c : b));
    mcg_store4_aligned(to + 2, mcg_pkhbt(swapped ? b : c, d));
  }
  MCG_ROLLED for (int32_t i = 0; n > 0 && i < 4; ++i) to[swapped ? (i & 1) * 2 + (i >> 1) : i] = i < n ? w[i * pitch] : 0;
}

/* to [4 * round4(n)] as mcg_widen leaves it, from outputs o ... o + n - 1 of the first `columns` of column. */
static void widen_columns(const column_t column[MCG_COLUMNS], int32_t o, int32_t n, int32_t columns, int16_t *to) {
  const int32_t next = MCG_DUAL_MAC ? 4 * MCG_COLUMNS : 4, apart = MCG_DUAL_MAC ? 4 : mcg_round4(n);
  for (int32_t k = 0; k < MCG_COLUMNS; ++k) {
    const column_t c = column[k < columns ? k : 0]; /* the product with what is no column is not read */
    widen_column(c.at + o * c.pitch, c.pitch, n, to + k * apart, next);
  }
}

/* A 1x1 convolution, four channels of a block of rows at a time.
 * scratch: int16 [min(round4(out_c), OUTPUTS)][4], int32 [positions of a block][4] */
static void pointwise(const mcg_conv2d_t *p, const int8_t *h, const int8_t *weight, const int8_t *rest,
                      const mcg_chain_t *chain, void *scratch) {
  const int32_t rows = mcg_block_rows(p, POSITIONS), outputs = p->out_c;
  if (MCG_MVE) {
    mcg_pointwise_input_grad_mve(p, h, weight, rest, chain, scratch, mcg_min(mcg_round4(outputs), OUTPUTS), rows);
    return;
  }
  int16_t *columns = (int16_t *)scratch;
  int32_t *acc = (int32_t *)scratch + 2 * mcg_min(mcg_round4(outputs), OUTPUTS);
  mcg_block_t block = {acc, MCG_COLUMNS, 0, 0, p->in_w, p->in_c, 0, 0};
  column_t column[MCG_COLUMNS];
  for (block.row = 0; block.row < p->in_h; block.row += rows) {
    block.rows = mcg_min(rows, p->in_h - block.row);
    for (block.first = 0; block.first < p->in_c; block.first += MCG_COLUMNS) {
      const int32_t positions = block.rows * p->in_w;
      block.n = mcg_min(MCG_COLUMNS, p->in_c - block.first);
      if (p->order != NULL) find_columns(p, weight, rest, block.first, block.n, column);
      for (int32_t o = 0; o < outputs; o += OUTPUTS) {
        const int32_t n = mcg_min(OUTPUTS, outputs - o);
        if (p->order != NULL) widen_columns(column, o, n, block.n, columns);
        else mcg_widen(weight + o * p->live + block.first, n, p->live, block.n, columns);
        mcg_multiply(h + block.row * p->in_w * outputs + o, positions, n, outputs, columns, block.acc, o > 0);
      }
      mcg_chain_block(chain, &block);
    }
  }
}

/* h [out_h][out_w][out_c], weight [O][kh][kw][live], rest [O][kh][kw][C - live] or null; scratch of a 1x1 convolution
 * as above, of any other int32 [in_w][in_c], and [in_c] more when there is an order */
void mcg_conv2d_input_grad(const mcg_conv2d_t *p, const int8_t *h, const int8_t *weight, const int8_t *rest,
                           const mcg_chain_t *chain, void *scratch) {
  if (MCG_WIDE && mcg_conv2d_input_grad_wide(p, h, weight, rest, chain)) return;
  int32_t *acc = (int32_t *)scratch;
  mcg_chain_start(chain);
  if (!MCG_USES_WINDOW_GRADS || mcg_is_pointwise(p)) {
    pointwise(p, h, weight, rest, chain, scratch);
    return;
  }
  for (int32_t r = 0; r < p->in_h; ++r) {
    row_plain(p, h, weight, rest, r, acc);
    mcg_chain_row(chain, r, p->in_w * p->in_c, acc);
  }
}
