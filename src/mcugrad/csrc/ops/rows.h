/* Where rows lie: a value keeps `rows` of its rows in a ring, all of them when it is resident. */
#ifndef MCG_ROWS_H
#define MCG_ROWS_H

#include "kernels.h"
#include "port.h"

/* row % rows without a division. */
static inline int32_t mcg_ring_slot(int32_t row, int32_t rows) {
  MCG_ROLLED while (row >= rows) row -= rows;
  return row;
}

/* Address of `row` of a value whose rows are `bytes` long. */
static inline const int8_t *mcg_row(const int8_t *base, int32_t row, int32_t rows, int32_t bytes) {
  return base + mcg_ring_slot(row, rows) * bytes;
}

static inline int8_t *mcg_row_out(int8_t *base, int32_t row, int32_t rows, int32_t bytes) {
  return base + mcg_ring_slot(row, rows) * bytes;
}

/* Whether a [n] and b [m] share bytes. */
static inline int mcg_meet(const int8_t *a, int32_t n, const int8_t *b, int32_t m) {
  return (uintptr_t)a < (uintptr_t)b + (uint32_t)m && (uintptr_t)b < (uintptr_t)a + (uint32_t)n;
}

/* The same of a convolution's input and output. */
static inline int mcg_overlap(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *y) {
  return mcg_meet(x, r->x_rows * p->in_w * p->in_c, y, r->y_rows * p->out_w * p->out_c);
}

/* Taps [first, last) of a window that fall inside the input, along one axis: `low` is the input index of tap 0. */
typedef struct {
  int32_t first, last;
} mcg_taps_t;

static inline mcg_taps_t mcg_taps(int32_t low, int32_t kernel, int32_t size) {
  const mcg_taps_t t = {low < 0 ? -low : 0, low + kernel > size ? size - low : kernel};
  return t;
}

#endif
