/* Depthwise convolution by MVE. */
#ifndef MCG_DEPTHWISE_MVE_H
#define MCG_DEPTHWISE_MVE_H

#include "kernels.h"

/* mcg_depthwise; scratch as there.  Returns 0, having done nothing, where it cannot: fewer than eight channels, a stride
 * above 2, a window of more than 64 taps, a shift below 33 or outputs too far apart for offsets of 16 bits.  Needs MCG_MVE. */
int32_t mcg_depthwise_mve(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight,
                          const int32_t *bias, int8_t *y, void *scratch);

#endif
