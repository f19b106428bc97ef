/* A clamp on its own: requantization into the range it keeps. */
#include "fixed.h"
#include "kernels.h"
#include "ops/rows.h"

void mcg_clamp(const mcg_clamp_t *p, const mcg_rows_t *r, const int8_t *x, int8_t *y) {
  for (int32_t i = r->first; i < r->last; ++i) {
    const int8_t *from = mcg_row(x, i, r->x_rows, p->row);
    int8_t *to = mcg_row_out(y, i, r->y_rows, p->row);
    for (int32_t j = 0; j < p->row; ++j) {
      to[j] = mcg_requantize(from[j] - p->x_zero, p->multiplier, p->shift, p->y_zero);
    }
  }
}
