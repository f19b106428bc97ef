/* Convolution of three channels by 3x3 windows of stride 2 by MVE. */
#ifndef MCG_CONV2D_COLOUR_MVE_H
#define MCG_CONV2D_COLOUR_MVE_H

#include "kernels.h"

/* mcg_conv2d; scratch as there.  Returns 0, having done nothing, for other windows, rows of fewer than four outputs, or where a
 * shift is below 33.  Needs MCG_MVE. */
int32_t mcg_conv2d_colour_mve(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight,
                              const int32_t *bias, int8_t *y, void *scratch);

#endif
