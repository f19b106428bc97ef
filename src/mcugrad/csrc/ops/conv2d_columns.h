/* Columns of a convolution (conv2d_strip.h): int8 inputs widened to int16, group by group. */
#ifndef MCG_CONV2D_COLUMNS_H
#define MCG_CONV2D_COLUMNS_H

#include "kernels.h"
#include "ops/conv2d_strip.h"
#include "port.h"

/* columns [n / 4][pitch], `pixels` groups at a time = from [pixels][n] - zero, n > 0 in whole groups; `pixels` is a
 * constant of each call. */
MCG_INLINE void widen(int16_t *columns, int32_t pixels, int32_t pitch, const int8_t *from, int32_t n, int32_t zero) {
  const uint32_t minus = mcg_pair(-zero, -zero);
  const int8_t *const end = from + n;
  MCG_ROLLED for (; from != end; from += 4, columns += pitch) {
    const int8_t *at = from;
    MCG_UNROLLED for (int32_t j = 0; j < pixels; ++j, at += n) {
      if (MCG_DUAL_MAC) {
        const uint32_t v = mcg_load4(at);
        mcg_store4_aligned(columns + 4 * j, mcg_sxtab16(minus, v));
        mcg_store4_aligned(columns + 4 * j + 2, mcg_sxtab16_odd(minus, v));
      } else {
        for (int32_t i = 0; i < 4; ++i) columns[4 * j + i] = (int16_t)(at[i] - zero);
      }
    }
  }
}

static MCG_APART void widen_4(int16_t *columns, const int8_t *from, int32_t n, int32_t zero) {
  widen(columns, 4, 16, from, n, zero);
}

static MCG_APART void widen_1(int16_t *columns, int32_t pitch, const int8_t *from, int32_t n, int32_t zero) {
  widen(columns, 1, pitch, from, n, zero);
}

static void widen_all(int16_t *columns, int32_t pixels, const int8_t *from, int32_t n, int32_t zero) {
  if (MCG_ASM && pixels == 6) mcg_conv2d_widen_6(columns, from, n, zero);
  else if (pixels == 4) widen_4(columns, from, n, zero);
  else widen_1(columns, 4, from, n, zero);
}

/* Windows of 3x3 and three channels, as first layers have: 27 inputs in three runs of nine. */
static inline int mcg_is_colour(const mcg_conv2d_t *p) {
  return p->in_c == 3 && p->live == 3 && p->order == NULL && p->kernel_h == 3 && p->kernel_w == 3;
}

/* A word as a group of columns. */
MCG_INLINE void widen_word(int16_t *columns, uint32_t word, uint32_t minus) {
  mcg_store4_aligned(columns, mcg_sxtab16(minus, word));
  mcg_store4_aligned(columns + 2, mcg_sxtab16_odd(minus, word));
}

static inline uint32_t load2(const int8_t *at) {
  uint16_t v;
  __builtin_memcpy(&v, at, sizeof v);
  return v;
}

/* columns [7 groups][6 pixels][4], `pixels` of each = windows that follow each other, the rows of the
 * first one at a, b and c. */
static MCG_APART void widen_colour(int16_t *columns, int32_t pixels, const mcg_conv2d_t *p, const int8_t *a, const int8_t *b,
                                   const int8_t *c) {
  const uint32_t minus = mcg_pair(-p->x_zero, -p->x_zero);
  const int32_t step = 3 * p->stride_w;
  MCG_ROLLED for (; pixels > 0; --pixels, columns += 4, a += step, b += step, c += step) {
    const uint32_t last = mcg_load4(c + 5);
    widen_word(columns, mcg_load4(a), minus);
    widen_word(columns + 24, mcg_load4(a + 4), minus);
    widen_word(columns + 48, (uint8_t)a[8] | mcg_load4(b) << 8, minus);
    widen_word(columns + 72, mcg_load4(b + 3), minus);
    widen_word(columns + 96, mcg_pkhbt(load2(b + 7), load2(c)), minus);
    widen_word(columns + 120, mcg_load4(c + 2), minus);
    mcg_store4_aligned(columns + 144, mcg_sxtab16_odd(minus, last));
    mcg_store4_aligned(columns + 146, mcg_sxtab16(minus, last) >> 16);
  }
}

#endif
