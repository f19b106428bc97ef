/* Inner products of int8 rows with one or two int16 columns that lie together in scratch.
 *
 * With dual MACs a group of four elements a b c d of a column is stored as a c b d, which is how SXTB16 takes four
 * bytes apart, and the columns' groups take turns; otherwise one column follows the other.
 */
#ifndef MCG_DOT_H
#define MCG_DOT_H

#include <stdint.h>

#include "port.h"

/* to: column c of `columns` = element 0 of each row of w [n][pitch]; round4(n) * columns elements in all. */
MCG_INLINE void mcg_widen(const int8_t *w, int32_t n, int32_t pitch, int c, int columns, int16_t *to) {
  if (!MCG_DUAL_MAC) {
    to += c * ((n + 3) & ~3);
    for (int32_t i = 0; i < n; ++i) to[i] = w[i * pitch];
    return;
  }
  to += 4 * c;
  for (; n >= 4; n -= 4, w += 4 * pitch, to += 4 * columns) {
    mcg_store4_aligned(to, mcg_pair(w[0], w[2 * pitch]));
    mcg_store4_aligned(to + 2, mcg_pair(w[pitch], w[3 * pitch]));
  }
  for (int32_t i = 0; i < n; ++i) to[i] = w[i * pitch];
}

/* acc[row][column] += four elements of `rows` rows `pitch` apart and of the columns' group. */
MCG_INLINE void mcg_dot_group(int32_t acc[2][2], const int8_t *row, int32_t pitch, const int16_t *group, int rows,
                              int columns) {
  uint32_t even[2], odd[2];
  for (int r = 0; r < rows; ++r) {
    const uint32_t v = mcg_load4(row + r * pitch);
    even[r] = mcg_sxtb16(v);
    odd[r] = mcg_sxtb16_odd(v);
  }
  for (int c = 0; c < columns; ++c) {
    const uint32_t e = mcg_load4_aligned(group + 4 * c), o = mcg_load4_aligned(group + 4 * c + 2);
    for (int r = 0; r < rows; ++r) acc[r][c] = mcg_smlad(even[r], e, acc[r][c]);
    for (int r = 0; r < rows; ++r) acc[r][c] = mcg_smlad(odd[r], o, acc[r][c]);
  }
}

/* acc[row][column] = row [n] . column [n] for one or two rows, `pitch` apart, and one or two columns. */
MCG_INLINE void mcg_dot(int32_t acc[2][2], const int8_t *row, int32_t pitch, const int16_t *column, int32_t n, int rows,
                        int columns) {
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < columns; ++c) acc[r][c] = 0;
  }
  if (MCG_DUAL_MAC) {
    const int8_t *const end = row + (n & ~7);
    while (row != end) {
      mcg_dot_group(acc, row, pitch, column, rows, columns);
      mcg_dot_group(acc, row + 4, pitch, column + 4 * columns, rows, columns);
      row += 8;
      column += 8 * columns;
    }
    if (n & 4) {
      mcg_dot_group(acc, row, pitch, column, rows, columns);
      row += 4;
      column += 4 * columns;
    }
    for (int k = 0; k < (n & 3); ++k) {
      for (int r = 0; r < rows; ++r) {
        for (int c = 0; c < columns; ++c) acc[r][c] += row[r * pitch + k] * column[4 * c + k];
      }
    }
    return;
  }
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < columns; ++c) {
      const int8_t *a = row + r * pitch;
      const int16_t *b = column + c * ((n + 3) & ~3);
      for (int32_t i = 0; i < n; ++i) acc[r][c] += a[i] * b[i];
    }
  }
}

#endif
