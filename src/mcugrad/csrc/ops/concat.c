/* Concatenation; parts of another quantization are requantized on the way. */
#include "fixed.h"
#include "kernels.h"
#include "ops/bytes.h"

/* to [n] = the run of a part at the output's scale */
static void requantize_run(const mcg_part_params_t *q, int32_t y_zero, const int8_t *from, int8_t *to) {
  const int32_t up = mcg_headroom(q->shift, 16), sh = q->shift + up, m = q->multiplier, zero = q->zero;
  int32_t j = 0;
  if (sh >= 33) {
    MCG_ROLLED for (; j + 4 <= q->run; j += 4) {
      const uint32_t v = mcg_load4(from + j);
      to[j] = mcg_requantize_high(((int8_t)(v & 0xFFu) - zero) * (1 << up), m, sh, y_zero);
      to[j + 1] = mcg_requantize_high(((int8_t)(v >> 8 & 0xFFu) - zero) * (1 << up), m, sh, y_zero);
      to[j + 2] = mcg_requantize_high(((int8_t)(v >> 16 & 0xFFu) - zero) * (1 << up), m, sh, y_zero);
      to[j + 3] = mcg_requantize_high(((int8_t)(v >> 24) - zero) * (1 << up), m, sh, y_zero);
    }
  }
  MCG_ROLLED for (; j < q->run; ++j) to[j] = mcg_requantize(from[j] - zero, m, q->shift, y_zero);
}

void mcg_concat(const mcg_concat_t *p, int8_t *y) {
  for (int32_t i = 0; i < p->outer; ++i) {
    for (const mcg_part_t *part = p->parts; part < p->parts + p->count; ++part) {
      const mcg_part_params_t *q = part->p;
      const int8_t *from = part->x + i * q->run;
      if (q->multiplier == 0) mcg_copy(y, from, q->run);
      else requantize_run(q, p->y_zero, from, y);
      y += q->run;
    }
  }
}
