/* Residual addition of two int8 activations. */
#include "fixed.h"
#include "kernels.h"
#include "ops/add.h"
#include "ops/lines_mve.h"
#include "ops/rows.h"
#include "wide.h"

#define ADD_BITS 15

/* A factor from INT16_MIN to 2 * INT16_MAX as the sum of two int16. */
static inline int32_t first_part(int32_t factor) { return factor < INT16_MAX ? factor : INT16_MAX; }

/* The sum of the pair (a, b). */
static inline int8_t add_pair(const mcg_add_words_t *s, uint32_t pair) {
  return mcg_clamp8(mcg_smlad(pair, s->factors, mcg_smlad(pair, s->more, s->offset)) >> ADD_BITS);
}

/* mcg_add_words in the simplest way. */
static void words_in_c(const mcg_add_words_t *s) {
  const int8_t *a = s->a, *b = s->b;
  for (int8_t *to = s->to; to < s->end; to += 4, a += 4, b += 4) {
    const uint32_t va = mcg_load4(a), vb = mcg_load4(b);
    const uint32_t a_even = mcg_sxtb16(va), a_odd = mcg_sxtb16_odd(va);
    const uint32_t b_even = mcg_sxtb16(vb), b_odd = mcg_sxtb16_odd(vb);
    to[0] = add_pair(s, mcg_pkhbt(a_even, b_even));
    to[1] = add_pair(s, mcg_pkhbt(a_odd, b_odd));
    to[2] = add_pair(s, mcg_pkhtb(b_even, a_even));
    to[3] = add_pair(s, mcg_pkhtb(b_odd, a_odd));
  }
}

/* to [n] = the sums of a and b, n in whole words */
static void add_words(const int8_t *a, const int8_t *b, const mcg_add_t *p, int32_t offset, int32_t n, int8_t *to) {
  const int32_t f1 = first_part(p->factor1), f2 = first_part(p->factor2);
  const mcg_add_words_t s = {a, b, to, to + n, mcg_pair(f1, f2), mcg_pair(p->factor1 - f1, p->factor2 - f2), offset};
  if (!MCG_ASM) words_in_c(&s);
  else if (n > 0) mcg_add_words(&s);
}

void mcg_add(const mcg_add_t *p, const mcg_rows_t *r, const int8_t *x1, const int8_t *x2, int8_t *y) {
  const int32_t f1 = p->factor1, f2 = p->factor2;
  const int32_t round = (1 << (p->shift - 1)) - p->zero1 * f1 - p->zero2 * f2;
  const int packed = MCG_DUAL_MAC && p->shift == ADD_BITS && f1 <= 2 * INT16_MAX && f2 <= 2 * INT16_MAX && f1 >= INT16_MIN && f2 >= INT16_MIN;
  for (int32_t i = r->first; i < r->last; ++i) {
    const int8_t *a = mcg_row(x1, i, r->x_rows, p->row), *b = mcg_row(x2, i, r->x2_rows, p->row);
    int8_t *to = mcg_row_out(y, i, r->y_rows, p->row);
    if (MCG_WIDE) {
      mcg_add_row_wide(p, round, a, b, to);
      continue;
    }
    if (MCG_MVE && packed) {
      mcg_add_mve(a, b, f1, f2, round + p->y_zero * (1 << ADD_BITS), ADD_BITS, p->row, to);
      continue;
    }
    const int32_t quick = packed ? p->row & ~3 : 0;
    if (packed) add_words(a, b, p, round + p->y_zero * (1 << ADD_BITS), quick, to);
    MCG_ROLLED for (int32_t j = quick; j < p->row; ++j) {
      to[j] = mcg_clamp8(((a[j] * f1 + b[j] * f2 + round) >> p->shift) + p->y_zero);
    }
  }
}
