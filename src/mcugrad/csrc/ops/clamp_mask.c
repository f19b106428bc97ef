/* One bit per int8 output: did it pass its clamp? */
#include "kernels.h"

void mcg_clamp_mask(const int8_t *y, uint8_t *mask, int32_t rows, int32_t row) {
  for (int32_t i = 0; i < rows; ++i, y += row) {
    for (int32_t j = 0; j < row; j += 8) {
      uint32_t bits = 0u;
      for (int32_t k = 0; k < 8 && j + k < row; ++k) bits |= (uint32_t)(y[j + k] > -128 && y[j + k] < 127) << k;
      *mask++ = (uint8_t)bits;
    }
  }
}
