/* Sums of a depthwise input gradient at evenly spaced positions, from widened h and weights. */
#ifndef MCG_DEPTHWISE_SPAN_H
#define MCG_DEPTHWISE_SPAN_H

#include <stdint.h>

#define MCG_MOST_TAPS 7

/* Four channels lie together as the pairs (0, 2), (1, 3).  depthwise_span.S knows the order of the fields. */
typedef struct {
  const uint32_t *h;    /* [rows][.][2], from the first output that the first position depends on */
  const uint32_t *wide; /* [rows][taps][2] */
  int32_t rows, taps;
  int32_t *acc;         /* [4] of the first position */
  int32_t step;         /* bytes of acc from one position to the next; h goes on by 8 */
  int32_t count;        /* positions of a line */
  int32_t pitch;        /* bytes of a row of h; the next line begins one row on */
  int32_t line;         /* bytes of acc from one line to the next */
  int32_t lines;
} mcg_depthwise_span_t;

/* For rows, count and lines of at least 1 and 1 ... MCG_MOST_TAPS taps.  Needs MCG_ASM. */
void mcg_depthwise_span(const mcg_depthwise_span_t *s);

/* to [n][2] from n words `step` bytes apart, n > 0; returns to + 2 * n.  Needs MCG_ASM. */
uint32_t *mcg_depthwise_span_widen(const int8_t *from, int32_t step, int32_t n, uint32_t *to);

#endif
