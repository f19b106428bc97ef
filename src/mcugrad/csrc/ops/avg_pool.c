/* Average pooling, global or windowed; padding is not counted. */
#include "kernels.h"
#include "ops/rows.h"
#include "port.h"

/* floor(n / d), d > 0. */
static inline int32_t floor_divide(int32_t n, int32_t d) { return n >= 0 ? n / d : -((d - 1 - n) / d); }

/* sum / count to nearest, a half as `ties` says. */
MCG_INLINE int32_t average(int32_t sum, int32_t count, int32_t ties) {
  const int32_t twice = 2 * sum + count, up = floor_divide(twice, 2 * count);
  if (ties == MCG_TIES_UP || up * 2 * count != twice) return up;
  return up - (ties == MCG_TIES_AWAY ? up <= 0 : (up & 1) == (ties == MCG_TIES_EVEN));
}

/* sum [4] += four channels of n neighbouring pixels */
static inline void sum_row(const int8_t *at, int32_t pixel, int32_t n, int32_t sum[4]) {
  int32_t a = sum[0], b = sum[1], c = sum[2], d = sum[3];
  MCG_ROLLED for (; n > 0; --n, at += pixel) {
    const uint32_t v = mcg_load4(at);
    a += (int8_t)(v & 0xFFu);
    b += (int8_t)(v >> 8 & 0xFFu);
    c += (int8_t)(v >> 16 & 0xFFu);
    d += (int8_t)(v >> 24);
  }
  sum[0] = a, sum[1] = b, sum[2] = c, sum[3] = d;
}

/* The same for the `lanes` of them that exist. */
static inline void sum_few(const int8_t *at, int32_t pixel, int32_t n, int32_t lanes, int32_t sum[4]) {
  MCG_ROLLED for (; n > 0; --n, at += pixel) {
    MCG_ROLLED for (int32_t i = 0; i < lanes; ++i) sum[i] += at[i];
  }
}

/* Output pixel y [C] from the taps inside the input. */
MCG_INLINE void pixel(const mcg_conv2d_t *p, int32_t ties, const mcg_rows_t *r, const int8_t *x, int32_t oy, int32_t ox,
                      int8_t *y) {
  const int32_t top = oy * p->stride_h - p->pad_top, left = ox * p->stride_w - p->pad_left, channels = p->in_c;
  const mcg_taps_t v = mcg_taps(top, p->kernel_h, p->in_h), h = mcg_taps(left, p->kernel_w, p->in_w);
  const int32_t taps = h.last - h.first, count = (v.last - v.first) * taps;
  for (int32_t c = 0; c < channels; c += 4) {
    const int32_t lanes = channels - c < 4 ? channels - c : 4;
    int32_t sum[4] = {0, 0, 0, 0};
    MCG_ROLLED for (int32_t ky = v.first; ky < v.last; ++ky) {
      const int8_t *at = mcg_row(x, top + ky, r->x_rows, p->in_w * channels) + (left + h.first) * channels + c;
      if (lanes == 4) sum_row(at, channels, taps, sum);
      else sum_few(at, channels, taps, lanes, sum);
    }
    MCG_ROLLED for (int32_t i = 0; i < lanes; ++i) y[c + i] = (int8_t)average(sum[i], count, ties);
  }
}

MCG_INLINE void rows(const mcg_conv2d_t *p, int32_t ties, const mcg_rows_t *r, const int8_t *x, int8_t *y) {
  for (int32_t oy = r->first; oy < r->last; ++oy) {
    int8_t *to = mcg_row_out(y, oy, r->y_rows, p->out_w * p->out_c);
    for (int32_t ox = 0; ox < p->out_w; ++ox, to += p->out_c) pixel(p, ties, r, x, oy, ox, to);
  }
}

void mcg_avg_pool(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, int8_t *y) { rows(p, MCG_TIES_UP, r, x, y); }

void mcg_avg_pool_ties(const mcg_conv2d_t *p, int32_t ties, const mcg_rows_t *r, const int8_t *x, int8_t *y) {
  rows(p, ties, r, x, y);
}
