/* Depthwise convolution of 4x4 outputs, and its input gradient, by MVE.  All of it needs MCG_MVE. */
#ifndef MCG_DEPTHWISE_TILE_MVE_H
#define MCG_DEPTHWISE_TILE_MVE_H

#include "kernels.h"

/* The taps that meet the inputs of one parity of rows and of columns. */
typedef struct {
  int32_t right, down; /* bytes from the weight of a tap to that of the next one in the plane, and below */
  int32_t first;       /* of the first one */
  int32_t left;        /* the column of the plane that it sees for column 0 */
  int32_t columns, rows, low; /* how many, and the row that the first one sees for row 0 */
} mcg_tile_part_t;

/* A call; lies in its scratch memory. */
typedef struct {
  int16_t plane[4 * 8]; /* a channel of a 4x4 map between columns of zeros */
  mcg_tile_part_t part[4];
  int32_t parts; /* 1, or 4 with stride 2 */
} mcg_tile_t;

/* mcg_depthwise.  Returns 0, having done nothing, where it cannot: outputs that are not 4x4 or not of the whole map, windows
 * that reach too far, or a shift below 33. */
int32_t mcg_depthwise_tile(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight,
                             const int32_t *bias, int8_t *y, void *scratch);

/* Prepares mcg_tile_grad; 0 where it cannot take the shape. */
int32_t mcg_tile_grad_open(mcg_tile_t *s, const mcg_conv2d_t *p);

/* acc [in_h][in_w][4] = the input gradient of the four channels at h and weight. */
void mcg_tile_grad(mcg_tile_t *s, const mcg_conv2d_t *p, const int8_t *h, const int8_t *weight, int32_t *acc);

#endif
