/* Moves the rows that a window keeps to its front. */
#include "kernels.h"
#include "port.h"

void mcg_slide(int32_t bytes, int32_t by, int8_t *data) {
  const int8_t *from = data + by;
  int32_t words = by >= 4 ? bytes >> 2 : 0;
  bytes -= words << 2;
  MCG_ROLLED for (; words > 0; --words, data += 4, from += 4) mcg_store4(data, mcg_load4(from));
  MCG_ROLLED for (; bytes > 0; --bytes) *data++ = *from++;
}
