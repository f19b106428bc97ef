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

/* width, words and n are constants where that pays. */
MCG_INLINE void row(const mcg_columns_t *c, const mcg_windows_t *s, int32_t width, int32_t words, int32_t n,
                    const output_t *o) {
  mcg_wide_t weight[MCG_TALLEST * MCG_TALLEST / 4];
  const output_t to = *o;
  const int32_t step = s->step_w, pitch = c->columns;
  const mcg_uwide_t *word = c->word;
  int8_t *y = to.y;
  for (int32_t k = 0; k < width * words; ++k) weight[k] = s->weight[k];
  for (int32_t j = 0; j < to.across; ++j, word += step, y += to.pixel) {
    const mcg_wide_t acc = mcg_window_sum(word, pitch, weight, width, words, to.start);
    mcg_store_bytes(y, mcg_narrow(mcg_clamp_wide(mcg_mbqm_lanes(acc, &to.scale, to.offset), -128, 127)), n);
  }
}

MCG_INLINE void any_row(const mcg_columns_t *c, const mcg_windows_t *s, int32_t n, const output_t *o) {
  if (s->width == 3 && s->words == 1) row(c, s, 3, 1, n, o);
  else if (s->width == 5 && s->words == 2) row(c, s, 5, 2, n, o);
  else if (s->width == 7 && s->words == 2) row(c, s, 7, 2, n, o);
  else row(c, s, s->width, s->words, n, o);
}

int32_t mcg_depthwise_wide(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight,
                           const int32_t *bias, int8_t *y) {
  if (p->kernel_h > MCG_TALLEST || p->kernel_w > MCG_TALLEST || !mcg_long_shifts(p->shift, p->out_c, 0)) return 0;
  const mcg_axis_t down = {0, 1, p->kernel_h}, right = {0, 1, p->kernel_w};
  mcg_windows_t s = {.top = -p->pad_top, .left = -p->pad_left, .step_h = p->stride_h, .step_w = p->stride_w};
  mcg_columns_t columns;
  for (int32_t c = 0; c < p->in_c; c += MCG_WIDTH) {
    const int32_t n = mcg_at_most(MCG_WIDTH, p->in_c - c);
    const mcg_source_t from = {x + c, p->in_h, p->in_w, p->in_c, r->x_rows, n, p->x_zero};
    output_t to = {NULL, 0, p->out_c, n, {0}, mcg_scale_of(p->multiplier + c, p->shift + c, n), 2 * p->y_zero + 1};
    mcg_window_weights(&s, weight + c, p->kernel_w, p->in_c, n, &down, &right);
    if (x == y && mcg_windows_across(&s, p->out_w) < p->out_w) return 0; /* or columns would be read after they are written */
    to.start = mcg_load_some(bias + c, n) - s.sum * (128 + p->x_zero);
    for (int32_t ox = 0; ox < p->out_w; ox += to.across) {
      to.across = mcg_windows_across(&s, p->out_w - ox);
      mcg_columns_start(&columns, &s, &from, r->first, ox, to.across);
      for (int32_t oy = r->first; oy < r->last; ++oy) {
        to.y = mcg_row_out(y, oy, r->y_rows, p->out_w * p->out_c) + ox * p->out_c + c;
        mcg_columns_move(&columns, &s, &from, oy);
        if (n == MCG_WIDTH) any_row(&columns, &s, MCG_WIDTH, &to);
        else any_row(&columns, &s, n, &to);
      }
    }
  }
  return 1;
}
