/* Input gradient of a depthwise convolution by MVE. */
#ifndef MCG_DEPTHWISE_INPUT_GRAD_MVE_H
#define MCG_DEPTHWISE_INPUT_GRAD_MVE_H

#include "ops/backward.h"

/* acc [rows][in_w][4] of a block of four channels; scratch: `room` bytes.  Returns 0, having done nothing, where it cannot:
 * other blocks, strides that are neither 1 nor 2, narrow or very large windows.  Needs MCG_MVE. */
int mcg_depthwise_input_grad_mve(const mcg_conv2d_t *p, const int8_t *h, const int8_t *weight, const mcg_block_t *b,
                                 void *scratch, int32_t room);

#endif
