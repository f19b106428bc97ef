/* Concatenation; parts of another quantization are requantized on the way. */
#include "fixed.h"
#include "kernels.h"
#include "ops/bytes.h"

void mcg_concat(const mcg_concat_t *p, int8_t *y) {
  for (int32_t i = 0; i < p->outer; ++i) {
    for (const mcg_part_t *part = p->parts; part < p->parts + p->count; ++part) {
      const mcg_part_params_t *q = part->p;
      const int8_t *from = part->x + i * q->run;
      if (q->multiplier == 0) {
        mcg_copy(y, from, q->run);
      } else {
        MCG_ROLLED for (int32_t j = 0; j < q->run; ++j) {
          y[j] = mcg_requantize(from[j] - q->zero, q->multiplier, q->shift, p->y_zero);
        }
      }
      y += q->run;
    }
  }
}
