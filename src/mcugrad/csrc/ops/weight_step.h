/* The step of four-bit-residual weights, and the dot products that lead to it. */
#ifndef MCG_WEIGHT_STEP_H
#define MCG_WEIGHT_STEP_H

#include <stdint.h>

#include "kernels.h"

/* weight_step.S knows the order of the fields. */
typedef struct {
  int8_t *weight;         /* [n] */
  uint8_t *residual;      /* [n / 2], low nibble first */
  const int32_t *grad;    /* [n], >> k within +-2^14 */
  const uint32_t *number; /* [n] the channel's share of the random numbers */
  int32_t n;              /* a multiple of four, at least 4 */
  int32_t k;              /* the gradient's shift, 2 ... 30 */
  uint32_t key;           /* of the random numbers, the row's share included */
} mcg_nibbles_t;

/* W = (w << 4) + residual - ((grad + r) >> k), kept within +-2032; w = RSH(W, 4), residual = W - (w << 4).  Needs MCG_ASM. */
void mcg_step_nibbles(const mcg_nibbles_t *s);

/* Four channels of a depthwise weight; weight_step.S knows the order of the fields. */
typedef struct {
  uint32_t number[4]; /* the channels' shares of the random numbers */
  int32_t factor[4];  /* -2^(32 - k) */
  int8_t *weight;     /* [taps][live], from the first of the four on */
  uint8_t *residual;  /* likewise, low nibble first */
  const int32_t *grad; /* [taps][4], >> k within +-2^14 */
  int32_t taps;
  uint32_t key;       /* of the random numbers */
  int32_t live;       /* even; of one tap unused */
} mcg_columns_t;

/* mcg_step_nibbles for each tap.  Needs MCG_ASM. */
void mcg_step_columns(const mcg_columns_t *s);

#define MCG_GRADS 48 /* elements between the gradients of two outputs */

/* Gradients of a few channels of a 1x1 convolution, some outputs at a time. */
typedef struct {
  int32_t first, n;       /* channels first ... first + n - 1, as the weight counts them; at most MCG_GRADS */
  int32_t positions;      /* that the gradients sum up */
  int32_t *grad;          /* [outputs][MCG_GRADS], overwritten */
  const uint32_t *number; /* [n] the channels' share of the random numbers */
  int32_t *moved;         /* [O] sum mu * change of the channels before: a bias is clamped once; unused without mu or before */
  int32_t nibbles;        /* set by mcg_weight_rows_start: the first channels, for mcg_step_nibbles; all of several rows, -1 */
  int32_t shift;          /* likewise: k less base[o] */
  uint32_t key;           /* likewise */
} mcg_weight_rows_t;

/* Before the first outputs. */
void mcg_weight_rows_start(const mcg_weight_step_t *step, mcg_weight_rows_t *rows);

/* Moves the weights of outputs o ... o + outputs - 1 by their gradients and centres them; mu [n] of these
 * channels, or null. */
void mcg_weight_rows(const mcg_weight_step_t *step, int32_t o, int32_t outputs, const mcg_weight_rows_t *rows,
                     const int16_t *mu);

#define MCG_FOURS 4 /* outputs, or weights, at once */

/* The same for outputs o ... o + 3, of which each has all channels, an odd number; returns whether it could. */
int mcg_weight_odd_rows(const mcg_weight_step_t *step, int32_t o, const mcg_weight_rows_t *rows, const int16_t *mu);

/* Whether the step (gradient + r) >> k stays within 2^14; each position adds less than 2^16 to the gradient. */
static inline int mcg_step_is_bounded(int32_t k, int32_t positions) {
  return (uint32_t)(k - 2) <= 28u && positions <= 1 << (k - 2);
}

/* A block of gradients; conv2d_update.S knows the order of the fields. */
typedef struct {
  const int16_t *x; /* [channels / 2][.][2][2]: pairs of positions of pairs of channels */
  const int16_t *h; /* [pairs][4][2]: likewise of four outputs */
  int32_t *grad;    /* [4][MCG_GRADS], the channels of an output together */
  int32_t channels; /* even, at least 2 */
  int32_t pairs;    /* of positions, at least 1 */
  int32_t next;     /* bytes of x from one pair of channels to the next */
  int32_t keep;     /* whether to add to what is in grad */
} mcg_outer_t;

/* grad = sum over positions of x times h.  Needs MCG_ASM. */
void mcg_outer(const mcg_outer_t *s);

/* to [pairs][4][2] from `pairs` times two rows of h, `pitch` apart, their first four elements; pairs > 0.  Needs MCG_ASM. */
void mcg_outer_widen(const int8_t *h, int32_t pairs, int32_t pitch, int16_t *to);

/* Four channels of x for mcg_outer; conv2d_update.S knows the order of the fields. */
typedef struct {
  const int8_t *x;
  int32_t pairs;      /* of positions, at least 1 */
  int32_t pitch;      /* of x */
  int16_t *to, *next; /* where the first two channels go, and the others */
  const int16_t *mu;  /* [4], at an address that is a multiple of four */
  uint32_t less;      /* what is added to x, less mu: both lanes */
} mcg_turn_t;

/* Needs MCG_ASM. */
void mcg_outer_turn(const mcg_turn_t *s);

#endif
