/* The loop of a residual addition. */
#ifndef MCG_ADD_H
#define MCG_ADD_H

#include <stdint.h>

/* Factors go up to twice those of an int16, and are the sums of two.  add.S knows the order of the fields. */
typedef struct {
  const int8_t *a, *b;
  int8_t *to;             /* [n] sums */
  int8_t *end;            /* of them, in whole words, at least one */
  uint32_t factors, more; /* of the pairs (a, b), to be added up */
  int32_t offset;
} mcg_add_words_t;

/* to = clamp8((a * their factors + b * theirs + offset) >> 15).  Needs MCG_ASM. */
void mcg_add_words(const mcg_add_words_t *s);

#endif
