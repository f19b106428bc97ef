/* Mask and requantization of four neighbouring channels of a gradient at once. */
#ifndef MCG_CHAIN_QUAD_H
#define MCG_CHAIN_QUAD_H

#include <stdint.h>

#include "backward.h"
#include "depthwise_row.h"

/* clampg((high word of v * multiplier + rounding) >> shift): MBQM for sh > 32 with rounding = 2^(sh - 33) and
 * shift = sh - 32. */
typedef struct {
  int32_t multiplier, rounding, shift;
} mcg_quad_lane_t;

/* chain_quad.S knows the order of the fields. */
typedef struct {
  const int32_t *acc; /* [count] quads */
  const void *mask;   /* of the first position */
  int8_t *out;        /* [count] quads */
  int32_t count;      /* even, at least 2 */
  int32_t mask_step, out_step, acc_step; /* bytes from one position to the next */
  mcg_quad_lane_t lane[4];
} mcg_quad_t;

/* Returns 0 only when the clamp changed nothing.  The mask is four bytes of the clamp's output, or the low or high four
 * bits of a byte.  Needs MCG_ASM. */
int32_t mcg_chain_quad_bytes(const mcg_quad_t *q);
int32_t mcg_chain_quad_low(const mcg_quad_t *q);
int32_t mcg_chain_quad_high(const mcg_quad_t *q);

/* Four channels that were requantized to words of int8; chain_quad.S knows the order of the fields. */
typedef struct {
  const int8_t *words;
  const void *mask;   /* of the first position */
  int8_t *out;
  int32_t count;      /* at least 1 */
  int32_t mask_step, out_step; /* bytes from one position to the next */
  int32_t up;         /* from the four bits of a mask to GE */
} mcg_words_t;

/* Masks and stores the words, and returns how many -128 the clamp changed; -1, having done nothing, where something has
 * set Q.  Q is 0 then.  The mask is four bytes of the clamp's output, or four bits.  Needs MCG_ASM. */
int32_t mcg_chain_words_bytes(const mcg_words_t *q);
int32_t mcg_chain_words_bits(const mcg_words_t *q);
void mcg_chain_clear_q(void);

/* Whether all that a chain does to `channels` channels is to mask and store them, in quads. */
int32_t mcg_chain_is_plain(const mcg_chain_t *chain, int32_t channels);

/* Requantization of four channels from c on, to clamp8, of such a chain; scaled: see depthwise_row.h.  0 where a shift
 * forbids it. */
int32_t mcg_chain_lanes(const mcg_chain_t *chain, int32_t c, int32_t scaled, mcg_lane_t lane[MCG_LANES]);

/* The rest of it for the four channels of a block; 0, having done nothing, where they were clamped. */
int32_t mcg_chain_words(const mcg_chain_t *chain, const mcg_block_t *b, const int8_t *words);

#endif
