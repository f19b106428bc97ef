/* One tap of a depthwise weight gradient. */
#ifndef MCG_DEPTHWISE_UPDATE_H
#define MCG_DEPTHWISE_UPDATE_H

#include <stdint.h>

/* All positions whose tap lies inside the input; depthwise_update.S knows the order of the fields. */
typedef struct {
  const int8_t *x, *h; /* channel 0 of the first such position */
  int32_t rows, columns;
  int32_t x_row, h_row, x_step, h_step; /* bytes from row to row, and from position to position */
} mcg_tap_t;

/* grad [4] of four channels, t->x and t->h at the first of them: sums of (x + pair) * h, where the pairs `even` belong to
 * channels 0 2 and `odd` to 1 3.  Needs MCG_ASM and at least one position. */
void mcg_depthwise_tap(const mcg_tap_t *t, uint32_t even, uint32_t odd, int32_t *grad);

#endif
