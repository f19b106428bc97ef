/* Weight gradient of a 1x1 convolution by MVE. */
#ifndef MCG_CONV2D_UPDATE_MVE_H
#define MCG_CONV2D_UPDATE_MVE_H

#include "ops/backward.h"
#include "weight_step.h"

/* Gradients and steps of the channels of `rows`; columns and turned are `room` and `more` bytes of scratch.  Needs MCG_MVE. */
void mcg_pointwise_update_mve(const mcg_conv2d_t *p, const int8_t *x, const int8_t *h, const int16_t *mu,
                              const mcg_weight_step_t *step, mcg_weight_rows_t *rows, int8_t *columns, int32_t room,
                              int8_t *turned, int32_t more);

#endif
