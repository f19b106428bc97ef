/* Some output pixels of a convolution, widened, and the loop over their outputs. */
#ifndef MCG_CONV2D_STRIP_H
#define MCG_CONV2D_STRIP_H

#include <stdint.h>

#define MCG_PIXELS 6         /* of the largest strip */
#define MCG_PIXELS_OF_MANY 4 /* where a pixel has more inputs than ... */
#define MCG_MANY_INPUTS 384  /* ... these, which bounds the scratch */

/* Groups of inputs that conv2d_strip.S unrolls; the first group of the live inputs stands before the loop. */
#define MCG_STRIP_UNROLLED 4

/* Tails: of one segment with usual shifts (mcg_usual_shift), in so few whole groups that the loop runs once at most, in
 * whole groups, and in groups the last of which lacks inputs; any other. */
enum { MCG_TAIL_FEW = MCG_STRIP_UNROLLED + 1, MCG_TAIL_WHOLE, MCG_TAIL_PADDED, MCG_TAIL_ANY };

/* The columns hold groups [pixels][4 inputs] of x - x_zero, first of the live, then of the resting inputs; each part ends
 * with zeros up to a whole group.  Where dual MACs exist the inputs a b c d of a group are stored as a c b d, which is how
 * SXTB16 takes four weights apart.  Arrays by output are given by their ends, so that one index counts up to zero.
 * conv2d_strip.S knows the order of the fields. */
typedef struct {
  int8_t *y;                 /* [O] */
  int32_t output;            /* minus the number of outputs, at least 1 */
  int32_t pitch;             /* bytes between pixels of y */
  const int32_t *multiplier; /* end of [O] */
  const uint8_t *shift;      /* end of [O] */
  int32_t offset;            /* 2 * y_zero + 1 */
  int8_t *y3;                /* three pixels on from y */
  const int32_t *bias;       /* end of [O] */
  const int16_t *columns;
  const int8_t *weight;      /* [O][live] */
  const int16_t *end;        /* of the columns in work: live_end */
  int32_t tail;              /* MCG_TAIL_..., how an output ends */
  const int16_t *live_end;   /* of the columns */
  int32_t live_pad;          /* what the last group of the live inputs lacks */
  const int16_t *rest_end;   /* live_end without resting inputs */
  const int8_t *rest;        /* [O][resting] */
  int32_t rest_pad;
  int32_t live_entry;        /* groups of the loop to leave out at first, 4: all */
  int32_t rest_entry;
} mcg_strip_t;

/* Shifts for which the rounding term takes in the zero point without overflow. */
static inline int mcg_usual_shift(int32_t shift) { return shift >= 33 && shift < 55; }

/* The outputs of a strip of 6, 4 or 1 pixels.  May read up to three weights beyond the last row, which the zeros in the
 * columns cancel.  Needs MCG_ASM. */
void mcg_conv2d_strip_6(const mcg_strip_t *s);
void mcg_conv2d_strip_4(const mcg_strip_t *s);
void mcg_conv2d_strip_1(const mcg_strip_t *s);

/* columns [n / 4][6 pixels][4] = from [6][n] - zero, n > 0 in whole groups.  Needs MCG_ASM. */
void mcg_conv2d_widen_6(int16_t *columns, const int8_t *from, int32_t n, int32_t zero);

#endif
