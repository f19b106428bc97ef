/* Gradient exponents that follow the data. */
#include "kernels.h"

#define WINDOW 256
#define MOST ((1 << 23) - 1)

/* clamped [1], exponents [slots], health [slots]: clamped elements << 8 | steps, of this window */
void mcg_adapt_exponent(const mcg_adapt_t *p, const int32_t *clamped, int8_t *exponents, int32_t *health) {
  const int32_t before = health[p->slot] >> 8;
  const int32_t count = *clamped > MOST - before ? MOST : before + *clamped;
  const int32_t steps = (health[p->slot] & 255) + 1;
  if (steps < WINDOW) {
    health[p->slot] = count * 256 + steps;
    return;
  }
  const int32_t e = exponents[p->slot];
  if (count > p->limit && e < p->top) {
    exponents[p->slot] = (int8_t)(e + 1);
  } else if (count == 0 && e > p->base) {
    exponents[p->slot] = (int8_t)(e - 1);
  }
  health[p->slot] = 0;
}
