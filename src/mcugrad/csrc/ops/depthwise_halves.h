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

/* The plane holds, row after row, the pairs (h, h of the next column) times 256 of channels 2, 0, 1 and 3.
 * depthwise_halves.S knows the order of the fields here and below. */
typedef struct {
  const int8_t *h; /* at channel 0 */
  int32_t step;    /* bytes from one position of h to the next */
  uint32_t *plane;
  int32_t width, rows;
  int32_t back; /* bytes from the end of a row of h to the next one */
} mcg_halves_plane_t;

/* Fills it with four channels of h from c on; returns the largest |h| of each. */
uint32_t mcg_halves_widen(const mcg_halves_plane_t *t, int32_t c);

/* Every other row of outputs.  mask: bytes from an output to that of its mask, or where the first bits of it are. */
typedef struct {
  intptr_t mask;
  intptr_t mask_next; /* the same for the next output, or bytes to the next bits */
  int32_t next;       /* bytes from one output to the next */
  int8_t *out;        /* at channel 0, as is mask */
  uint32_t zero;
  const uint32_t *end; /* of the first row in the plane */
  uint32_t low, high;  /* 0x81818181 and 0x02020202; room */
  int32_t pitch;       /* bytes of a row of the plane */
  int32_t out_back, mask_back; /* from the end of a row of outputs to the next but one */
  int32_t rows;
} mcg_halves_walk_t;

/* Weights of channels 0, 2, 1 and 3 as pairs, the first in the low half, and multipliers: sums times these have an output in their
 * high half.  Among them are constants, so that they come with a load: the half that rounds, and the address of `odd`. */
typedef struct {
  uint32_t even[13]; /* w11 ., w12 w10, multiplier; the rounding behind channel 2 */
  uint32_t odd[18];  /* w22 w20, w02 w00, w21 w01, multiplier; the rounding behind channel 0, the address before channel 3 */
} mcg_halves_weights_t;

/* From the first tap at four channels, `next` bytes from one to the next, `row` from one row to the next.  most: |h| of each
 * channel.  Returns 0 where outputs might not stay within +-127, or a multiplier would lose bits. */
int32_t mcg_halves_weigh(const int8_t *weight, int32_t next, const mcg_lane_t lane[MCG_LANES], uint32_t most,
                         mcg_halves_weights_t *to, int32_t row);

/* Rows of one or of two rows of h, four channels from c on. */
void mcg_halves_even_bytes(const mcg_halves_walk_t *w, const uint32_t *weight, int32_t c);
void mcg_halves_even_bits(const mcg_halves_walk_t *w, const uint32_t *weight, int32_t c);
void mcg_halves_odd_bytes(const mcg_halves_walk_t *w, const uint32_t *weight, int32_t c);
void mcg_halves_odd_bits(const mcg_halves_walk_t *w, const uint32_t *weight, int32_t c);

#endif
