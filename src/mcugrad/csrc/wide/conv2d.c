/* Convolution as a product of matrices: output pixels times output channels.
 *
 * The windows of a chunk of pixels are laid out as rows of a matrix, unless the input is one already.
 */
#include "wide.h"
#include "conv2d_windows.h"
#include "product.h"

/* Columns of outputs o ... o + n - 1, and where their sums start. */
typedef struct {
  mcg_panel_t panel;
  mcg_wide_t start[MCG_WIDE_VECTORS];
  mcg_output_scale_t scale[MCG_WIDE_VECTORS];
  mcg_wide_t factor;
  int32_t o, n, groups;
} columns_t;

/* Where the sums of a vector start, and their scale. */
static void finish_columns(const conv_t *f, columns_t *c, int32_t v, mcg_wide_t sum) {
  const mcg_conv2d_t *p = f->p;
  const int32_t o = c->o + v * MCG_WIDTH, n = mcg_at_most(MCG_WIDTH, p->out_c - o);
  mcg_wide_t bias = mcg_load_some(f->bias + o, n), multiplier = mcg_load_some(p->multiplier + o, n);
  mcg_wide_t shift = mcg_unsigned(mcg_load_bytes(p->shift + o, n));
  if (n <= MCG_HALF) bias = mcg_twice(bias), multiplier = mcg_twice(multiplier), shift = mcg_twice(shift);
  c->start[v] = bias - sum * (MCG_FLIP + p->x_zero);
  c->scale[v] = mcg_output_scale_by(multiplier, shift, p->y_zero);
  c->factor = mcg_pair_words(c->scale[0].factor, c->scale[v].factor);
}

static void pack(const conv_t *f, columns_t *c, int32_t o) {
  const mcg_conv2d_t *p = f->p;
  const int32_t vectors = mcg_vectors(p->out_c - o), step = 64 * vectors, live = mcg_groups(f->live);
  c->o = o, c->n = mcg_at_most(vectors * MCG_WIDTH, p->out_c - o), c->groups = live + mcg_groups(f->resting);
  for (int32_t v = 0; v < vectors; ++v, o += MCG_WIDTH) {
    const int32_t n = mcg_at_most(MCG_WIDTH, p->out_c - o);
    int8_t *to = c->panel.bytes + 64 * v;
    mcg_wide_t sum = mcg_pack_columns(to, step, f->weight + o * f->live, f->live, n, f->live);
    if (f->resting > 0) sum += mcg_pack_columns(to + live * step, step, f->rest + o * f->resting, f->resting, n, f->resting);
    finish_columns(f, c, v, sum);
  }
}

/* y [4 / vectors rows][out_c] at the columns = v; whole: they are all of a vector's. */
MCG_INLINE void put_four(mcg_four_t v, int32_t pixel, int vectors, int whole, int32_t n, int8_t *y) {
  if (MCG_NARROW_BITS > 0 && whole && pixel == vectors * MCG_WIDTH) {
    __builtin_memcpy(y, &v, sizeof v);
    return;
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; j += vectors, y += pixel) {
    const int last = vectors - 1;
    if (vectors == 2 && whole) {
      const mcg_eight_t row = mcg_half_bytes(v, j / 2);
      __builtin_memcpy(y, &row, sizeof row);
    } else {
      if (vectors == 2) mcg_store_bytes(y, mcg_quarter_bytes(v, j), MCG_WIDTH);
      mcg_store_bytes(y + last * MCG_WIDTH, mcg_quarter_bytes(v, j + last), whole ? MCG_WIDTH : n - last * MCG_WIDTH);
    }
  }
}

/* y [rows][out_c] at the columns; rows and vectors are constants of each call. */
MCG_INLINE void put(const conv_t *f, const columns_t *c, mcg_wide_t acc[][MCG_WIDE_VECTORS], int rows, int vectors,
                    int8_t *y) {
  const int32_t pixel = f->p->out_c;
  const int together = 4 / vectors, whole = c->n == vectors * MCG_WIDTH;
#pragma GCC unroll 8
  for (int i = 0; i < rows; i += together, y += together * pixel) {
    mcg_wide_t four[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) four[j] = acc[rows == 1 ? 0 : i + j / vectors][j % vectors];
    const mcg_four_t v = mcg_requantize_four(four, &c->scale[0], &c->scale[vectors - 1], c->factor);
    if (rows == 1) {
      for (int j = 0; j < vectors; ++j) {
        mcg_store_bytes(y + j * MCG_WIDTH, mcg_quarter_bytes(v, j), mcg_at_most(MCG_WIDTH, c->n - j * MCG_WIDTH));
      }
    } else if (whole) {
      put_four(v, pixel, vectors, 1, 0, y);
    } else {
      put_four(v, pixel, vectors, 0, c->n, y);
    }
  }
}

/* The same from a [rows][terms]. */
MCG_INLINE void tile(const conv_t *f, const columns_t *c, const int8_t *a, int32_t pitch, int rows, int vectors,
                     int8_t *y) {
  mcg_wide_t acc[MCG_WIDE_ROWS][MCG_WIDE_VECTORS];
  mcg_multiply_tile(a, pitch, 4, c->groups, &c->panel, rows, vectors, c->start, acc);
  put(f, c, acc, rows, vectors, y);
}

/* y [MCG_PAIRS][out_c] at no more than 8 columns. */
MCG_INLINE void tile_of_pairs(const conv_t *f, const columns_t *c, const int8_t *a, int32_t pitch, int8_t *y) {
  const int32_t pixel = f->p->out_c;
  mcg_wide_t acc[MCG_WIDE_ROWS];
  mcg_multiply_pairs(a, pitch, 4, c->groups, &c->panel, MCG_WIDE_ROWS, c->start[0], acc);
#pragma GCC unroll 2
  for (int i = 0; i < MCG_WIDE_ROWS; i += 4, y += 8 * pixel) {
    const mcg_four_t v = mcg_requantize_four(acc + i, &c->scale[0], &c->scale[0], c->factor);
    if (pixel == MCG_HALF) {
      __builtin_memcpy(y, &v, sizeof v);
      continue;
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const mcg_halves_t pair = (mcg_halves_t)mcg_quarter_bytes(v, j);
      mcg_store_half(y + 2 * j * pixel, pair[0], c->n);
      mcg_store_half(y + (2 * j + 1) * pixel, pair[1], c->n);
    }
  }
}

static void tiles_of_pairs(const conv_t *f, const columns_t *c, const int8_t *a, int32_t pitch, int32_t pixels, int8_t *y) {
  y += c->o;
  for (int32_t i = 0; i < pixels; i += MCG_PAIRS) {
    const int32_t first = mcg_at_most(i, pixels - MCG_PAIRS);
    tile_of_pairs(f, c, a + first * pitch, pitch, y + first * f->p->out_c);
  }
}

/* The last tile steps back and computes some rows again where rows are lacking. */
MCG_INLINE void tiles(const conv_t *f, const columns_t *c, const int8_t *a, int32_t pitch, int32_t pixels, int vectors,
                      int8_t *y) {
  y += c->o;
  for (int32_t i = 0; i < pixels;) {
    const int32_t rows = pixels < MCG_WIDE_ROWS ? 1 : MCG_WIDE_ROWS;
    if (i + rows > pixels) i = pixels - rows;
    if (rows == 1) tile(f, c, a + i * pitch, pitch, 1, vectors, y + i * f->p->out_c);
    else tile(f, c, a + i * pitch, pitch, MCG_WIDE_ROWS, vectors, y + i * f->p->out_c);
    i += rows;
  }
}

/* y [pixels][out_c] from x [pixels][terms], whole groups of at most MCG_TOGETHER terms in all */
static void multiply(const conv_t *f, const int8_t *x, int32_t pixels, int8_t *y) {
  mcg_term_t words[MCG_TOGETHER];
  const int32_t groups = mcg_groups(f->live) + mcg_groups(f->resting), pitch = 4 * groups;
  const int8_t *a = mcg_word_rows(x, MCG_TERMS * groups, pixels, words);
  columns_t c;
  for (int32_t o = 0; o < f->p->out_c; o += c.n) {
    pack(f, &c, o);
    if (c.n <= MCG_HALF && pixels >= MCG_PAIRS) tiles_of_pairs(f, &c, a, pitch, pixels, y);
    else if (mcg_vectors(f->p->out_c - o) == 1) tiles(f, &c, a, pitch, pixels, 1, y);
    else tiles(f, &c, a, pitch, pixels, MCG_WIDE_VECTORS, y);
  }
}

/* Output rows that follow each other at y, the first of them oy, by way of a matrix of windows. */
static void through_windows(const conv_t *f, int32_t oy, int32_t rows, int8_t *y) {
  int8_t windows[MCG_TOGETHER + 64]; /* the last of them may be written in whole vectors */
  const int32_t most = MCG_TOGETHER / (MCG_TERMS * (mcg_groups(f->live) + mcg_groups(f->resting)));
  const int32_t width = f->p->out_w, total = rows * width;
  for (int32_t i = 0; i < total; i += most) {
    const int32_t pixels = mcg_at_most(most, total - i);
    gather_pixels(f, oy + i / width, i % width, pixels, windows);
    multiply(f, windows, pixels, y + i * f->p->out_c);
  }
}

/* The same of rows at x that are a matrix, but where y is to be; words of two terms are copies anyway. */
static void through_copy(const conv_t *f, const int8_t *x, int32_t rows, int8_t *y) {
  int8_t matrix[MCG_TOGETHER];
  copy(matrix, x, rows * f->p->in_w * f->p->in_c);
  multiply(f, matrix, rows * f->p->out_w, y);
}

#define STRIPS 16 /* rows of a kernel */

/* The rows under a row of outputs, as terms and with what lies beside them: a ring. */
typedef struct {
  mcg_term_t term[MCG_TOGETHER]; /* [kernel_h][pitch] */
  int32_t pitch, next;           /* next: the row to fill; they are counted from the padding on */
  int32_t across, groups;        /* terms under a row of the kernel, and their words */
} strips_t;

/* Returns whether they find room, and all columns in one panel. */
static int measure_strips(const conv_t *f, strips_t *s) {
  const mcg_conv2d_t *p = f->p;
  s->across = p->kernel_w * p->in_c, s->groups = mcg_groups(s->across), s->next = 0;
  s->pitch = (p->out_w - 1) * p->stride_w * p->in_c + MCG_TERMS * s->groups; /* the last word of the last window counts */
  return p->kernel_h * p->kernel_w > 1 && p->kernel_h <= STRIPS && p->order == NULL && f->resting == 0 &&
         p->out_c <= MCG_WIDE_VECTORS * MCG_WIDTH && p->kernel_h * s->pitch <= MCG_TOGETHER &&
         p->kernel_h * s->groups * MCG_TERMS <= MCG_DEEPEST;
}

/* to [pitch] = a row, counted from the padding on */
static void fill_strip(const conv_t *f, const strips_t *s, int32_t row, mcg_term_t *to) {
  const mcg_conv2d_t *p = f->p;
  const int32_t iy = row - p->pad_top, first = mcg_at_most(p->pad_left * p->in_c, s->pitch);
  const int inside = iy >= 0 && iy < p->in_h;
  const int32_t last = inside ? mcg_at_most(first + p->in_w * p->in_c, s->pitch) : first;
  const mcg_term_t outside = (mcg_term_t)p->x_zero;
  for (int32_t j = 0; j < first; ++j) to[j] = outside;
  if (inside) mcg_terms(mcg_row(f->x, iy, f->r->x_rows, p->in_w * p->in_c), last - first, to + first);
  for (int32_t j = last; j < s->pitch; ++j) to[j] = outside;
}

static void pack_strips(const conv_t *f, const strips_t *s, columns_t *c) {
  const mcg_conv2d_t *p = f->p;
  const int32_t vectors = mcg_vectors(p->out_c), step = 64 * vectors;
  c->o = 0, c->n = p->out_c, c->groups = s->groups;
  for (int32_t v = 0; v < vectors; ++v) {
    const int8_t *w = f->weight + v * MCG_WIDTH * f->live;
    const int32_t n = mcg_at_most(MCG_WIDTH, p->out_c - v * MCG_WIDTH);
    int8_t *to = c->panel.bytes + 64 * v;
    mcg_wide_t sum = {0};
    for (int32_t ky = 0; ky < p->kernel_h; ++ky, w += s->across, to += s->groups * step) {
      sum += mcg_pack_columns(to, step, w, f->live, n, s->across);
    }
    finish_columns(f, c, v, sum);
  }
}

/* Outputs ox ... ox + rows - 1 of a row, from its strips; rows and vectors are constants of each call. */
MCG_INLINE void strip_tile(const conv_t *f, const columns_t *c, const mcg_term_t *const strip[], int32_t ox, int rows,
                           int vectors, int8_t *y) {
  const int32_t step = f->p->stride_w * f->p->in_c, pitch = step * (int32_t)sizeof(mcg_term_t);
  const int8_t *b = c->panel.bytes;
  mcg_wide_t acc[MCG_WIDE_ROWS][MCG_WIDE_VECTORS];
  for (int i = 0; i < rows; ++i) {
    for (int v = 0; v < vectors; ++v) acc[i][v] = c->start[v];
  }
  for (int32_t ky = 0; ky < f->p->kernel_h; ++ky, b += 64 * vectors * c->groups) {
    mcg_multiply_rows((const int8_t *)(strip[ky] + ox * step), pitch, 4, c->groups, b, rows, vectors, acc);
  }
  put(f, c, acc, rows, vectors, y + ox * f->p->out_c);
}

/* The last tile steps back and computes some outputs again where outputs are lacking. */
MCG_INLINE void strip_tiles(const conv_t *f, const columns_t *c, const mcg_term_t *const strip[], int vectors, int8_t *y) {
  const int32_t width = f->p->out_w;
  if (width < MCG_WIDE_ROWS) {
    for (int32_t ox = 0; ox < width; ++ox) strip_tile(f, c, strip, ox, 1, vectors, y);
    return;
  }
  for (int32_t ox = 0; ox < width; ox += MCG_WIDE_ROWS) {
    strip_tile(f, c, strip, mcg_at_most(ox, width - MCG_WIDE_ROWS), MCG_WIDE_ROWS, vectors, y);
  }
}

/* All rows; a window is read from its strips where it lies. */
static void through_strips(const conv_t *f, strips_t *s, int8_t *y) {
  const mcg_conv2d_t *p = f->p;
  const mcg_term_t *strip[STRIPS];
  columns_t c;
  pack_strips(f, s, &c);
  for (int32_t oy = f->r->first; oy < f->r->last; ++oy) {
    const int32_t top = oy * p->stride_h;
    if (s->next < top) s->next = top;
    for (; s->next < top + p->kernel_h; ++s->next) fill_strip(f, s, s->next, s->term + s->next % p->kernel_h * s->pitch);
    for (int32_t ky = 0; ky < p->kernel_h; ++ky) strip[ky] = s->term + (top + ky) % p->kernel_h * s->pitch;
    int8_t *const to = mcg_row_out(y, oy, f->r->y_rows, p->out_w * p->out_c);
    if (mcg_vectors(p->out_c) == 1) strip_tiles(f, &c, strip, 1, to);
    else strip_tiles(f, &c, strip, MCG_WIDE_VECTORS, to);
  }
}

/* Whether the input is the matrix. */
static int in_place(const conv_t *f) {
  const mcg_conv2d_t *p = f->p;
  return f->live == p->in_c && p->order == NULL && p->in_c % MCG_TERMS == 0 && p->stride_h == 1 && p->stride_w == 1 &&
         p->in_h == p->out_h && p->in_w == p->out_w && p->pad_top == 0 && p->pad_left == 0;
}

int32_t mcg_conv2d_wide(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight,
                        const int8_t *rest, const int32_t *bias, int8_t *y) {
  const int32_t taps = p->kernel_h * p->kernel_w, row = p->in_w * p->in_c;
  const conv_t f = {p, r, x, weight, rest, bias, taps * p->live, taps * (p->in_c - p->live)};
  if (p->groups != 1 || taps * p->in_c > MCG_DEEPEST - 6 || !mcg_long_shifts(p->shift, p->out_c)) return 0;
  strips_t strips;
  if (measure_strips(&f, &strips)) {
    through_strips(&f, &strips, y);
    return 1;
  }
  const int matrix = in_place(&f) && row <= MCG_TOGETHER, overlap = mcg_overlap(p, r, x, y);
  for (int32_t oy = r->first, rows; oy < r->last; oy += rows) {
    const int32_t slot = mcg_ring_slot(oy, r->y_rows), from = mcg_ring_slot(oy, r->x_rows);
    rows = mcg_at_most(r->last - oy, r->y_rows - slot);
    int8_t *to = y + slot * p->out_w * p->out_c;
    if (matrix) {
      rows = mcg_at_most(mcg_at_most(rows, r->x_rows - from), MCG_TOGETHER / row);
      if (overlap && MCG_TERMS == 4) through_copy(&f, x + from * row, rows, to);
      else multiply(&f, x + from * row, rows * p->out_w, to);
    } else {
      through_windows(&f, oy, rows, to);
    }
  }
  return 1;
}
