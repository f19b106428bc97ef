/* Input gradient of a 1x1 convolution by MVE. */
#ifndef MCG_CONV2D_INPUT_GRAD_MVE_H
#define MCG_CONV2D_INPUT_GRAD_MVE_H

#include "ops/backward.h"

/* scratch: int16 [outputs][4], int32 [positions of `rows` rows][4].  Needs MCG_MVE. */
void mcg_pointwise_input_grad_mve(const mcg_conv2d_t *p, const int8_t *h, const int8_t *weight, const int8_t *rest,
                                  const mcg_chain_t *chain, void *scratch, int32_t outputs, int32_t rows);

#endif
