/* Pulls rows of the input through the caller's row source into a ring. */
#include "kernels.h"

int32_t mcg_load_rows(const mcg_context_t *c, const mcg_rows_t *r, int8_t *dst, int32_t row_bytes) {
  for (int32_t row = r->first; row < r->last; ++row) {
    if (c->row_source(c->row_user, row, dst + (row % r->y_rows) * row_bytes) != 0) return 1;
  }
  return 0;
}
