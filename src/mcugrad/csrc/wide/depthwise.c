/* Depthwise convolution, 16 channels at a time. */
#include "wide.h"
#include "windows.h"

/* Output pixels of a row, 16 channels or `n` of them at y. */
typedef struct {
  int8_t *y;
  int32_t across, pixel, n; /* pixel: bytes from one to the next */
  mcg_wide_t start;
  mcg_output_scale_t scale;
  mcg_wide_t factor;
} output_t;

/* Windows j ... j + outputs - 1; width, step, outputs and n are constants where that pays. */
MCG_INLINE void tile(const mcg_window_row_t *r, const output_t *to, int32_t j, int32_t width, int32_t step, int outputs,
                     int32_t n) {
  mcg_wide_t acc[MCG_ACROSS];
  mcg_window_sums(r, j, width, step, outputs, to->start, acc);
  for (int i = outputs; i < MCG_ACROSS; ++i) acc[i] = acc[0];
  const mcg_four_t v = mcg_requantize_four(acc, &to->scale, &to->scale, to->factor);
#pragma GCC unroll 4
  for (int i = 0; i < outputs; ++i) mcg_store_bytes(to->y + (j + i) * to->pixel, mcg_quarter_bytes(v, i), n);
}

/* The last tile steps back and computes some windows again where windows are lacking. */
MCG_INLINE void row(const mcg_window_row_t *r, const output_t *to, int32_t width, int32_t step, int32_t n) {
  if (to->across < MCG_ACROSS) {
    for (int32_t j = 0; j < to->across; ++j) tile(r, to, j, width, step, 1, n);
    return;
  }
  for (int32_t j = 0; j < to->across; j += MCG_ACROSS) {
    tile(r, to, mcg_at_most(j, to->across - MCG_ACROSS), width, step, MCG_ACROSS, n);
  }
}

MCG_INLINE void any_row(const mcg_window_row_t *r, const output_t *to, int32_t width, int32_t step, int32_t n) {
  if (width == 3 && step == 1) row(r, to, 3, 1, n);
  else if (width == 3 && step == 2) row(r, to, 3, 2, n);
  else if (width == 5 && step == 1) row(r, to, 5, 1, n);
  else if (width == 7 && step == 1) row(r, to, 7, 1, n);
  else if (width == 7 && step == 2) row(r, to, 7, 2, n);
  else row(r, to, width, step, n);
}

int32_t mcg_depthwise_wide(const mcg_conv2d_t *p, const mcg_rows_t *rows, const int8_t *x, const int8_t *weight,
                           const int32_t *bias, int8_t *y) {
  if (p->kernel_h > MCG_TALLEST || p->kernel_w > MCG_TALLEST || !mcg_long_shifts(p->shift, p->out_c)) return 0;
  const mcg_axis_t down = {0, 1, p->kernel_h}, right = {0, 1, p->kernel_w};
  mcg_windows_t s;
  mcg_columns_t columns;
  s.top = -p->pad_top, s.left = -p->pad_left, s.step_h = p->stride_h, s.step_w = p->stride_w;
  for (int32_t c = 0; c < p->in_c; c += MCG_WIDTH) {
    const int32_t n = mcg_at_most(MCG_WIDTH, p->in_c - c);
    const mcg_source_t from = {x + c, p->in_h, p->in_w, p->in_c, rows->x_rows, n, p->x_zero};
    output_t to = {NULL, 0, p->out_c, n, {0}, mcg_output_scale_of(p->multiplier + c, p->shift + c, n, p->y_zero), {0}};
    to.factor = mcg_pair_words(to.scale.factor, to.scale.factor);
    mcg_window_weights(&s, weight + c, p->kernel_w, p->in_c, n, &down, &right, rows->last - rows->first);
    if (x == y && mcg_windows_across(&s, p->out_w) < p->out_w) return 0; /* or columns would be read after they are written */
    to.start = mcg_load_some(bias + c, n) - s.sum * (MCG_FLIP + p->x_zero);
    for (int32_t ox = 0; ox < p->out_w; ox += to.across) {
      to.across = mcg_windows_across(&s, p->out_w - ox);
      mcg_columns_start(&columns, &s, &from, rows->first, ox, to.across);
      for (int32_t oy = rows->first; oy < rows->last; ++oy) {
        to.y = mcg_row_out(y, oy, rows->y_rows, p->out_w * p->out_c) + ox * p->out_c + c;
        const mcg_window_row_t r = mcg_columns_move(&columns, &s, &from, (oy - rows->first) * p->stride_h);
        if (n == MCG_WIDTH) any_row(&r, &to, s.width, s.step_w, MCG_WIDTH);
        else any_row(&r, &to, s.width, s.step_w, n);
      }
    }
  }
  return 1;
}
