/* Depthwise convolution, 16 channels at a time. */
#include "wide.h"
#include "windows.h"

/* Output pixels of a row, 16 channels or `n` of them at y. */
typedef struct {
  int8_t *y;
  int32_t across, pixel, n; /* pixel: bytes from one to the next */
  mcg_wide_t start;
  mcg_scale_t scale;
  int32_t offset;
} output_t;

/* height, quads and n are constants where that pays. */
MCG_INLINE void row(const mcg_lines_t *l, const mcg_windows_t *s, int32_t height, int32_t quads, int32_t n,
                    const output_t *o) {
  const mcg_wide_t *line[MCG_TALLEST];
  mcg_wide_t weight[MCG_TALLEST * MCG_TALLEST / 4];
  const output_t to = *o;
  const int32_t step = s->step_w;
  int8_t *y = to.y;
  for (int32_t k = 0; k < height; ++k) line[k] = l->line[k];
  for (int32_t k = 0; k < height * quads; ++k) weight[k] = s->weight[k];
  for (int32_t j = 0, at = 0; j < to.across; ++j, at += step, y += to.pixel) {
    const mcg_wide_t acc = mcg_window_sum(line, weight, at, height, quads, to.start);
    mcg_store_bytes(y, mcg_narrow(mcg_clamp_wide(mcg_mbqm_lanes(acc, &to.scale, to.offset), -128, 127)), n);
  }
}

MCG_INLINE void any_row(const mcg_lines_t *l, const mcg_windows_t *s, int32_t n, const output_t *o) {
  if (s->height == 3 && s->quads == 1) row(l, s, 3, 1, n, o);
  else if (s->height == 5 && s->quads == 2) row(l, s, 5, 2, n, o);
  else if (s->height == 7 && s->quads == 2) row(l, s, 7, 2, n, o);
  else row(l, s, s->height, s->quads, n, o);
}

int32_t mcg_depthwise_wide(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight,
                           const int32_t *bias, int8_t *y) {
  if (p->kernel_h > MCG_TALLEST || p->kernel_w > MCG_TALLEST || !mcg_long_shifts(p->shift, p->out_c, 0)) return 0;
  const mcg_axis_t down = {0, 1, p->kernel_h}, right = {0, 1, p->kernel_w};
  mcg_windows_t s = {.top = -p->pad_top, .left = -p->pad_left, .step_h = p->stride_h, .step_w = p->stride_w};
  mcg_lines_t l;
  for (int32_t c = 0; c < p->in_c; c += MCG_WIDTH) {
    const int32_t n = mcg_at_most(MCG_WIDTH, p->in_c - c);
    const mcg_source_t from = {x + c, p->in_h, p->in_w, p->in_c, r->x_rows, p->in_w * p->in_c, n, p->x_zero};
    output_t to = {NULL, 0, p->out_c, n, {0}, mcg_scale_of(p->multiplier + c, p->shift + c, n), 2 * p->y_zero + 1};
    mcg_window_weights(&s, weight + c, p->kernel_w, p->in_c, n, &down, &right);
    if (x == y && mcg_windows_across(&s, p->out_w) < p->out_w) return 0; /* or columns would be read after they are written */
    to.start = mcg_load_some(bias + c, n) - s.sum * (128 + p->x_zero);
    for (int32_t ox = 0; ox < p->out_w; ox += to.across) {
      to.across = mcg_windows_across(&s, p->out_w - ox);
      mcg_lines_start(&l, &s, r->first, ox, to.across);
      for (int32_t oy = r->first; oy < r->last; ++oy) {
        to.y = mcg_row_out(y, oy, r->y_rows, p->out_w * p->out_c) + ox * p->out_c + c;
        mcg_lines_move(&l, &s, &from, oy);
        if (n == MCG_WIDTH) any_row(&l, &s, MCG_WIDTH, &to);
        else any_row(&l, &s, n, &to);
      }
    }
  }
  return 1;
}
