/* Products of a row of weights with the columns of four pixels (conv2d_strip.h). */
#ifndef MCG_CONV2D_GROUPS_H
#define MCG_CONV2D_GROUPS_H

#include <stdint.h>

#include "port.h"

/* acc [4] += columns [groups][4 pixels][4] . w [groups][4] */
MCG_INLINE void mcg_dot_groups(const int16_t *columns, const int8_t *w, int32_t groups, int32_t acc[4]) {
  int32_t a = acc[0], b = acc[1], c = acc[2], d = acc[3];
  MCG_ROLLED for (; groups > 0; --groups, w += 4, columns += 16) {
    if (MCG_DUAL_MAC) {
      const uint32_t v = mcg_load4(w), even = mcg_sxtb16(v), odd = mcg_sxtb16_odd(v);
      a = mcg_smlad(mcg_load4_aligned(columns + 2), odd, mcg_smlad(mcg_load4_aligned(columns), even, a));
      b = mcg_smlad(mcg_load4_aligned(columns + 6), odd, mcg_smlad(mcg_load4_aligned(columns + 4), even, b));
      c = mcg_smlad(mcg_load4_aligned(columns + 10), odd, mcg_smlad(mcg_load4_aligned(columns + 8), even, c));
      d = mcg_smlad(mcg_load4_aligned(columns + 14), odd, mcg_smlad(mcg_load4_aligned(columns + 12), even, d));
    } else {
      for (int i = 0; i < 4; ++i) {
        a += columns[i] * w[i];
        b += columns[i + 4] * w[i];
        c += columns[i + 8] * w[i];
        d += columns[i + 12] * w[i];
      }
    }
  }
  acc[0] = a, acc[1] = b, acc[2] = c, acc[3] = d;
}

#endif
