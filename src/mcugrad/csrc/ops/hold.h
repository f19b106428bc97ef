/* What is held until the last sample of a step: the step it lets out is 0 until then. */
#ifndef MCG_HOLD_H
#define MCG_HOLD_H

#include "backward.h"
#include "fixed.h"

#define MCG_HOLD_BITS 8 /* fraction bits of what an int8 weight holds */

/* The step of what is held, `total`. */
static inline int32_t mcg_let_out(const mcg_hold_t *h, int32_t total) {
  return *h->count == h->last ? mcg_rsh(total, h->fraction) : 0;
}

/* Adds a share to element i of 16 bits; returns the step. */
static inline int32_t mcg_hold_16(const mcg_hold_t *h, int32_t i, int32_t share) {
  int16_t *held = (int16_t *)h->held + i;
  const int32_t total = *held + mcg_between(share, -h->most, h->most), step = mcg_let_out(h, total);
  *held = (int16_t)(total - step * (1 << h->fraction));
  return step;
}

/* The same for 32 bits. */
static inline int32_t mcg_hold_32(const mcg_hold_t *h, int32_t i, int32_t share) {
  int32_t *held = (int32_t *)h->held + i;
  const int32_t total = *held + mcg_between(share, -h->most, h->most), step = mcg_let_out(h, total);
  *held = total - step * (1 << h->fraction);
  return step;
}

#endif
