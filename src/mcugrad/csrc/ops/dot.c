/* Products of int8 rows with widened columns, two by two. */
#include "dot.h"

#include "port.h"

void mcg_widen(const int8_t *w, int32_t n, int32_t pitch, int c, int columns, int16_t *to) {
  if (!MCG_DUAL_MAC) {
    to += c * ((n + 3) & ~3);
    for (int32_t i = 0; i < n; ++i) to[i] = w[i * pitch];
    return;
  }
  to += 4 * c;
#pragma GCC unroll 1
  for (; n >= 4; n -= 4, to += 4 * columns) {
    const int8_t *next = w + pitch;
    mcg_store4_aligned(to, mcg_pair(w[0], w[2 * pitch]));
    mcg_store4_aligned(to + 2, mcg_pair(next[0], next[2 * pitch]));
    w += 4 * pitch;
  }
  for (int32_t i = 0; i < n; ++i) to[i] = w[i * pitch];
}

/* acc[row][column] += four elements of `rows` rows `pitch` apart and of the columns' group. */
MCG_INLINE void group(int32_t acc[2][2], const int8_t *row, int32_t pitch, const int16_t *column, int rows,
                      int columns) {
  uint32_t even[2], odd[2];
  for (int r = 0; r < rows; ++r) {
    const uint32_t v = mcg_load4(row + r * pitch);
    even[r] = mcg_sxtb16(v);
    odd[r] = mcg_sxtb16_odd(v);
  }
  for (int c = 0; c < columns; ++c) {
    const uint32_t e = mcg_load4_aligned(column + 4 * c), o = mcg_load4_aligned(column + 4 * c + 2);
    for (int r = 0; r < rows; ++r) acc[r][c] = mcg_smlad(even[r], e, acc[r][c]);
    for (int r = 0; r < rows; ++r) acc[r][c] = mcg_smlad(odd[r], o, acc[r][c]);
  }
}

/* acc[row][column] += row [n] . column [n], by pairs. */
MCG_INLINE void dot_packed(int32_t acc[2][2], const int8_t *row, const int16_t *column, int32_t n, int rows,
                           int columns) {
  const int8_t *const end = row + (n & ~7);
  while (row != end) {
    group(acc, row, n, column, rows, columns);
    group(acc, row + 4, n, column + 4 * columns, rows, columns);
    row += 8;
    column += 8 * columns;
  }
  if (n & 4) {
    group(acc, row, n, column, rows, columns);
    row += 4;
    column += 4 * columns;
  }
  for (int k = 0; k < (n & 3); ++k) {
    for (int r = 0; r < rows; ++r) {
      for (int c = 0; c < columns; ++c) acc[r][c] += row[r * n + k] * column[4 * c + k];
    }
  }
}

/* The same in the simplest way. */
MCG_INLINE void dot_plain(int32_t acc[2][2], const int8_t *row, const int16_t *column, int32_t n, int rows,
                          int columns) {
  const int16_t *const second = column + ((n + 3) & ~3);
  for (int32_t i = 0; i < n; ++i) {
    for (int r = 0; r < rows; ++r) {
      acc[r][0] += row[r * n + i] * column[i];
      if (columns > 1) acc[r][1] += row[r * n + i] * second[i];
    }
  }
}

/* `rows` rows of the product; the counts are constants of each call. */
MCG_INLINE void strip(const int8_t *row, int32_t n, const int16_t *column, int rows, int columns, int32_t *out,
                      int32_t pitch, int keep) {
  int32_t acc[2][2];
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < columns; ++c) acc[r][c] = keep ? out[r * pitch + c] : 0;
  }
  if (MCG_DUAL_MAC) {
    dot_packed(acc, row, column, n, rows, columns);
  } else {
    dot_plain(acc, row, column, n, rows, columns);
  }
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < columns; ++c) out[r * pitch + c] = acc[r][c];
  }
}

void mcg_multiply(const int8_t *rows, int32_t count, int32_t n, const int16_t *column, int columns, int32_t *out,
                  int32_t pitch, int keep) {
  for (; count >= 2 && columns == 2; count -= 2, rows += 2 * n, out += 2 * pitch) {
    strip(rows, n, column, 2, 2, out, pitch, keep);
  }
  for (; count > 0; --count, rows += n, out += pitch) {
    if (columns == 2) {
      strip(rows, n, column, 1, 2, out, pitch, keep);
    } else {
      strip(rows, n, column, 1, 1, out, pitch, keep);
    }
  }
}
