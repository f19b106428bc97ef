/* Simple functions of a row by MVE. */
#ifndef MCG_LINES_MVE_H
#define MCG_LINES_MVE_H

#include <stdint.h>

/* to [n] = clamp8((a * factor1 + b * factor2 + offset) >> shift).  Needs MCG_MVE. */
void mcg_add_mve(const int8_t *a, const int8_t *b, int32_t factor1, int32_t factor2, int32_t offset, int32_t shift, int32_t n,
                 int8_t *to);

/* to [n / 8] = the bits of y [n], n in whole vectors: did it pass its clamp?  Needs MCG_MVE. */
void mcg_mask_mve(const int8_t *y, int32_t n, uint8_t *to);

#endif
