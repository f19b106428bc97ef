/* Products of int8 rows with widened columns. */
#include "dot.h"

#include "port.h"

/* The last group, of 1 ... 4 elements. */
static void widen_rest(const int8_t *w, int32_t n, int32_t pitch, int32_t columns, int16_t *to) {
  MCG_ROLLED for (int32_t k = 0; k < 4; ++k, w += pitch) {
    MCG_ROLLED for (int32_t c = 0; c < MCG_COLUMNS; ++c) {
      to[4 * c + (k & 1) * 2 + (k >> 1)] = c < columns && k < n ? w[c] : 0;
    }
  }
}

static void widen_plain(const int8_t *w, int32_t n, int32_t pitch, int32_t columns, int16_t *to) {
  for (int32_t c = 0; c < MCG_COLUMNS; ++c, to += mcg_round4(n)) {
    for (int32_t i = 0; i < n; ++i) to[i] = c < columns ? w[i * pitch + c] : 0;
  }
}

void mcg_widen(const int8_t *w, int32_t n, int32_t pitch, int32_t columns, int16_t *to) {
  if (!MCG_DUAL_MAC) {
    widen_plain(w, n, pitch, columns, to);
    return;
  }
  if (MCG_ASM && columns == MCG_COLUMNS && n >= 4) {
    const int32_t groups = n >> 2;
    mcg_dot_widen(w, groups, pitch, to);
    n &= 3;
    w += 4 * groups * pitch;
    to += 4 * MCG_COLUMNS * groups;
  }
  for (; n > 0; n -= 4, w += 4 * pitch, to += 4 * MCG_COLUMNS) widen_rest(w, n, pitch, columns, to);
}

/* acc [2][2] += n elements of two rows, `pitch` apart, times the first two columns of each group; rows are read one
 * element at a time where they may end inside a group. */
static void dot_packed(int32_t acc[2][2], const int8_t *row, int32_t pitch, const int16_t *column, int32_t n) {
  MCG_ROLLED for (; n > 0; n -= 4, row += 4, column += 4 * MCG_COLUMNS) {
    MCG_ROLLED for (int r = 0; r < 2; ++r) {
      const int8_t *from = row + r * pitch;
      const int32_t b = n > 1 ? from[1] : 0, c = n > 2 ? from[2] : 0, d = n > 3 ? from[3] : 0;
      const uint32_t even = mcg_pair(from[0], c), odd = mcg_pair(b, d);
      MCG_ROLLED for (int k = 0; k < 2; ++k) {
        acc[r][k] = mcg_smlad(even, mcg_load4_aligned(column + 4 * k), acc[r][k]);
        acc[r][k] = mcg_smlad(odd, mcg_load4_aligned(column + 4 * k + 2), acc[r][k]);
      }
    }
  }
}

/* The same in the simplest way, for columns `next` apart. */
static void dot_plain(int32_t acc[2][2], const int8_t *row, int32_t pitch, const int16_t *column, int32_t next,
                      int32_t n) {
  for (int32_t i = 0; i < n; ++i) {
    for (int r = 0; r < 2; ++r) {
      for (int k = 0; k < 2; ++k) acc[r][k] += row[r * pitch + i] * column[k * next + i];
    }
  }
}

/* Two rows (the same twice where one is left) by columns k and k + 1 of the product. */
static void square(const int8_t *row, int32_t pitch, int32_t n, const int16_t *columns, int k, int32_t *out,
                   int32_t next, int keep) {
  int32_t acc[2][2] = {{0, 0}, {0, 0}};
  out += k;
  if (keep) {
    acc[0][0] = out[0];
    acc[0][1] = out[1];
    acc[1][0] = out[next];
    acc[1][1] = out[next + 1];
  }
  if (MCG_DUAL_MAC) {
    dot_packed(acc, row, pitch, columns + 4 * k, n);
  } else {
    dot_plain(acc, row, pitch, columns + k * mcg_round4(n), mcg_round4(n), n);
  }
  out[0] = acc[0][0];
  out[1] = acc[0][1];
  out[next] = acc[1][0];
  out[next + 1] = acc[1][1];
}

void mcg_multiply(const int8_t *rows, int32_t count, int32_t n, int32_t pitch, const int16_t *columns, int32_t *out,
                  int keep) {
  if (MCG_ASM && n % 4 == 0) {
    mcg_dot_rows(rows, count, n, pitch, columns, out, keep);
    return;
  }
  for (; count > 0; count -= 2, rows += 2 * pitch, out += 2 * MCG_COLUMNS) {
    const int32_t second = count > 1;
    square(rows, second * pitch, n, columns, 0, out, second * MCG_COLUMNS, keep);
    square(rows, second * pitch, n, columns, 2, out, second * MCG_COLUMNS, keep);
  }
}
