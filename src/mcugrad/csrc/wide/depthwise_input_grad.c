/* Input gradient of a depthwise convolution, 16 channels at a time: for each remainder of the stride the positions are
 * the sums over windows of h under every stride-th weight, in reverse. */
#include "ops/backward.h"
#include "wide.h"
#include "windows.h"

#define POSITIONS 1024 /* of a block of 16 channels */
#define CHANNELS 64    /* of a block, where there are fewer positions */

/* Positions of one axis whose distance from the padded start has one remainder of the stride: they are
 * at + stride * t for t in [first, last), and tap i of t reads h at t - taps.count + 1 + i. */
typedef struct {
  mcg_axis_t taps;
  int32_t at, first, last;
} phase_t;

/* n / stride, rounded up, for any n. */
static int32_t over(int32_t n, int32_t stride) { return n > 0 ? (n + stride - 1) / stride : -(-n / stride); }

/* Of positions [begin, end). */
static phase_t phase_of(int32_t remainder, int32_t kernel, int32_t stride, int32_t pad, int32_t begin, int32_t end) {
  const int32_t count = remainder < kernel ? (kernel - 1 - remainder) / stride + 1 : 0, at = remainder - pad;
  const phase_t phase = {{remainder + stride * (count - 1), -stride, count},
                         at, over(begin - at, stride), over(end - at, stride)};
  return phase;
}

typedef struct {
  const mcg_conv2d_t *p;
  const int8_t *weight;
  mcg_source_t h;
  mcg_block_t *b;
  int32_t *acc; /* of the 16 channels */
  mcg_windows_t windows;
  mcg_columns_t columns;
} grad_t;

/* Sums of a row: `across` of them, `step` apart. */
typedef struct {
  int32_t *to;
  int32_t across, step;
  mcg_wide_t start;
} sums_t;

/* Windows j ... j + outputs - 1; width and outputs are constants where that pays. */
MCG_INLINE void tile(const mcg_window_row_t *r, const sums_t *s, int32_t j, int32_t width, int outputs) {
  mcg_wide_t acc[MCG_ACROSS];
  mcg_window_sums(r, j, width, 1, outputs, s->start, acc);
#pragma GCC unroll 4
  for (int i = 0; i < outputs; ++i) mcg_store_wide(s->to + (j + i) * s->step, acc[i]);
}

MCG_INLINE void row(const mcg_window_row_t *r, const sums_t *s, int32_t width) {
  int32_t j = 0;
  for (; j + MCG_ACROSS <= s->across; j += MCG_ACROSS) tile(r, s, j, width, MCG_ACROSS);
  for (; j < s->across; ++j) tile(r, s, j, width, 1);
}

static void any_row(const mcg_window_row_t *r, const sums_t *s, int32_t width) {
  if (width == 3) row(r, s, 3);
  else if (width == 5) row(r, s, 5);
  else if (width == 7) row(r, s, 7);
  else row(r, s, width);
}

static int32_t *sum_at(const grad_t *g, int32_t iy, int32_t ix) {
  return g->acc + ((iy - g->b->row) * g->b->width + ix) * g->b->pitch;
}

static void no_taps(const grad_t *g, const phase_t *y, const phase_t *x) {
  for (int32_t i = y->first; i < y->last; ++i) {
    for (int32_t j = x->first; j < x->last; ++j) {
      mcg_store_wide(sum_at(g, y->at + g->p->stride_h * i, x->at + g->p->stride_w * j), (mcg_wide_t){0});
    }
  }
}

/* acc [rows][width][pitch] at the positions of two phases */
static void fill(grad_t *g, const phase_t *y, const phase_t *x) {
  const mcg_conv2d_t *p = g->p;
  mcg_windows_t *s = &g->windows;
  if (y->taps.count == 0 || x->taps.count == 0) {
    no_taps(g, y, x);
    return;
  }
  s->top = 1 - y->taps.count, s->left = 1 - x->taps.count, s->step_h = s->step_w = 1;
  mcg_window_weights(s, g->weight, p->kernel_w, p->in_c, g->h.n, &y->taps, &x->taps, y->last - y->first);
  for (int32_t j = x->first, across; j < x->last; j += across) {
    across = mcg_windows_across(s, x->last - j);
    mcg_columns_start(&g->columns, s, &g->h, y->first, j, across);
    for (int32_t i = y->first; i < y->last; ++i) {
      const mcg_window_row_t r = mcg_columns_move(&g->columns, s, &g->h, i - y->first);
      const sums_t sums = {sum_at(g, y->at + p->stride_h * i, x->at + p->stride_w * j), across, p->stride_w * g->b->pitch,
                           -MCG_FLIP * s->sum};
      any_row(&r, &sums, s->width);
    }
  }
}

static void fill_all(grad_t *g) {
  const mcg_conv2d_t *p = g->p;
  for (int32_t i = 0; i < p->stride_h; ++i) {
    const phase_t y = phase_of(i, p->kernel_h, p->stride_h, p->pad_top, g->b->row, g->b->row + g->b->rows);
    for (int32_t j = 0; j < p->stride_w; ++j) {
      const phase_t x = phase_of(j, p->kernel_w, p->stride_w, p->pad_left, 0, p->in_w);
      fill(g, &y, &x);
    }
  }
}

int32_t mcg_depthwise_input_grad_wide(const mcg_conv2d_t *p, const int8_t *h, const int8_t *weight,
                                      const mcg_chain_t *chain) {
  int32_t acc[POSITIONS * MCG_WIDTH];
  if (p->kernel_h > MCG_TALLEST || p->kernel_w > MCG_TALLEST || p->in_w > POSITIONS) return 0;
  if (p->dilation_h != 1 || p->dilation_w != 1) return 0;
  const int32_t rows = mcg_block_rows(p, POSITIONS), together = POSITIONS / (rows * p->in_w) * MCG_WIDTH;
  mcg_block_t b = {acc, mcg_min(CHANNELS, together), 0, 0, p->in_w, p->in_c, 0, 0};
  grad_t g;
  g.p = p, g.b = &b;
  mcg_chain_start(chain);
  for (b.row = 0; b.row < p->in_h; b.row += rows) {
    b.rows = mcg_min(rows, p->in_h - b.row);
    for (b.first = 0; b.first < p->in_c; b.first += b.pitch) {
      b.n = mcg_min(b.pitch, p->in_c - b.first);
      for (int32_t j = 0; j < b.n; j += MCG_WIDTH) {
        const int32_t c = b.first + j;
        const mcg_source_t from = {h + c, p->out_h, p->out_w, p->out_c, p->out_h, mcg_min(MCG_WIDTH, b.n - j), 0};
        g.h = from, g.weight = weight + c, g.acc = acc + j;
        fill_all(&g);
      }
      mcg_chain_block(chain, &b);
    }
  }
  return 1;
}
