/* Copies some channels of every position. */
#include "kernels.h"
#include "port.h"

/* to [n] = from [n] */
static inline void copy(int8_t *to, const int8_t *from, int32_t n) {
  MCG_ROLLED for (; n >= 4; n -= 4, to += 4, from += 4) mcg_store4(to, mcg_load4(from));
  MCG_ROLLED for (; n > 0; --n) *to++ = *from++;
}

void mcg_take(int32_t rows, int32_t bytes, int32_t pitch, const int8_t *from, int8_t *to) {
  MCG_ROLLED for (; rows > 0; --rows, from += pitch, to += bytes) copy(to, from, bytes);
}

void mcg_put(int32_t rows, int32_t bytes, int32_t pitch, const int8_t *from, int8_t *to) {
  MCG_ROLLED for (; rows > 0; --rows, from += bytes, to += pitch) copy(to, from, bytes);
}
