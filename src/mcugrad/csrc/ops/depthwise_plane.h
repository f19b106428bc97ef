/* Depthwise sums where all input rows under a block of outputs are kept as int16 planes: small maps, and the input gradient of
 * stride 1, which is a convolution by the turned kernel. */
#ifndef MCG_DEPTHWISE_PLANE_H
#define MCG_DEPTHWISE_PLANE_H

#include <stdint.h>

#include "depthwise_row.h"

/* How a block is computed: row by row, as 3x3 windows around each of whole quads of positions, or as a 4x4 map under
 * 3x3 or 5x5 windows. */
typedef enum { MCG_BY_ROWS, MCG_SQUARE, MCG_FOUR } mcg_plane_kind_t;

/* A block of output rows. */
typedef struct {
  int32_t kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left;
  int32_t in_h, in_w, out_w;
  int32_t channels;    /* of the input and the weight */
  int32_t in_rows;     /* that the input keeps */
  int32_t zero;        /* of the input */
  uint8_t turned;      /* whether the last tap comes first */
  uint8_t scaled;      /* whether the lanes can be those of mcg_depthwise_row_3x3_1 */
  uint8_t five;        /* for mcg_plane_quarters: whether no tap comes in the last row of taps */
  int32_t pixel, line; /* bytes from one pixel and one row of the output to the next */
  int32_t first, rows; /* output rows first ... first + rows - 1 */
  int16_t *planes;     /* the scratch of mcg_plane_bytes */
  int32_t top, bottom; /* input rows under the block, top ... bottom - 1; from mcg_plane_begin, as is: */
  int32_t plane;       /* elements of a channel */
  mcg_plane_kind_t kind; /* but by rows: the lanes are scaled */
} mcg_plane_t;

/* Whether blocks of this shape can be computed. */
int32_t mcg_plane_fits(const mcg_plane_t *g);

/* Before the first channels of a block. */
void mcg_plane_begin(mcg_plane_t *g);

/* Four channels of the block; x, weight and y at the channels, x at row 0, y at the block's first row.  s has the lanes. */
void mcg_plane_block(const mcg_plane_t *g, const int8_t *x, const int8_t *weight, mcg_depthwise_row_t *s, int8_t *y);

/* The same where each pixel of the output is the first of 2x2 gradients of a window with stride 2, which meet every other tap:
 * `pixel` and `line` are from two columns and rows to the next two.  g: a 3x3 window around each position of x.  taps: int8
 * [6][6][4], tap (ky, kx) at [ky + 2 - pad_top][kx + 2 - pad_left] and 0 elsewhere; row r of the 2x2 meets rows r + 4, r + 2, r.
 * Needs MCG_USES_DEPTHWISE_QUARTERS. */
void mcg_plane_quarters(const mcg_plane_t *g, const int8_t *x, const int8_t *taps, mcg_depthwise_row_t *s, int8_t *y);

/* Rows of pixels, one after the other, as strips of six columns: the two last begin the next strip.  depthwise_plane.S knows the
 * order of the fields. */
typedef struct {
  const int8_t *x;
  int32_t pixel;  /* bytes from one pixel to the next, and from the last of a row to the first of the next row */
  uint32_t minus; /* the zero point's negative, twice */
  int32_t quads;  /* of pixels of a row */
  int16_t *to;    /* of channel 0; the next row lies a strip's row on */
  int32_t plane, next; /* bytes from one channel and one strip to the next */
  int32_t rows;
} mcg_square_rows_t;

/* For at least one row.  Needs MCG_ASM. */
void mcg_depthwise_square_rows(const mcg_square_rows_t *t);

/* All rows of a block of 3x3 windows.  columns: [4 channels][quads][rows + 2][3][2], six columns of each row; weight:
 * [4 channels][w0 w1, w1 w2][3 rows][2]; rows: of the output; pitch: bytes of an output row.  Needs MCG_ASM. */
void mcg_depthwise_square(const mcg_depthwise_row_t *s);

/* The same where the weights of the first row are 0. */
void mcg_depthwise_square_2(const mcg_depthwise_row_t *s);

/* A 4x4 map.  columns: [4 channels][4 rows][4]; weight: of 3x3 windows as for mcg_depthwise_square, of 5x5 ones [4
 * channels][5 rows][3 steps][4].  Needs MCG_ASM. */
void mcg_depthwise_four_3(const mcg_depthwise_row_t *s);
void mcg_depthwise_four_5(const mcg_depthwise_row_t *s);

#endif
