/* Weight gradient of a depthwise convolution at four channels: tap by tap from the maps as they are, or from planes. */
#ifndef MCG_DEPTHWISE_UPDATE_H
#define MCG_DEPTHWISE_UPDATE_H

#include <stdint.h>

#include "kernels.h"

/* All positions whose tap lies inside the input; depthwise_update.S knows the order of the fields. */
typedef struct {
  const int8_t *x, *h; /* channel 0 of the first such position */
  int32_t rows, columns;
  int32_t x_row, h_row, x_step, h_step; /* bytes from row to row, and from position to position */
} mcg_tap_t;

/* grad [4] of four channels, t->x and t->h at the first of them: sums of (x + pair) * h, where the pairs `even` belong to
 * channels 0 2 and `odd` to 1 3.  Needs MCG_ASM and at least one position. */
void mcg_depthwise_tap(const mcg_tap_t *t, uint32_t even, uint32_t odd, int32_t *grad);

/* Rows to be taken apart: the int8 pixels of four channels into a plane of int16 for each, so that a dual MAC takes two
 * neighbours.  depthwise_update_planes.S knows the order of the fields of this and the next. */
typedef struct {
  int16_t *to;          /* of channel 0, an even element */
  int32_t row;          /* bytes from row to row */
  int32_t plane, pixel; /* bytes from channel to channel, and from pixel to pixel */
  int32_t pitch;        /* bytes from row to row of the plane */
  int32_t odd_place;    /* 1: the first of the pixels is none, a zero takes its place */
  int32_t pixels;       /* of a row */
  int32_t rows;         /* at least one */
} mcg_apart_t;

/* `even` is added to channels 0 2 and `odd` to 1 3.  Where half a pair is left, its other half is zero.  Needs MCG_ASM. */
void mcg_depthwise_apart(const mcg_apart_t *s, const int8_t *from, uint32_t even, uint32_t odd);

/* A row of the window: bytes from the planes' beginning to the first of the rows that it meets, and those rows. */
typedef struct {
  int32_t x, h;
  int32_t rows; /* at least one */
  int32_t grad; /* bytes from the gradients of row 0 */
} mcg_met_t;

/* Neighbouring taps, of every row of the window. */
typedef struct {
  const int16_t *x;         /* plane of channel 0, from the first tap of the first position on, which is an even element */
  int16_t *h;               /* its plane, [rows][4 * quads] */
  int32_t *grad;            /* [.][4] from the first tap on */
  int32_t next;             /* bytes from tap to tap */
  int32_t x_plane, h_plane; /* bytes between channels */
  int32_t skip;             /* bytes from the end of what is read of a row of x to the next row */
  int32_t quads, taps;      /* of positions; 1, 2, 3 or 5 */
  const mcg_met_t *met, *end; /* rows of the window, at least one */
} mcg_taps_t;

/* grad of four channels += their products.  Needs MCG_ASM. */
void mcg_depthwise_taps(const mcg_taps_t *t);

/* A few rows of h, and those of x under them, taken apart.  x is centred, its padding zeros; of stride s, columns tap, tap + s,
 * ... are neighbours. */
typedef struct {
  const mcg_conv2d_t *p;
  int32_t rows;         /* of h, at most */
  int32_t pitch;        /* elements of a row of x */
  int32_t skip;         /* after five taps */
  int32_t first;        /* row of h for which the following holds */
  mcg_met_t *met;       /* [kernel_h] */
  int16_t *x;           /* [stride_w][4][.][pitch] */
  int32_t offset[3];    /* bytes from the first pixel of a map to the first that is taken apart */
  mcg_apart_t apart[3]; /* x by columns, then h */
  mcg_taps_t taps;
} mcg_update_planes_t;

/* Before the first channels: planes for so many rows of h in `scratch`, whose size is that of ops/apart.py. */
void mcg_update_planes_begin(mcg_update_planes_t *g, const mcg_conv2d_t *p, int32_t rows, void *scratch);

/* grad [kh][kw][4] of four channels, x and h at the first of them; even, odd: as above. */
void mcg_update_planes(mcg_update_planes_t *g, const int8_t *x, const int8_t *h, uint32_t even, uint32_t odd, int32_t *grad);

#endif
