/* Four output pixels of a convolution, widened, and the loop over their outputs. */
#ifndef MCG_CONV2D_STRIP_H
#define MCG_CONV2D_STRIP_H

#include <stdint.h>

#define MCG_PIXELS 4

/* The columns hold groups [4 pixels][4 inputs] of x - x_zero, first of the live, then of the resting inputs; each part
 * ends with zeros up to a whole group.  Where dual MACs exist the inputs a b c d of a group are stored as a c b d, which
 * is how SXTB16 takes four weights apart.  conv2d_strip.S knows the order of the fields. */
typedef struct {
  const int16_t *columns;    /* [live_groups + rest_groups][4][4] */
  const int8_t *weight;      /* [O][live] */
  const int8_t *rest;        /* [O][resting] */
  int32_t live_groups;       /* (live + 3) / 4 */
  int32_t rest_groups;
  int32_t live_pad;          /* 4 * live_groups - live */
  int32_t rest_pad;
  const int32_t *bias;       /* [O] */
  const int32_t *multiplier; /* [O] */
  const uint8_t *shift;      /* [O] */
  int32_t offset;            /* 2 * y_zero + 1 */
  int8_t *y[MCG_PIXELS];     /* [O] each */
} mcg_strip_t;

/* Outputs [0, outputs) of the strip, all of whose shifts exceed 32.  May read up to three weights beyond row
 * outputs - 1, which the zeros in the columns cancel.  Needs MCG_ASM. */
void mcg_conv2d_strip(const mcg_strip_t *s, int32_t outputs);

#endif
