/* One bit per int8 output: did it pass its clamp? */
#include "kernels.h"
#include "ops/lines_mve.h"
#include "ops/rows.h"
#include "port.h"
#include "wide.h"

static inline int passed(int8_t y) { return y > -128 && y < 127; }

/* The bits of eight outputs. */
static inline uint8_t mask_eight(const int8_t *y) {
  return (uint8_t)mcg_passed(mcg_load4(y + 4), 0x80402010u, mcg_passed(mcg_load4(y), 0x08040201u, 0u));
}

/* to [(n + 7) / 8] = the bits of y [n] */
static void mask_row(const int8_t *y, int32_t n, uint8_t *to) {
  if (MCG_WIDE) {
    mcg_mask_row_wide(y, n, to);
    return;
  }
  const int8_t *const end = y + n;
  if (MCG_MVE) {
    mcg_mask_mve(y, n & ~15, to);
    y += n & ~15, to += n >> 4 << 1;
  }
  MCG_ROLLED for (; end - y >= 16; y += 16, to += 2) to[0] = mask_eight(y), to[1] = mask_eight(y + 8);
  MCG_ROLLED while (y < end) {
    uint32_t bits = 0u;
    MCG_ROLLED for (uint32_t bit = 1u; bit < 256u && y < end; ++y, bit <<= 1) bits |= passed(*y) ? bit : 0u;
    *to++ = (uint8_t)bits;
  }
}

void mcg_clamp_mask(const mcg_rows_t *r, const int8_t *y, uint8_t *mask, int32_t row) {
  for (int32_t i = r->first; i < r->last; ++i) {
    mask_row(mcg_row(y, i, r->x_rows, row), row, mask + mcg_ring_slot(i, r->y_rows) * ((row + 7) >> 3));
  }
}
