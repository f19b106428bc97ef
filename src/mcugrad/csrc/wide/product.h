/* Products of int8 matrices: rows of a, as they lie in memory, times a panel of up to two vectors of 16 columns.
 *
 * A panel is [groups][vectors][16 columns][4]: four neighbours of the sum lie together, as mcg_dot4 wants them.  It makes
 * its first factor unsigned, a + 128, so every sum starts at -128 times the sum of its column.
 */
#ifndef MCG_PRODUCT_H
#define MCG_PRODUCT_H

#include "vector.h"

#define MCG_DEEPEST 4608 /* terms of a sum; more are left to the plain kernels */
#define MCG_PANEL (MCG_WIDE_VECTORS * MCG_WIDTH * MCG_DEEPEST)

typedef struct {
  int8_t bytes[MCG_PANEL] __attribute__((aligned(64)));
} mcg_panel_t;

MCG_INLINE int32_t mcg_groups(int32_t n) { return (n + 3) >> 2; }

/* How many vectors to take of so many columns. */
MCG_INLINE int32_t mcg_vectors(int32_t columns) { return columns > MCG_WIDTH ? MCG_WIDE_VECTORS : 1; }

MCG_INLINE int32_t mcg_at_most(int32_t n, int32_t most) { return n < most ? n : most; }

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

/* Columns of a panel from rows w [columns][k], `pitch` apart, columns <= 16; `step` bytes from group to group.  Returns
 * the sum of each column. */
static inline mcg_wide_t mcg_pack_columns(int8_t *to, int32_t step, const int8_t *w, int32_t pitch, int32_t columns,
                                          int32_t n) {
  const int8_t *row[MCG_WIDTH];
  mcg_wide_t sum = {0};
  int32_t k = 0;
  for (int32_t i = 0; i < MCG_WIDTH; ++i) row[i] = w + mcg_at_most(i, columns - 1) * pitch;
  for (; k + 16 <= n; k += 16) {
    const mcg_wide_t a = mcg_load_quarters(row, k), b = mcg_load_quarters(row + 1, k);
    const mcg_wide_t c = mcg_load_quarters(row + 2, k), d = mcg_load_quarters(row + 3, k);
    const mcg_wide_t ab = MCG_LOW(a, b), cd = MCG_LOW(c, d), ab2 = MCG_HIGH(a, b), cd2 = MCG_HIGH(c, d);
    const mcg_wide_t out[4] = {MCG_FIRST(ab, cd), MCG_SECOND(ab, cd), MCG_FIRST(ab2, cd2), MCG_SECOND(ab2, cd2)};
    for (int i = 0; i < 4; ++i, to += step) {
      mcg_store_wide(to, out[i]);
      sum = mcg_dot4(sum, mcg_splat(0x01010101), out[i]);
    }
  }
  for (; k < n; k += 4, to += step) {
    const int32_t bytes = mcg_at_most(4, n - k);
    mcg_wide_t v = {0};
    for (int32_t i = 0; i < MCG_WIDTH; ++i) {
      int32_t word = 0;
      if (bytes == 4) __builtin_memcpy(&word, row[i] + k, 4);
      else for (int32_t j = 0; j < bytes; ++j) word |= (int32_t)((uint32_t)(uint8_t)row[i][k + j] << (8 * j));
      v[i] = word;
    }
    mcg_store_wide(to, v);
    sum = mcg_dot4(sum, mcg_splat(0x01010101), v);
  }
  return sum;
}

/* Four terms of 16 columns or of `columns`, the last of them 0 where there are fewer. */
MCG_INLINE mcg_wide_t mcg_four_terms(const int8_t *w, int32_t pitch, int32_t columns, int32_t terms) {
  mcg_uwide_t v = {0};
  for (int32_t j = 0; j < terms; ++j) {
    v |= (mcg_uwide_t)mcg_unsigned(mcg_load_bytes(w + j * pitch, columns)) << (8 * j);
  }
  return (mcg_wide_t)v;
}

/* columns is a constant where that pays. */
MCG_INLINE mcg_wide_t mcg_pack_terms_of(int8_t *to, int32_t step, const int8_t *w, int32_t pitch, int32_t columns,
                                        int32_t n) {
  mcg_wide_t sum = {0};
  for (; n > 0; n -= 4, to += step, w += 4 * pitch) {
    const mcg_wide_t v = n >= 4   ? mcg_four_terms(w, pitch, columns, 4)
                         : n == 3 ? mcg_four_terms(w, pitch, columns, 3)
                         : n == 2 ? mcg_four_terms(w, pitch, columns, 2)
                                  : mcg_four_terms(w, pitch, columns, 1);
    mcg_store_wide(to, v);
    sum = mcg_dot4(sum, mcg_splat(0x01010101), v);
  }
  return sum;
}

/* The same as mcg_pack_columns from rows w [n][columns]: what is a row there is a term of the sum here. */
static inline mcg_wide_t mcg_pack_terms(int8_t *to, int32_t step, const int8_t *w, int32_t pitch, int32_t columns,
                                        int32_t n) {
  if (columns == MCG_WIDTH) return mcg_pack_terms_of(to, step, w, pitch, MCG_WIDTH, n);
  return mcg_pack_terms_of(to, step, w, pitch, columns, n);
}

/* acc [rows][vectors] += a [rows][4 * groups] . panel; rows and vectors are constants of each call.  Row i and group g of
 * a are the four bytes at i * pitch + g * step. */
MCG_INLINE void mcg_multiply_rows(const int8_t *a, int32_t pitch, int32_t step, int32_t groups, const mcg_panel_t *panel,
                                  int rows, int vectors, mcg_wide_t acc[][MCG_WIDE_VECTORS]) {
  const int8_t *b = panel->bytes;
  mcg_wide_t flip = mcg_splat((int32_t)0x80808080u);
  __asm__("" : "+m"(flip)); /* a constant would be applied to each word before it is spread, which takes longer */
  for (int32_t g = 0; g < groups; ++g, a += step, b += 64 * vectors) {
    mcg_wide_t column[MCG_WIDE_VECTORS];
    for (int v = 0; v < vectors; ++v) column[v] = mcg_load_wide(b + 64 * v);
    for (int i = 0; i < rows; ++i) {
      const mcg_wide_t word = mcg_splat((int32_t)mcg_load4(a + i * pitch)) ^ flip;
      for (int v = 0; v < vectors; ++v) acc[i][v] = mcg_dot4(acc[i][v], word, column[v]);
    }
  }
}

/* The same with all rows starting at start [vectors]. */
MCG_INLINE void mcg_multiply_tile(const int8_t *a, int32_t pitch, int32_t step, int32_t groups, const mcg_panel_t *panel,
                                  int rows, int vectors, const mcg_wide_t *start, mcg_wide_t acc[][MCG_WIDE_VECTORS]) {
  for (int i = 0; i < rows; ++i) {
    for (int v = 0; v < vectors; ++v) acc[i][v] = start[v];
  }
  mcg_multiply_rows(a, pitch, step, groups, panel, rows, vectors, acc);
}

#endif
