/* Sums and steps of biases by MVE. */
#ifndef MCG_BIAS_UPDATE_MVE_H
#define MCG_BIAS_UPDATE_MVE_H

#include "ops/backward.h"

/* sum [channels] of h [positions][channels].  Needs MCG_MVE. */
void mcg_bias_sums_mve(const int8_t *h, int32_t positions, int32_t channels, int32_t *sum);

/* bias -= RSH(sum, base + shift), within +-2^30.  Needs MCG_MVE. */
void mcg_bias_step_mve(const mcg_bias_step_t *step, int32_t shift, int32_t channels, const int32_t *sum);

#endif
