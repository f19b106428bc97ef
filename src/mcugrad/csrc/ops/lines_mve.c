/* Simple functions of a row by MVE. */
#include "lines_mve.h"

#include "ops/mve.h"

#if MCG_MVE

/* Four sums, of which `some` are there. */
MCG_INLINE void add_lanes(const int8_t *a, const int8_t *b, int32_t factor1, int32_t factor2, int32x4_t offset,
                          int32x4_t right, mve_pred16_t some, int8_t *to) {
  const int32x4_t sum = vmlaq_n_s32(offset, vldrbq_z_s32(a, some), factor1);
  const int32x4_t both = vmlaq_n_s32(sum, vldrbq_z_s32(b, some), factor2);
  vstrbq_p_s32(to, mcg_clamp8_lanes(vshlq_s32(both, right)), some);
}

void mcg_add_mve(const int8_t *a, const int8_t *b, int32_t factor1, int32_t factor2, int32_t offset, int32_t shift, int32_t n,
                 int8_t *to) {
  const int32x4_t right = vdupq_n_s32(-shift), start = vdupq_n_s32(offset);
  for (int32_t i = n >> 2; i > 0; --i, a += 4, b += 4, to += 4) {
    const int32x4_t sum = vmlaq_n_s32(vmlaq_n_s32(start, vldrbq_s32(a), factor1), vldrbq_s32(b), factor2);
    vstrbq_s32(to, mcg_clamp8_lanes(vshlq_s32(sum, right)));
  }
  if ((n & 3) != 0) add_lanes(a, b, factor1, factor2, start, right, mcg_first_bytes(4 * (n & 3)), to);
}

void mcg_mask_mve(const int8_t *y, int32_t n, uint8_t *to) {
  for (; n > 0; n -= 16, y += 16, to += 2) { /* a bit of the predicate for each byte */
    const int8x16_t v = vldrbq_s8(y);
    const uint32_t bits = vcmpltq_m_n_s8(v, 127, vcmpgtq_n_s8(v, -128));
    to[0] = (uint8_t)bits, to[1] = (uint8_t)(bits >> 8);
  }
}

#endif
