/* Product of two int8 activations, the second of which may be broadcast. */
#include "fixed.h"
#include "kernels.h"
#include "ops/rows.h"

/* Products stay below 2^16 + 1. */
#define HEADROOM 14

/* to [4 * count] = the products of a and b, whose shift, with `up`, is 33 or more */
static void words(const mcg_mul_t *p, int32_t up, const int8_t *a, const int8_t *b, int32_t count, int8_t *to) {
  const int32_t m = p->multiplier, sh = p->shift + up, zero = p->y_zero;
  const uint32_t less1 = mcg_pair(-p->zero1, -p->zero1), less2 = mcg_pair(-p->zero2, -p->zero2);
  MCG_ROLLED for (; count > 0; --count, a += 4, b += 4, to += 4) {
    const uint32_t va = mcg_load4(a), vb = mcg_load4(b);
    const uint32_t ae = mcg_sxtab16(less1, va), ao = mcg_sxtab16_odd(less1, va);
    const uint32_t be = mcg_sxtab16(less2, vb), bo = mcg_sxtab16_odd(less2, vb);
    to[0] = mcg_requantize_high(mcg_smlabb(ae, be, 0) * (1 << up), m, sh, zero);
    to[1] = mcg_requantize_high(mcg_smlabb(ao, bo, 0) * (1 << up), m, sh, zero);
    to[2] = mcg_requantize_high(mcg_smlatt(ae, be, 0) * (1 << up), m, sh, zero);
    to[3] = mcg_requantize_high(mcg_smlatt(ao, bo, 0) * (1 << up), m, sh, zero);
  }
}

/* to [channels] */
static void run(const mcg_mul_t *p, const int8_t *a, const int8_t *b, int8_t *to) {
  const int32_t up = mcg_headroom(p->shift, HEADROOM);
  int32_t i = 0;
  if (p->x2_step == 1 && MCG_DUAL_MAC && p->shift + up >= 33) {
    i = p->channels & ~3;
    words(p, up, a, b, i >> 2, to);
  }
  b += i * p->x2_step;
  MCG_ROLLED for (; i < p->channels; ++i, b += p->x2_step) {
    to[i] = mcg_requantize((a[i] - p->zero1) * (*b - p->zero2), p->multiplier, p->shift, p->y_zero);
  }
}

void mcg_mul(const mcg_mul_t *p, const mcg_rows_t *r, const int8_t *x1, const int8_t *x2, int8_t *y) {
  const int32_t row = p->width * p->channels;
  for (int32_t i = r->first; i < r->last; ++i) {
    const int8_t *a = mcg_row(x1, i, r->x_rows, row), *b = x2;
    int8_t *to = mcg_row_out(y, i, r->y_rows, row);
    if (p->x2_row != 0) b = mcg_row(x2, i, r->x2_rows, p->x2_row);
    for (int32_t j = 0; j < p->width; ++j, a += p->channels, b += p->x2_pixel, to += p->channels) run(p, a, b, to);
  }
}
