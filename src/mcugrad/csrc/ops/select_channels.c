/* Copies some channels of every pixel. */
#include "kernels.h"
#include "ops/rows.h"
#include "port.h"

void mcg_select_channels(const mcg_select_t *p, const mcg_rows_t *r, const int8_t *x, int8_t *y) {
  for (int32_t i = r->first; i < r->last; ++i) {
    const int8_t *from = mcg_row(x, i, r->x_rows, p->width * p->in_c);
    int8_t *to = mcg_row_out(y, i, r->y_rows, p->width * p->out_c);
    for (int32_t pixel = 0; pixel < p->width; ++pixel, from += p->in_c) {
      MCG_ROLLED for (int32_t c = 0; c < p->out_c; ++c) *to++ = from[p->order[c]];
    }
  }
}
