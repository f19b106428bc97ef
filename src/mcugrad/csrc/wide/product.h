/* Products of int8 matrices: rows of a first factor times a panel of up to two vectors of 16 columns.
 *
 * Both are made of words of MCG_TERMS neighbours of the sum, as mcg_dot wants them; a panel is [groups][vectors][16
 * columns] of them.  Terms of the first factor are v + MCG_FLIP, so every sum starts at -MCG_FLIP times that of its column.
 */
#ifndef MCG_PRODUCT_H
#define MCG_PRODUCT_H

#include "vector.h"

#define MCG_DEEPEST 4608 /* terms of a sum; more are left to the plain kernels */
#define MCG_PANEL (MCG_WIDE_VECTORS * 4 * MCG_WIDTH * (MCG_DEEPEST / MCG_TERMS + 1))
#define MCG_TOGETHER 65536 /* terms of a first factor that are put in order at a time */
#define MCG_ONES (MCG_TERMS == 4 ? 0x01010101 : 0x00010001)

typedef struct {
  int8_t bytes[MCG_PANEL] __attribute__((aligned(64)));
} mcg_panel_t;

MCG_INLINE int32_t mcg_groups(int32_t n) { return (n + MCG_TERMS - 1) / MCG_TERMS; }

/* How many vectors to take of so many columns. */
MCG_INLINE int32_t mcg_vectors(int32_t columns) { return columns > MCG_WIDTH ? MCG_WIDE_VECTORS : 1; }

MCG_INLINE int32_t mcg_at_most(int32_t n, int32_t most) { return n < most ? n : most; }

/* to [n] = the terms of as many bytes */
MCG_INLINE void mcg_terms(const int8_t *from, int32_t n, mcg_term_t *to) {
  for (int32_t j = 0; j < n; ++j) to[j] = from[j];
}

/* Rows of n bytes as rows of whole words, in `to` [rows * words] unless they are that already. */
static inline const int8_t *mcg_word_rows(const int8_t *from, int32_t n, int32_t rows, mcg_term_t *to) {
  const int32_t pitch = MCG_TERMS * mcg_groups(n);
  mcg_term_t *row = to;
  if (pitch == n && MCG_TERMS == 4) return from;
  if (pitch == n) {
    mcg_terms(from, n * rows, to);
    return (const int8_t *)to;
  }
  for (int32_t i = 0; i < rows; ++i, row += pitch, from += n) {
    mcg_terms(from, n, row);
    for (int32_t j = n; j < pitch; ++j) row[j] = 0;
  }
  return (const int8_t *)to;
}

/* Terms first and first + 1 of four bytes of each column. */
#define MCG_SPREAD(k) -1, k, -1, k + 1, -1, k + 4, -1, k + 5, -1, k + 8, -1, k + 9, -1, k + 12, -1, k + 13
#define MCG_PAIR(v, first) \
  __builtin_shufflevector(v, v, MCG_SPREAD(first), MCG_SPREAD(first + 16), MCG_SPREAD(first + 32), MCG_SPREAD(first + 48))

/* Four terms of 16 columns as one group of a panel or two; adds them to the sums.  Returns where the next ones go. */
MCG_INLINE int8_t *mcg_put_columns(int8_t *to, int32_t step, mcg_wide_t v, mcg_wide_t *sum) {
  typedef int8_t all_t __attribute__((vector_size(64)));
  typedef int16_t pairs_t __attribute__((vector_size(64)));
  mcg_wide_t word[2] = {v, v};
  if (MCG_TERMS == 2) {
    word[0] = (mcg_wide_t)((pairs_t)MCG_PAIR((all_t)v, 0) >> 8);
    word[1] = (mcg_wide_t)((pairs_t)MCG_PAIR((all_t)v, 2) >> 8);
  }
  for (int i = 0; i < 4 / MCG_TERMS; ++i, to += step) {
    mcg_store_wide(to, word[i]);
    *sum = mcg_dot(*sum, mcg_splat(MCG_ONES), word[i]);
  }
  return to;
}

typedef int32_t mcg_quarter_t __attribute__((vector_size(16)));

MCG_INLINE mcg_quarter_t mcg_load_quarter(const int8_t *at) {
  mcg_quarter_t v;
  __builtin_memcpy(&v, at, sizeof v);
  return v;
}

/* 16 bytes of each of four rows, `pitch` apart. */
MCG_INLINE mcg_wide_t mcg_load_quarters(const int8_t *const row[4], int32_t k) {
  const mcg_quarter_t a = mcg_load_quarter(row[0] + k), b = mcg_load_quarter(row[4] + k);
  const mcg_quarter_t c = mcg_load_quarter(row[8] + k), d = mcg_load_quarter(row[12] + k);
  return __builtin_shufflevector(__builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7),
                                 __builtin_shufflevector(c, d, 0, 1, 2, 3, 4, 5, 6, 7), 0, 1, 2, 3, 4, 5, 6, 7, 8, 9,
                                 10, 11, 12, 13, 14, 15);
}

#define MCG_LOW(a, b) __builtin_shufflevector(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29)
#define MCG_HIGH(a, b) __builtin_shufflevector(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31)
#define MCG_FIRST(a, b) __builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
#define MCG_SECOND(a, b) __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31)

/* Terms k ... k + 15 of 16 columns from their rows, the first so many fours of them. */
MCG_INLINE int8_t *mcg_pack_sixteen(int8_t *to, int32_t step, const int8_t *const row[MCG_WIDTH], int32_t k, int32_t fours,
                                    mcg_wide_t *sum) {
  const mcg_wide_t a = mcg_load_quarters(row, k), b = mcg_load_quarters(row + 1, k);
  const mcg_wide_t c = mcg_load_quarters(row + 2, k), d = mcg_load_quarters(row + 3, k);
  const mcg_wide_t ab = MCG_LOW(a, b), cd = MCG_LOW(c, d), ab2 = MCG_HIGH(a, b), cd2 = MCG_HIGH(c, d);
  const mcg_wide_t out[4] = {MCG_FIRST(ab, cd), MCG_SECOND(ab, cd), MCG_FIRST(ab2, cd2), MCG_SECOND(ab2, cd2)};
  for (int i = 0; i < fours; ++i) to = mcg_put_columns(to, step, out[i], sum);
  return to;
}

/* The column in a lane of a vector of `columns` <= 16; up to 8 come twice. */
MCG_INLINE int32_t mcg_column(int32_t lane, int32_t columns) {
  return mcg_at_most(columns > MCG_HALF ? lane : lane % MCG_HALF, columns - 1);
}

/* Columns of a panel from rows w [columns][k], `pitch` apart, columns <= 16, mcg_column says where; `step` bytes from group
 * to group.  Returns the sum of each column. */
static inline mcg_wide_t mcg_pack_columns(int8_t *to, int32_t step, const int8_t *w, int32_t pitch, int32_t columns,
                                          int32_t n) {
  const int8_t *row[MCG_WIDTH];
  mcg_bytes_t rest[MCG_WIDTH];
  mcg_wide_t sum = {0};
  int32_t k = 0;
  for (int32_t i = 0; i < MCG_WIDTH; ++i) row[i] = w + mcg_column(i, columns) * pitch;
  for (; k + 16 <= n; k += 16) to = mcg_pack_sixteen(to, step, row, k, 4, &sum);
  if (k == n) return sum;
  for (int32_t i = 0; i < MCG_WIDTH; ++i) rest[i] = mcg_load_bytes(row[i] + k, n - k), row[i] = (const int8_t *)&rest[i];
  mcg_pack_sixteen(to, step, row, 0, (n - k + 3) / 4, &sum);
  return sum;
}

/* Words of a pair of terms. */
MCG_INLINE mcg_wide_t mcg_pairs(mcg_bytes_t a, mcg_bytes_t b) {
  typedef int16_t pairs_t __attribute__((vector_size(32)));
  const union { pairs_t half[2]; mcg_wide_t all; } v = {{
      __builtin_convertvector(__builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23), pairs_t),
      __builtin_convertvector(__builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31),
                              pairs_t)}};
  return v.all;
}

/* The words of 16 columns. */
MCG_INLINE mcg_wide_t mcg_word_of(const mcg_bytes_t term[4]) {
  return MCG_TERMS == 2 ? mcg_pairs(term[0], term[1]) : mcg_interleave(term);
}

/* Those of `columns`, up to 8 twice, from rows of w: so many terms, the others 0. */
MCG_INLINE mcg_wide_t mcg_word(const int8_t *w, int32_t pitch, int32_t columns, int32_t terms) {
  mcg_bytes_t term[4] = {{0}, {0}, {0}, {0}};
  for (int32_t j = 0; j < terms; ++j) {
    term[j] = mcg_load_bytes(w + j * pitch, columns);
    if (columns <= MCG_HALF) term[j] = mcg_twice_bytes(term[j]);
  }
  return mcg_word_of(term);
}

/* columns is a constant where that pays. */
MCG_INLINE mcg_wide_t mcg_pack_terms_of(int8_t *to, int32_t step, const int8_t *w, int32_t pitch, int32_t columns,
                                        int32_t n) {
  mcg_wide_t sum = {0};
  for (; n > 0; n -= MCG_TERMS, to += step, w += MCG_TERMS * pitch) {
    const mcg_wide_t v = n >= MCG_TERMS ? mcg_word(w, pitch, columns, MCG_TERMS)
                         : n == 3       ? mcg_word(w, pitch, columns, 3)
                         : n == 2       ? mcg_word(w, pitch, columns, 2)
                                        : mcg_word(w, pitch, columns, 1);
    mcg_store_wide(to, v);
    sum = mcg_dot(sum, mcg_splat(MCG_ONES), v);
  }
  return sum;
}

/* The same as mcg_pack_columns from rows w [n][columns]: what is a row there is a term of the sum here. */
static inline mcg_wide_t mcg_pack_terms(int8_t *to, int32_t step, const int8_t *w, int32_t pitch, int32_t columns,
                                        int32_t n) {
  if (columns == MCG_WIDTH) return mcg_pack_terms_of(to, step, w, pitch, MCG_WIDTH, n);
  return mcg_pack_terms_of(to, step, w, pitch, columns, n);
}

/* acc [rows][vectors] += a [rows][groups] . b, a part of a panel; rows and vectors are constants of each call.  Word g of
 * row i of a is at i * pitch + g * step. */
MCG_INLINE void mcg_multiply_rows(const int8_t *a, int32_t pitch, int32_t step, int32_t groups, const int8_t *b,
                                  int rows, int vectors, mcg_wide_t acc[][MCG_WIDE_VECTORS]) {
  mcg_wide_t flip = mcg_splat((int32_t)(MCG_FLIP * (uint32_t)MCG_ONES));
  __asm__("" : "+m"(flip)); /* a constant would be applied to each word before it is spread, which takes longer */
#pragma GCC unroll 2
  for (int32_t g = 0; g < groups; ++g, a += step, b += 64 * vectors) {
    mcg_wide_t column[MCG_WIDE_VECTORS];
    for (int v = 0; v < vectors; ++v) column[v] = mcg_load_wide(b + 64 * v);
    for (int i = 0; i < rows; ++i) {
      mcg_wide_t word = mcg_splat((int32_t)mcg_load4(a + i * pitch));
      if (MCG_FLIP != 0) word ^= flip;
      for (int v = 0; v < vectors; ++v) acc[i][v] = mcg_dot(acc[i][v], word, column[v]);
    }
  }
}

/* The same with all rows starting at start [vectors]. */
MCG_INLINE void mcg_multiply_tile(const int8_t *a, int32_t pitch, int32_t step, int32_t groups, const mcg_panel_t *panel,
                                  int rows, int vectors, const mcg_wide_t *start, mcg_wide_t acc[][MCG_WIDE_VECTORS]) {
  for (int i = 0; i < rows; ++i) {
    for (int v = 0; v < vectors; ++v) acc[i][v] = start[v];
  }
  mcg_multiply_rows(a, pitch, step, groups, panel->bytes, rows, vectors, acc);
}

#define MCG_PAIRS (2 * MCG_WIDE_ROWS)

/* The same for at most 8 columns, which the panel holds twice: the halves of a vector are neighbouring rows of a, so that
 * acc [rows] is of 2 * rows of them. */
MCG_INLINE void mcg_multiply_pairs(const int8_t *a, int32_t pitch, int32_t step, int32_t groups, const mcg_panel_t *panel,
                                   int rows, mcg_wide_t start, mcg_wide_t acc[]) {
  const int8_t *b = panel->bytes;
  mcg_wide_t flip = mcg_splat((int32_t)(MCG_FLIP * (uint32_t)MCG_ONES));
  __asm__("" : "+m"(flip));
  for (int i = 0; i < rows; ++i) acc[i] = start;
#pragma GCC unroll 2
  for (int32_t g = 0; g < groups; ++g, a += step, b += 64) {
    const mcg_wide_t column = mcg_twice(mcg_load_eight(b));
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
      mcg_wide_t word = mcg_halves((int32_t)mcg_load4(a + 2 * i * pitch), (int32_t)mcg_load4(a + (2 * i + 1) * pitch));
      if (MCG_FLIP != 0) word ^= flip;
      acc[i] = mcg_dot(acc[i], word, column);
    }
  }
}

#endif
