/* Input gradient of a depthwise convolution by MVE.  All of it needs MCG_MVE. */
#ifndef MCG_DEPTHWISE_INPUT_GRAD_MVE_H
#define MCG_DEPTHWISE_INPUT_GRAD_MVE_H

#include "ops/backward.h"

#define MCG_GRAD_VECTORS 4 /* of weights of a channel, at most */

/* Four channels of some rows. */
typedef struct {
  const mcg_conv2d_t *p;
  const int8_t *h; /* at the channels */
  int8_t *planes;  /* [4][plane] */
  int32_t plane, width, deep;
  int32_t rows, columns; /* inputs that share a load, vertically and horizontally */
  int32_t vectors;
  int32_t left;        /* the output of h in column 0 of the planes */
  int32_t first, last; /* columns that are not padding */
  int8_t weight[4][MCG_GRAD_VECTORS * 16]; /* [rows * columns][vectors][16] */
} mcg_grad_planes_t;

/* Prepares blocks of `rows` rows, with `room` bytes of scratch; 0, having done nothing, for
 * strides that are neither 1 nor 2, narrow and very large windows. */
int mcg_depthwise_input_grad_open(mcg_grad_planes_t *f, const mcg_conv2d_t *p, void *scratch, int32_t room, int32_t rows);

/* block->acc [rows][in_w][4] of four channels. */
void mcg_depthwise_input_grad_mve(mcg_grad_planes_t *f, const int8_t *h, const int8_t *weight, const mcg_block_t *block);

#endif
