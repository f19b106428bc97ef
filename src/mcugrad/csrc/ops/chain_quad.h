/* Mask and requantization of four neighbouring channels of a gradient at once. */
#ifndef MCG_CHAIN_QUAD_H
#define MCG_CHAIN_QUAD_H

#include <stdint.h>

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

#endif
