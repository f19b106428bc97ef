/* Sums over sliding windows of 16 channels at a time.
 *
 * The rows of the source are put together in lines: word j of a line holds MCG_TERMS rows of column j, so that one mcg_dot
 * meets as many taps of each channel.  For windows that begin inside a line there are weights with zeros before them.
 */
#ifndef MCG_WINDOWS_H
#define MCG_WINDOWS_H

#include "ops/rows.h"
#include "product.h"

#define MCG_WORDS 1024 /* of all lines */
#define MCG_TALLEST 16 /* rows of a window; taller ones are left to the plain kernels, as are wider ones */
#define MCG_LINES (MCG_TALLEST / MCG_TERMS + 1)
#define MCG_ACROSS 4 /* windows summed together */

/* n channels of a value; what lies outside reads as `zero`. */
typedef struct {
  const int8_t *x; /* at the first of the channels */
  int32_t height, width;
  int32_t pixel; /* bytes from one to the next */
  int32_t rows;
  int32_t n, zero;
} mcg_source_t;

/* Windows of `height` rows and `width` columns; window (i, j) begins at row top + i * step_h and column
 * left + j * step_w. */
typedef struct {
  int32_t height, width, top, left, step_h, step_w;
  int32_t every; /* windows begin at rows 0, every, 2 * every ... of a line */
  mcg_wide_t weight[MCG_TERMS][MCG_LINES * MCG_TALLEST]; /* [lines][width] of windows that begin at row t of a line */
  mcg_wide_t sum;                                        /* of all weights of each channel */
} mcg_windows_t;

/* Taps first, first + step ... of a kernel along one axis; count of them. */
typedef struct {
  int32_t first, step, count;
} mcg_axis_t;

/* Lines under a window that begins at row t of the first. */
MCG_INLINE int32_t mcg_lines(const mcg_windows_t *s, int32_t t) { return mcg_groups(t + s->height); }

/* The weights of n channels at the taps of one column, `pitch` apart; n and every are constants where that pays.  Returns
 * their sum.  Those of windows that begin at row t of a line are those of row 0, t terms later. */
MCG_INLINE mcg_wide_t mcg_column_weights(mcg_windows_t *s, int32_t column, const int8_t *w, int32_t pitch, int32_t n,
                                         int32_t every) {
  const int32_t lines = mcg_lines(s, MCG_TERMS - every);
  mcg_uwide_t before = {0};
  mcg_wide_t sum = {0};
  for (int32_t k = 0, at = column; k < lines; ++k, at += s->width) {
    mcg_bytes_t term[4] = {{0}, {0}, {0}, {0}};
    for (int32_t i = 0; i < MCG_TERMS && MCG_TERMS * k + i < s->height; ++i, w += pitch) term[i] = mcg_load_bytes(w, n);
    const mcg_uwide_t word = (mcg_uwide_t)mcg_word_of(term);
    sum = mcg_dot(sum, mcg_splat(MCG_ONES), (mcg_wide_t)word);
    s->weight[0][at] = (mcg_wide_t)word;
    for (int32_t t = every; t < MCG_TERMS; t += every) {
      s->weight[t][at] = (mcg_wide_t)(word << (t * 32 / MCG_TERMS) | before >> (32 - t * 32 / MCG_TERMS));
    }
    before = word;
  }
  return sum;
}

/* The weights w [.][kernel_w][channels] of n channels at the taps of both axes, for `rows` of windows, step_h apart. */
static inline void mcg_window_weights(mcg_windows_t *s, const int8_t *w, int32_t kernel_w, int32_t channels, int32_t n,
                                      const mcg_axis_t *y, const mcg_axis_t *x, int32_t rows) {
  s->every = MCG_TERMS;
  while (rows > 1 && s->step_h % s->every != 0) s->every /= 2;
  const int32_t pitch = y->step * kernel_w * channels;
  s->height = y->count, s->width = x->count, s->sum = (mcg_wide_t){0};
  for (int32_t j = 0; j < x->count; ++j) {
    const int8_t *tap = w + (y->first * kernel_w + x->first + j * x->step) * channels;
    if (n == MCG_WIDTH && s->every == 1) s->sum += mcg_column_weights(s, j, tap, pitch, MCG_WIDTH, 1);
    else if (n == MCG_WIDTH) s->sum += mcg_column_weights(s, j, tap, pitch, MCG_WIDTH, s->every);
    else s->sum += mcg_column_weights(s, j, tap, pitch, n, s->every);
  }
}

/* The lines under a row of windows. */
typedef struct {
  mcg_wide_t word[MCG_WORDS]; /* [lines][columns]: a ring of lines */
  int32_t columns, left;      /* left: the source's column of the first */
  int32_t top, next;          /* the source's row of line 0; the line to fill */
} mcg_columns_t;

/* Windows of a row whose columns find room. */
static inline int32_t mcg_windows_across(const mcg_windows_t *s, int32_t outputs) {
  return mcg_at_most(outputs, (MCG_WORDS / mcg_lines(s, MCG_TERMS - 1) - s->width) / s->step_w + 1);
}

static inline mcg_bytes_t mcg_outside(const mcg_source_t *from) {
  const mcg_bytes_t zero = {0};
  return zero + (int8_t)from->zero;
}

/* Words of a first factor. */
MCG_INLINE mcg_wide_t mcg_flipped(const mcg_bytes_t row[4]) {
  return mcg_word_of(row) ^ mcg_splat((int32_t)(MCG_FLIP * (uint32_t)MCG_ONES));
}

/* Before the windows (i, j) ... (i, j + across - 1); fills what lies beside the source. */
static inline void mcg_columns_start(mcg_columns_t *c, const mcg_windows_t *s, const mcg_source_t *from, int32_t i, int32_t j,
                                     int32_t across) {
  const int32_t lines = mcg_lines(s, MCG_TERMS - 1);
  const mcg_bytes_t v = mcg_outside(from), row[4] = {v, v, v, v};
  const mcg_wide_t outside = mcg_flipped(row);
  c->columns = (across - 1) * s->step_w + s->width;
  c->left = s->left + j * s->step_w;
  c->top = s->top + i * s->step_h;
  c->next = 0;
  mcg_wide_t *word = c->word;
  for (int32_t k = 0; k < lines; ++k, word += c->columns) {
    for (int32_t l = 0; l < mcg_at_most(-c->left, c->columns); ++l) word[l] = outside;
    for (int32_t l = c->columns - 1; l >= 0 && c->left + l >= from->width; --l) word[l] = outside;
  }
}

/* Rows of a line, each from its first column on and so many bytes from column to column. */
typedef struct {
  const int8_t *at[MCG_TERMS];
  int32_t step[MCG_TERMS];
} mcg_fresh_t;

/* n is a constant where that pays. */
MCG_INLINE void mcg_fill_columns(mcg_wide_t *word, const mcg_fresh_t *rows, int32_t columns, int32_t n) {
  for (int32_t j = 0; j < columns; ++j) {
    mcg_bytes_t row[4] = {{0}, {0}, {0}, {0}};
    for (int32_t i = 0; i < MCG_TERMS; ++i) row[i] = mcg_load_bytes(rows->at[i] + j * rows->step[i], n);
    word[j] = mcg_flipped(row);
  }
}

static inline void mcg_fill_line(mcg_columns_t *c, const mcg_source_t *from, mcg_wide_t *word) {
  const int32_t first = c->left < 0 ? -c->left : 0, last = mcg_at_most(from->width - c->left, c->columns);
  const int32_t top = c->top + MCG_TERMS * c->next;
  const mcg_bytes_t outside = mcg_outside(from);
  mcg_fresh_t rows;
  for (int32_t i = 0; i < MCG_TERMS; ++i) {
    const int inside = top + i >= 0 && top + i < from->height;
    const int8_t *const row = inside ? mcg_row(from->x, top + i, from->rows, from->width * from->pixel) : NULL;
    rows.at[i] = inside ? row + (c->left + first) * from->pixel : (const int8_t *)&outside;
    rows.step[i] = inside ? from->pixel : 0;
  }
  if (from->n == MCG_WIDTH) mcg_fill_columns(word + first, &rows, last - first, MCG_WIDTH);
  else if (from->n == 8) mcg_fill_columns(word + first, &rows, last - first, 8);
  else mcg_fill_columns(word + first, &rows, last - first, from->n);
}

/* What the windows of a row are summed from. */
typedef struct {
  const mcg_wide_t *line[MCG_LINES];
  const mcg_wide_t *weight; /* [lines][width] */
  int32_t lines;
} mcg_window_row_t;

/* Fills the lines for the windows that begin i rows below the first ones. */
static inline mcg_window_row_t mcg_columns_move(mcg_columns_t *c, const mcg_windows_t *s, const mcg_source_t *from, int32_t i) {
  const int32_t t = i % MCG_TERMS, first = i / MCG_TERMS, ring = mcg_lines(s, MCG_TERMS - 1);
  mcg_window_row_t row = {{NULL}, s->weight[t], mcg_lines(s, t)};
  if (c->next < first) c->next = first;
  for (; c->next < first + row.lines; ++c->next) mcg_fill_line(c, from, c->word + c->next % ring * c->columns);
  for (int32_t k = 0; k < row.lines; ++k) row.line[k] = c->word + (first + k) % ring * c->columns;
  return row;
}

/* acc [outputs] = start + the sums over windows j ... of a row, `step` apart; width, step and outputs are constants where
 * that pays. */
MCG_INLINE void mcg_window_sums(const mcg_window_row_t *row, int32_t j, int32_t width, int32_t step, int outputs,
                                mcg_wide_t start, mcg_wide_t acc[MCG_ACROSS]) {
  const mcg_wide_t *weight = row->weight;
#pragma GCC unroll 4
  for (int i = 0; i < outputs; ++i) acc[i] = start;
  for (int32_t k = 0; k < row->lines; ++k) {
    const mcg_wide_t *word = row->line[k] + j * step;
    for (int32_t l = 0; l < width; ++l, ++word, ++weight) {
#pragma GCC unroll 4
      for (int i = 0; i < outputs; ++i) acc[i] = mcg_dot(acc[i], word[i * step], *weight);
    }
  }
}

#endif
