/* Copies some channels of every position. */
#include "kernels.h"
#include "port.h"

void mcg_take(int32_t rows, int32_t bytes, int32_t pitch, const int8_t *from, int8_t *to) {
  MCG_ROLLED for (; rows > 0; --rows, from += pitch, to += bytes) {
    MCG_ROLLED for (int32_t i = 0; i < bytes; ++i) to[i] = from[i];
  }
}
