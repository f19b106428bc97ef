/* Transposition of at most three axes after the batch. */
#include "kernels.h"
#include "ops/bytes.h"

/* y [size0][size1][size2] = x at i * step0 + j * step1 + k * step2 */
void mcg_transpose(const mcg_transpose_t *p, const int8_t *x, int8_t *y) {
  for (int32_t i = 0; i < p->size0; ++i) {
    for (int32_t j = 0; j < p->size1; ++j, y += p->size2) {
      const int8_t *from = x + i * p->step0 + j * p->step1;
      if (p->step2 == 1) {
        mcg_copy(y, from, p->size2);
        continue;
      }
      MCG_ROLLED for (int32_t k = 0; k < p->size2; ++k, from += p->step2) y[k] = *from;
    }
  }
}
