/* The bias of a layer that learns by int16 deltas. */
#include "fixed.h"
#include "kernels.h"
#include "port.h"

const int32_t *mcg_summed_bias(const int32_t *base, const int16_t *delta, int32_t n, void *sum) {
  int32_t *const to = (int32_t *)sum;
  MCG_ROLLED for (int32_t i = 0; i < n; ++i) to[i] = mcg_between(base[i] + delta[i], -MCG_BIAS_LIMIT, MCG_BIAS_LIMIT);
  return to;
}
