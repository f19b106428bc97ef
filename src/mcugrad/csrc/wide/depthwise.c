/* Depthwise convolution, 16 channels at a time. */
#include "wide.h"
#include "windows.h"

/* Output row y [across] of n channels, `pixel` bytes apart; height and quads are constants where that pays. */
MCG_INLINE void row(const mcg_lines_t *l, const mcg_windows_t *s, int32_t height, int32_t quads, mcg_wide_t start,
                    const mcg_scale_t *scale, int32_t offset, int32_t across, int32_t n, int32_t pixel, int8_t *y) {
  const mcg_wide_t *line[MCG_TALLEST];
  mcg_wide_t weight[MCG_TALLEST * MCG_TALLEST / 4];
  for (int32_t k = 0; k < height; ++k) line[k] = l->line[k];
  for (int32_t k = 0; k < height * quads; ++k) weight[k] = s->weight[k];
  for (int32_t j = 0; j < across; ++j, y += pixel) {
    const mcg_wide_t acc = mcg_window_sum(line, weight, j * s->step_w, height, quads, start);
    mcg_store_bytes(y, mcg_narrow(mcg_clamp_wide(mcg_mbqm_lanes(acc, scale, offset), -128, 127)), n);
  }
}

static void any_row(const mcg_lines_t *l, const mcg_windows_t *s, mcg_wide_t start, const mcg_scale_t *scale,
                    int32_t offset, int32_t across, int32_t n, int32_t pixel, int8_t *y) {
  if (s->height == 3 && s->quads == 1) row(l, s, 3, 1, start, scale, offset, across, n, pixel, y);
  else if (s->height == 5 && s->quads == 2) row(l, s, 5, 2, start, scale, offset, across, n, pixel, y);
  else if (s->height == 7 && s->quads == 2) row(l, s, 7, 2, start, scale, offset, across, n, pixel, y);
  else row(l, s, s->height, s->quads, start, scale, offset, across, n, pixel, y);
}

int32_t mcg_depthwise_wide(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight,
                           const int32_t *bias, int8_t *y) {
  if (p->kernel_h > MCG_TALLEST || p->kernel_w > MCG_TALLEST || !mcg_long_shifts(p->shift, p->out_c, 0)) return 0;
  const mcg_axis_t down = {0, 1, p->kernel_h}, right = {0, 1, p->kernel_w};
  mcg_windows_t s = {.top = -p->pad_top, .left = -p->pad_left, .step_h = p->stride_h, .step_w = p->stride_w};
  mcg_lines_t l;
  for (int32_t c = 0; c < p->in_c; c += MCG_WIDTH) {
    const int32_t n = mcg_at_most(MCG_WIDTH, p->in_c - c);
    const mcg_source_t from = {x + c, p->in_h, p->in_w, p->in_c, r->x_rows, n, p->x_zero};
    const mcg_scale_t scale = mcg_scale_of(p->multiplier + c, p->shift + c, n);
    mcg_window_weights(&s, weight + c, p->kernel_w, p->in_c, n, &down, &right);
    const mcg_wide_t start = mcg_load_some(bias + c, n) - s.sum * (128 + p->x_zero);
    for (int32_t ox = 0, across; ox < p->out_w; ox += across) {
      across = mcg_windows_across(&s, p->out_w - ox);
      mcg_lines_start(&l, &s, r->first, ox, across);
      for (int32_t oy = r->first; oy < r->last; ++oy) {
        int8_t *to = mcg_row_out(y, oy, r->y_rows, p->out_w * p->out_c) + ox * p->out_c + c;
        mcg_lines_move(&l, &s, &from, oy);
        any_row(&l, &s, start, &scale, 2 * p->y_zero + 1, across, n, p->out_c, to);
      }
    }
  }
  return 1;
}
