/* Kernels that treat every element alike: residual addition, clamp and clamp mask, 16 elements at a time. */
#include "wide.h"
#include "ops/rows.h"
#include "vector.h"

void mcg_add_row_wide(const mcg_add_t *p, int32_t round, const int8_t *a, const int8_t *b, int8_t *y) {
  for (int32_t i = 0; i < p->row; i += MCG_WIDTH) {
    const int32_t n = p->row - i < MCG_WIDTH ? p->row - i : MCG_WIDTH;
    const mcg_wide_t v = mcg_signed(mcg_load_bytes(a + i, n)), w = mcg_signed(mcg_load_bytes(b + i, n));
    const mcg_wide_t sum = ((v * p->factor1 + w * p->factor2 + round) >> p->shift) + p->y_zero;
    mcg_store_bytes(y + i, mcg_narrow(mcg_clamp_wide(sum, -128, 127)), n);
  }
}

/* One bit for each of n <= 16: v + 1 wraps around at 127, and is -127 at -128. */
MCG_INLINE uint32_t passed(const int8_t *y, int32_t n) {
  const mcg_ubytes_t next = (mcg_ubytes_t)mcg_load_bytes(y, n) + 1;
  return mcg_signs((mcg_bytes_t)((mcg_bytes_t)next > -127));
}

/* to [(n + 7) / 8] = the bits of y [n] */
void mcg_mask_row_wide(const int8_t *y, int32_t n, uint8_t *to) {
  for (; n >= MCG_WIDTH; n -= MCG_WIDTH, y += MCG_WIDTH, to += 2) {
    const uint16_t bits = (uint16_t)passed(y, MCG_WIDTH);
    __builtin_memcpy(to, &bits, sizeof bits);
  }
  if (n == 0) return;
  const uint32_t bits = passed(y, n) & ((1u << n) - 1u);
  to[0] = (uint8_t)bits;
  if (n > 8) to[1] = (uint8_t)(bits >> 8);
}
