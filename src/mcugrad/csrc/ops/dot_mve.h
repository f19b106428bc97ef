/* Products of int8 rows with four int8 columns by MVE. */
#ifndef MCG_DOT_MVE_H
#define MCG_DOT_MVE_H

#include <stdint.h>

#define MCG_COLUMNS_MVE 4

/* out [count][4] = rows [count] of n elements times columns [4] of n elements. */
typedef struct {
  const int8_t *rows, *columns;
  int32_t pitch, next;   /* bytes from row to row, and from column to column */
  int32_t count, n;
  int32_t *out;
  int32_t down, across;  /* elements of out from row to row, and from column to column */
  int32_t keep;          /* whether to add to what is in out */
} mcg_products_t;

/* Needs MCG_MVE. */
void mcg_products(const mcg_products_t *s);

/* to [n] = every `pitch`-th byte from `at` on.  Needs MCG_MVE. */
void mcg_turn_column(const int8_t *at, int32_t n, int32_t pitch, int8_t *to);

#endif
