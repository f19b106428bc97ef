/* Sums over sliding windows of 16 channels at a time.
 *
 * A line is a row of the source in which element j holds columns j ... j + 3 of each channel, made unsigned, so that one
 * mcg_dot4 meets four taps of each channel.
 */
#ifndef MCG_WINDOWS_H
#define MCG_WINDOWS_H

#include "ops/rows.h"
#include "product.h"

#define MCG_LINES 1024 /* elements of all lines that are kept */
#define MCG_TALLEST 16 /* rows of a window; taller ones are left to the plain kernels, as are wider ones */

/* n channels of a value; what lies outside reads as `zero`. */
typedef struct {
  const int8_t *x; /* at the first of the channels */
  int32_t height, width;
  int32_t pixel;   /* bytes from one to the next */
  int32_t rows, pitch;
  int32_t n, zero;
} mcg_source_t;

/* Windows of `height` rows and `quads` times four columns; window (i, j) begins at row top + i * step_h and column
 * left + j * step_w. */
typedef struct {
  int32_t height, quads, top, left, step_h, step_w;
  mcg_wide_t weight[MCG_TALLEST * MCG_TALLEST / 4];
  mcg_wide_t sum; /* of all weights of each channel */
} mcg_windows_t;

/* Taps first, first + step ... of a kernel along one axis; count of them. */
typedef struct {
  int32_t first, step, count;
} mcg_axis_t;

/* The weights w [.][kernel_w][channels] of n channels at the taps of both axes. */
static inline void mcg_window_weights(mcg_windows_t *s, const int8_t *w, int32_t kernel_w, int32_t channels, int32_t n,
                                      const mcg_axis_t *y, const mcg_axis_t *x) {
  mcg_wide_t *to = s->weight;
  s->height = y->count, s->quads = mcg_groups(x->count), s->sum = (mcg_wide_t){0};
  for (int32_t i = 0; i < y->count; ++i) {
    const int8_t *row = w + ((y->first + i * y->step) * kernel_w + x->first) * channels;
    for (int32_t j = 0; j < x->count; j += 4, row += 4 * x->step * channels) {
      s->sum += mcg_pack_terms((int8_t *)to++, 64, row, x->step * channels, n, mcg_at_most(4, x->count - j));
    }
  }
}

/* line [columns + 3] = row of the source: element 3 has the pixels at `left` and after it, the three before are of no use.
 * n is the source's, a constant where that pays. */
MCG_INLINE void mcg_fill_line_of(const mcg_source_t *s, int32_t n, int32_t row, int32_t left, int32_t columns,
                                 mcg_wide_t *line) {
  const mcg_uwide_t outside = (mcg_uwide_t)mcg_splat((int32_t)((uint32_t)(s->zero + 128) << 24));
  const int32_t end = columns + 3, pixel = s->pixel;
  const mcg_wide_t *const last = line + end;
  mcg_uwide_t v = outside;
  if (row >= 0 && row < s->height) {
    const int32_t first = left < 0 ? mcg_at_most(-left, end) : 0;
    const mcg_wide_t *const inner = line + first, *const outer = line + mcg_at_most(s->width - left, end);
    const int8_t *at = mcg_row(s->x, row, s->rows, s->pitch) + (left + first) * pixel;
    for (; line < inner; ++line) v = v >> 8 | outside, *line = (mcg_wide_t)v;
    for (; line < outer; ++line, at += pixel) {
      const mcg_bytes_t pixels = mcg_load_bytes(at, n) ^ -128;
      v = v >> 8 | (mcg_uwide_t)mcg_unsigned(pixels) << 24, *line = (mcg_wide_t)v;
    }
  }
  for (; line < last; ++line) v = v >> 8 | outside, *line = (mcg_wide_t)v;
}

static inline void mcg_fill_line(const mcg_source_t *s, int32_t row, int32_t left, int32_t columns, mcg_wide_t *line) {
  if (s->n == MCG_WIDTH) mcg_fill_line_of(s, MCG_WIDTH, row, left, columns, line);
  else mcg_fill_line_of(s, s->n, row, left, columns, line);
}

/* The lines of a window's rows, which move down with it. */
typedef struct {
  mcg_wide_t lines[MCG_LINES];
  const mcg_wide_t *line[MCG_TALLEST];
  int32_t left, columns, first, next; /* rows of the source: the first that was fetched, the next to fetch */
} mcg_lines_t;

/* Windows of a row that fit into the lines. */
static inline int32_t mcg_windows_across(const mcg_windows_t *s, int32_t outputs) {
  const int32_t columns = MCG_LINES / s->height - 4 * s->quads;
  return mcg_at_most(outputs, columns / s->step_w + 1);
}

static inline void mcg_lines_start(mcg_lines_t *l, const mcg_windows_t *s, int32_t i, int32_t j, int32_t across) {
  l->left = s->left + j * s->step_w, l->columns = (across - 1) * s->step_w + 4 * (s->quads - 1) + 1;
  l->first = l->next = s->top + i * s->step_h;
}

/* line [height] for the windows of row i */
static inline void mcg_lines_move(mcg_lines_t *l, const mcg_windows_t *s, const mcg_source_t *from, int32_t i) {
  const int32_t top = s->top + i * s->step_h;
  if (l->next < top) l->next = top;
  for (; l->next < top + s->height; ++l->next) {
    const int32_t slot = (l->next - l->first) % s->height;
    mcg_fill_line(from, l->next, l->left, l->columns, l->lines + slot * (l->columns + 3));
  }
  for (int32_t k = 0; k < s->height; ++k) l->line[k] = l->lines + (top + k - l->first) % s->height * (l->columns + 3) + 3;
}

/* start + the sum over the window whose first column is `at`; height and quads are constants where that pays. */
MCG_INLINE mcg_wide_t mcg_window_sum(const mcg_wide_t *const *line, const mcg_wide_t *weight, int32_t at, int32_t height,
                                     int32_t quads, mcg_wide_t start) {
  for (int32_t k = 0; k < height; ++k) {
    for (int32_t q = 0; q < quads; ++q) start = mcg_dot4(start, line[k][at + 4 * q], weight[k * quads + q]);
  }
  return start;
}

#endif
