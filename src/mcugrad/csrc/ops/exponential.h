/* 2^-d by table. */
#ifndef MCG_EXPONENTIAL_H
#define MCG_EXPONENTIAL_H

#include <stdint.h>

/* 32768 * 2^(-d/256) of d = (distance * multiplier) >> shift (a negative shift goes left), distance >= 0; 0 beyond 30
 * octaves. */
int32_t mcg_exponential(int32_t multiplier, int32_t shift, int64_t distance);

#endif
