/* The weight of a partly updated depthwise convolution, whole. */
#include "kernels.h"
#include "port.h"

const int8_t *mcg_joined_weight(const int8_t *live, const int8_t *rest, const uint16_t *order, int32_t n, int32_t channels,
                                int32_t taps, void *to) {
  int8_t *row = (int8_t *)to;
  for (; taps > 0; --taps, row += channels) {
    MCG_ROLLED for (int32_t i = 0; i < n; ++i) row[order[i]] = *live++;
    MCG_ROLLED for (int32_t i = n; i < channels; ++i) row[order[i]] = *rest++;
  }
  return (const int8_t *)to;
}
