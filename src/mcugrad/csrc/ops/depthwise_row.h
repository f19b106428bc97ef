/* One output row of a depthwise convolution at four channels, from columns of int16. */
#ifndef MCG_DEPTHWISE_ROW_H
#define MCG_DEPTHWISE_ROW_H

#include <stdint.h>

#include "kernels.h"
#include "port.h"

#define MCG_LANES 4 /* channels */
#define MCG_QUAD 4  /* output pixels */

/* Requantization of a channel. */
typedef struct {
  int32_t multiplier;
  int32_t shift;  /* less 33 */
  int32_t offset; /* 2 * y_zero + 1 */
  int32_t bias;
} mcg_lane_t;

/* The columns of a channel are kh rows of x - x_zero with the padding as zeros.  A row of weights w0 w1 w2 ... is kept in
 * steps of two pairs, (w0 w1) (0 w0), (w2 w3) (w1 w2), ...: the first pairs meet columns at an even place, the second
 * those at an odd one.  depthwise_row.S knows the order of the fields. */
typedef struct {
  const int16_t *columns; /* [4 channels][rows][pitch], from the first output pixel on */
  const int16_t *weight;  /* [4 channels][.][steps][4], from the row that meets the first of columns on */
  int8_t *y;              /* [4 * quads] pixels, at the channels */
  int32_t quads;          /* of output pixels, at least 1 */
  int32_t pixel;          /* bytes of an output pixel */
  int32_t rows;           /* kernel_h */
  int32_t pitch;          /* elements of a row of columns */
  int32_t plane;          /* elements between channels of columns */
  int32_t weight_plane;   /* elements between channels of weight */
  mcg_lane_t lane[MCG_LANES];
} mcg_depthwise_row_t;

/* to [steps][4] of each channel, `plane` elements apart = a row of kw weights, `next` bytes from one to the next. */
void mcg_depthwise_widen_weights(int16_t *to, int32_t plane, const int8_t *row, int32_t kw, int32_t next);

/* Its loop.  Needs MCG_ASM. */
void mcg_depthwise_widen_taps(int16_t *to, int32_t plane, const int8_t *row, int32_t kw, int32_t next);

/* Columns of each channel, from an even one on, = n pixels at `at`; zeros before the first when it is at an odd place,
 * and after the last when that leaves half a pair.  step: elements from one pair of columns to the next. */
void mcg_depthwise_widen_pixels(const int8_t *at, int32_t pixel, int32_t zero, int32_t odd_place, int32_t n, int16_t *to,
                                int32_t plane, int32_t step);

/* Its loop, in depthwise_plane.S.  Needs MCG_ASM. */
void mcg_depthwise_widen_columns(const int8_t *at, int32_t pixel, int32_t zero, int32_t odd_place, int32_t n, int16_t *to,
                                 int32_t plane, int32_t step);

/* The row, `steps` pairs of a window wide. */
void mcg_depthwise_line(const mcg_depthwise_row_t *s, int32_t stride, int32_t steps);

/* Requantization of four channels from c on; scaled: for mcg_depthwise_row_3x3_*. */
void mcg_depthwise_lanes(const mcg_conv2d_t *p, const int32_t *bias, int32_t c, int scaled, mcg_lane_t lane[MCG_LANES]);

/* to [n] = 0, n a multiple of four */
static inline void mcg_clear(int16_t *to, int32_t n) {
  const int16_t *const end = to + n;
  MCG_ROLLED for (; to != end; to += 4) {
    mcg_store4_aligned(to, 0u);
    mcg_store4_aligned(to + 2, 0u);
  }
}

/* mcg_depthwise by dual MACs; scratch as there.  Returns 0, having done nothing, where it cannot: fewer than four
 * channels, a stride above 2 or a shift below 33. */
int32_t mcg_depthwise_packed(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight,
                             const int32_t *bias, int8_t *y, void *scratch);

/* The row of a 3x3 kernel with stride 1 or 2 whose columns are [4 channels][pairs of columns][3 rows][2]; a lane's `shift` is
 * less 32 and its `offset` shifted left by shift - 33.  Needs MCG_ASM and shifts below 55. */
void mcg_depthwise_row_3x3_1(const mcg_depthwise_row_t *s);
void mcg_depthwise_row_3x3_2(const mcg_depthwise_row_t *s);

/* The row for stride 1 or 2 and 2, 3 or 4 steps (kernel_w / 2 + 1).  Needs MCG_ASM. */
void mcg_depthwise_row_12(const mcg_depthwise_row_t *s);
void mcg_depthwise_row_13(const mcg_depthwise_row_t *s);
void mcg_depthwise_row_14(const mcg_depthwise_row_t *s);
void mcg_depthwise_row_22(const mcg_depthwise_row_t *s);
void mcg_depthwise_row_23(const mcg_depthwise_row_t *s);
void mcg_depthwise_row_24(const mcg_depthwise_row_t *s);

#endif
