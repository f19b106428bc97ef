/* Runs of bytes, a word at a time at any alignment. */
#ifndef MCG_BYTES_H
#define MCG_BYTES_H

#include <stdint.h>

#include "port.h"

/* to [n] = from [n]; the last word may overlap the one before. */
static inline void mcg_copy(int8_t *to, const int8_t *from, int32_t n) {
  if (n < 4) {
    MCG_ROLLED for (int32_t i = 0; i < n; ++i) to[i] = from[i];
    return;
  }
  MCG_ROLLED for (int32_t i = 0; i < n - 4; i += 4) mcg_store4(to + i, mcg_load4(from + i));
  mcg_store4(to + n - 4, mcg_load4(from + n - 4));
}

/* to [n] = value */
static inline void mcg_fill(int8_t *to, int32_t value, int32_t n) {
  const uint32_t four = ((uint32_t)value & 0xFFu) * 0x01010101u;
  int32_t i = 0;
  MCG_ROLLED for (; i + 4 <= n; i += 4) mcg_store4(to + i, four);
  MCG_ROLLED for (; i < n; ++i) to[i] = (int8_t)value;
}

#endif
