/* Input gradient of a 3x3 depthwise convolution of stride 2, masked and stored at once: an output position, which two, one or
 * four taps meet, is one of 2x2 at a position of h. */
#ifndef MCG_DEPTHWISE_HALVES_H
#define MCG_DEPTHWISE_HALVES_H

#include <stdint.h>

#include "backward.h"
#include "depthwise_row.h"

/* From block b on up to one that must go another way, or all; returns whether there is such a block.  The input is twice as wide as
 * h and padded on the left by 1, or by 0, which is walked from right to left; for mcg_chain_is_plain.  scratch: `bytes` of it.
 * Needs MCG_ASM. */
int32_t mcg_depthwise_halves(const mcg_conv2d_t *p, const int8_t *h, const int8_t *weight, const mcg_chain_t *chain,
                             void *scratch, int32_t bytes, mcg_block_t *b);

/* What is widened: each position of the plane holds the pairs (h, h of the row below) of channels 0, 2, 1 and 3, the first two
 * times 256; behind each row is one position of zeros.  depthwise_halves_open.S knows the order of the fields here and below. */
typedef struct {
  const int8_t *h;     /* at channel 0 of the first row that is not above h */
  int32_t step, line;  /* bytes from one position of h, and from one row, to the next */
  int32_t width, back; /* positions of a row; bytes from its end to the next row */
  uint32_t *plane;
  int32_t above;  /* 1: the plane's first row begins above h */
  int32_t twos;   /* pairs of rows of the plane that have three rows of h */
  int32_t below;  /* 1: then two rows, of which the second ends below h */
  int32_t ones;   /* then so many rows */
  uint32_t keep;  /* of their second halves: all bits, or none where that is below h */
} mcg_halves_plane_t;

/* Fills it with four channels of h from c on; returns a power of two of each that its |h| do not exceed. */
uint32_t mcg_halves_widen(const mcg_halves_plane_t *t, int32_t c);

/* The largest |h| of four channels from c on, in `rows` rows from t->h on. */
uint32_t mcg_halves_most(const mcg_halves_plane_t *t, int32_t c, int32_t rows);

/* Weights of channels 0, 2, 1 and 3: w11, then the pairs w12 w10, w21 w01, w22 w02 and w20 w00, the first in the low half, and a
 * multiplier: sums times that have outputs from bit 16 on, those of channels 1 and 3 from bit 8 on. */
typedef struct {
  uint32_t of[MCG_LANES][6];
} mcg_halves_weights_t;

/* Pairs of output rows, of which the upper one meets a row of h, the lower one also the next.  A mask is an offset from an output
 * to its byte, or where the first bits of it are. */
typedef struct {
  intptr_t lower_mask; /* of bytes: of the next output of either row */
  intptr_t mask;
  int32_t next; /* bytes from one output to the next */
  uint32_t zero;
  uint32_t low, high; /* 0x81818181 and 0x02020202; bytes from the bits of an output to those of the next, room */
  int8_t *upper, *lower; /* rows of outputs, at channel 0 as is mask */
  const uint32_t *end;   /* of the first row in the plane */
  int32_t pitch;         /* bytes of a row of the plane */
  const uint32_t *weights;
  uint32_t rounding; /* of outputs from bit 16 on */
  const uint32_t *other_weights;
  uint32_t other_rounding; /* of outputs from bit 8 on; in bits 19:16 which bytes of an output they are */
  int32_t back, mask_back; /* from the end of a row of outputs to the next but one */
  int32_t rows;
} mcg_halves_walk_t;

/* From the first tap at four channels, `next` bytes from one to the next, `row` from one row to the next.  most: |h| of each
 * channel, or more.  Returns 0 where outputs might not stay within +-127, or a multiplier would lose bits. */
int32_t mcg_halves_weigh(const int8_t *weight, int32_t next, const mcg_lane_t lane[MCG_LANES], uint32_t most,
                         mcg_halves_weights_t *to, int32_t row);

/* Both rows of each pair, or one of them; four channels from c on. */
void mcg_halves_both_bytes(const mcg_halves_walk_t *w, int32_t c);
void mcg_halves_both_bits(const mcg_halves_walk_t *w, int32_t c);
void mcg_halves_upper_bytes(const mcg_halves_walk_t *w, int32_t c);
void mcg_halves_upper_bits(const mcg_halves_walk_t *w, int32_t c);
void mcg_halves_lower_bytes(const mcg_halves_walk_t *w, int32_t c);
void mcg_halves_lower_bits(const mcg_halves_walk_t *w, int32_t c);

#endif
