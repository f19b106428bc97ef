/* Sums over sliding windows of 16 channels at a time.
 *
 * While a window moves down, each column of the source keeps its last rows as bytes of one or more words, made unsigned,
 * so that one mcg_dot4 meets four taps of each channel; a step down shifts the new rows in.
 */
#ifndef MCG_WINDOWS_H
#define MCG_WINDOWS_H

#include "ops/rows.h"
#include "product.h"

#define MCG_WORDS 1024 /* of all columns */
#define MCG_TALLEST 16 /* rows of a window; taller ones are left to the plain kernels, as are wider ones */

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
  int32_t height, width, words, top, left, step_h, step_w;
  mcg_wide_t weight[MCG_TALLEST * MCG_TALLEST / 4]; /* [width][words]: the last tap is the last byte */
  mcg_wide_t sum;                                   /* of all weights of each channel */
} mcg_windows_t;

/* Taps first, first + step ... of a kernel along one axis; count of them. */
typedef struct {
  int32_t first, step, count;
} mcg_axis_t;

/* The weights w [.][kernel_w][channels] of n channels at the taps of both axes. */
static inline void mcg_window_weights(mcg_windows_t *s, const int8_t *w, int32_t kernel_w, int32_t channels, int32_t n,
                                      const mcg_axis_t *y, const mcg_axis_t *x) {
  const int32_t words = mcg_groups(y->count), pitch = y->step * kernel_w * channels;
  mcg_wide_t *to = s->weight;
  s->height = y->count, s->width = x->count, s->words = words, s->sum = (mcg_wide_t){0};
  for (int32_t j = 0; j < x->count; ++j) {
    const int8_t *tap = w + (y->first * kernel_w + x->first + j * x->step) * channels;
    for (int32_t k = 0, rows = y->count - 4 * (words - 1); k < words; ++k, tap += rows * pitch, rows = 4, ++to) {
      s->sum += mcg_pack_terms((int8_t *)to, 64, tap, pitch, n, rows);
      if (rows < 4) *to = (mcg_wide_t)((mcg_uwide_t)*to << (8 * (4 - rows)));
    }
  }
}

/* The columns under a row of windows. */
typedef struct {
  mcg_uwide_t word[MCG_WORDS]; /* [words][columns] */
  int32_t columns, left;       /* left: the source's column of the first */
  int32_t next;                /* the source's row to shift in */
} mcg_columns_t;

/* Windows of a row whose columns find room. */
static inline int32_t mcg_windows_across(const mcg_windows_t *s, int32_t outputs) {
  return mcg_at_most(outputs, (MCG_WORDS / s->words - s->width) / s->step_w + 1);
}

static inline void mcg_fill_words(mcg_uwide_t *word, int32_t n, mcg_uwide_t v) {
  for (int32_t i = 0; i < n; ++i) word[i] = v;
}

/* Before the windows (i, j) ... (i, j + across - 1).  Rows above the source are in the columns already. */
static inline void mcg_columns_start(mcg_columns_t *c, const mcg_windows_t *s, const mcg_source_t *from, int32_t i, int32_t j,
                                     int32_t across) {
  const mcg_uwide_t outside = (mcg_uwide_t)mcg_splat((int32_t)((uint32_t)(from->zero + 128) * 0x01010101u));
  const int32_t top = s->top + i * s->step_h;
  c->columns = (across - 1) * s->step_w + s->width;
  c->left = s->left + j * s->step_w;
  c->next = top < 0 ? 0 : top;
  mcg_fill_words(c->word, s->words * c->columns, outside);
}

/* New rows at one of the columns: row i at row[i] + column * step[i]. */
typedef struct {
  const int8_t *row[MCG_TALLEST];
  int32_t step[MCG_TALLEST];
  int32_t count;
} mcg_fresh_t;

/* Shifts `fresh` rows into `columns` columns of `words` words, `pitch` apart; fresh, words and n are constants where that
 * pays. */
MCG_INLINE void mcg_shift_in(mcg_uwide_t *word, int32_t pitch, const mcg_fresh_t *new, int32_t columns, int32_t fresh,
                             int32_t words, int32_t n) {
  for (int32_t j = 0; j < columns; ++j, ++word) {
    mcg_uwide_t w[MCG_TALLEST / 4];
    for (int32_t k = 0; k < words; ++k) w[k] = word[k * pitch];
    for (int32_t i = 0; i < fresh; ++i) {
      const mcg_bytes_t pixels = mcg_load_bytes(new->row[i] + j * new->step[i], n) ^ -128;
      for (int32_t k = 0; k + 1 < words; ++k) w[k] = w[k] >> 8 | w[k + 1] << 24;
      w[words - 1] = w[words - 1] >> 8 | (mcg_uwide_t)mcg_unsigned(pixels) << 24;
    }
    for (int32_t k = 0; k < words; ++k) word[k * pitch] = w[k];
  }
}

MCG_INLINE void mcg_shift_in_any(mcg_uwide_t *word, int32_t pitch, const mcg_fresh_t *new, int32_t columns, int32_t words,
                                 int32_t n) {
  if (words == 1 && new->count == 1) mcg_shift_in(word, pitch, new, columns, 1, 1, n);
  else if (words == 1 && new->count == 2) mcg_shift_in(word, pitch, new, columns, 2, 1, n);
  else if (words == 1) mcg_shift_in(word, pitch, new, columns, new->count, 1, n);
  else if (words == 2 && new->count == 1) mcg_shift_in(word, pitch, new, columns, 1, 2, n);
  else if (words == 2 && new->count == 2) mcg_shift_in(word, pitch, new, columns, 2, 2, n);
  else if (words == 2) mcg_shift_in(word, pitch, new, columns, new->count, 2, n);
  else mcg_shift_in(word, pitch, new, columns, new->count, words, n);
}

/* The columns for the windows of row i. */
static inline void mcg_columns_move(mcg_columns_t *c, const mcg_windows_t *s, const mcg_source_t *from, int32_t i) {
  const int32_t top = s->top + i * s->step_h, first = c->left < 0 ? -c->left : 0, bytes = from->width * from->pixel;
  const int32_t last = mcg_at_most(from->width - c->left, c->columns);
  mcg_bytes_t outside = {0};
  mcg_fresh_t new;
  outside += (int8_t)from->zero, new.count = 0;
  if (c->next < top) c->next = top;
  for (; c->next < top + s->height; ++c->next, ++new.count) {
    const int inside = c->next < from->height;
    const int8_t *const row = inside ? mcg_row(from->x, c->next, from->rows, bytes) + (c->left + first) * from->pixel : NULL;
    new.row[new.count] = inside ? row : (const int8_t *)&outside;
    new.step[new.count] = inside ? from->pixel : 0;
  }
  if (from->n == MCG_WIDTH) mcg_shift_in_any(c->word + first, c->columns, &new, last - first, s->words, MCG_WIDTH);
  else mcg_shift_in_any(c->word + first, c->columns, &new, last - first, s->words, from->n);
}

/* start + the sum over the window whose first column is `at`; width and words are constants where that pays. */
MCG_INLINE mcg_wide_t mcg_window_sum(const mcg_uwide_t *word, int32_t pitch, const mcg_wide_t *weight, int32_t width,
                                     int32_t words, mcg_wide_t start) {
  for (int32_t j = 0; j < width; ++j) {
    for (int32_t k = 0; k < words; ++k) start = mcg_dot4(start, (mcg_wide_t)word[k * pitch + j], weight[j * words + k]);
  }
  return start;
}

#endif
