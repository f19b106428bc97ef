/* Residual addition of two int8 activations. */
#include "fixed.h"
#include "kernels.h"
#include "ops/rows.h"

#define ADD_BITS 15

void mcg_add(const mcg_add_t *p, const mcg_rows_t *r, const int8_t *x1, const int8_t *x2, int8_t *y) {
  const int32_t offset = (1 << (ADD_BITS - 1)) - p->zero1 * p->factor1 - p->zero2 * p->factor2;
  for (int32_t i = r->first; i < r->last; ++i) {
    const int8_t *a = mcg_row(x1, i, r->x_rows, p->row), *b = mcg_row(x2, i, r->x2_rows, p->row);
    int8_t *to = mcg_row_out(y, i, r->y_rows, p->row);
    for (int32_t j = 0; j < p->row; ++j) {
      to[j] = mcg_clamp8(((a[j] * p->factor1 + b[j] * p->factor2 + offset) >> ADD_BITS) + p->y_zero);
    }
  }
}
