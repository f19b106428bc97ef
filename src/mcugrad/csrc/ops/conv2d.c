/* Convolution, int8 in and out.
 *
 * The fast path widens the inputs of two output pixels to int16 columns, x - x_zero with the live channels of all taps
 * first, then multiplies the columns with two rows of weights at a time.  With dual MACs each group of four inputs
 * a b c d is stored as a c b d, which is how SXTB16 takes four weights apart.
 */
#include "fixed.h"
#include "kernels.h"
#include "ops/rows.h"

/* Up to two output pixels and all they need. */
typedef struct {
  const mcg_conv2d_t *p;
  const int8_t *weight; /* [O][n_live] */
  const int8_t *rest;   /* [O][n_rest] */
  const int32_t *bias;  /* [O] */
  int32_t n_live, n_rest;
  int16_t *column[2]; /* [round4(n_live) + round4(n_rest)] */
  int8_t *y[2];       /* [O] */
} strip_t;

static inline int32_t round4(int32_t n) { return (n + 3) & ~3; }

/* One input of the sum: sum over taps inside the input and channels of (x - x_zero) * weight. */
static int32_t plain_sum(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight,
                         const int8_t *rest, int32_t o, int32_t oy, int32_t ox) {
  const int32_t per = p->in_c / p->groups, resting = per - p->live, first = o / (p->out_c / p->groups) * per;
  int32_t acc = 0;
  for (int32_t ky = 0; ky < p->kernel_h; ++ky) {
    for (int32_t kx = 0; kx < p->kernel_w; ++kx) {
      const int32_t iy = oy * p->stride_h - p->pad_top + ky, ix = ox * p->stride_w - p->pad_left + kx;
      const int32_t tap = (o * p->kernel_h + ky) * p->kernel_w + kx;
      if (iy < 0 || iy >= p->in_h || ix < 0 || ix >= p->in_w) continue;
      const int8_t *at = mcg_row(x, iy, r->x_rows, p->in_w * p->in_c) + ix * p->in_c + first;
      for (int32_t i = 0; i < per; ++i) {
        const int32_t v = at[p->order != NULL ? p->order[i] : i] - p->x_zero;
        acc += v * (i < p->live ? weight[tap * p->live + i] : rest[tap * resting + i - p->live]);
      }
    }
  }
  return acc;
}

void mcg_conv2d_plain(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight,
                      const int8_t *rest, const int32_t *bias, int8_t *y, void *scratch) {
  (void)scratch;
  for (int32_t oy = r->first; oy < r->last; ++oy) {
    int8_t *to = mcg_row_out(y, oy, r->y_rows, p->out_w * p->out_c);
    for (int32_t ox = 0; ox < p->out_w; ++ox) {
      for (int32_t o = 0; o < p->out_c; ++o) {
        const int32_t acc = bias[o] + plain_sum(p, r, x, weight, rest, o, oy, ox);
        *to++ = mcg_requantize(acc, p->multiplier[o], p->shift[o], p->y_zero);
      }
    }
  }
}

/* n bytes from one place to another; short runs, no call. */
static inline int8_t *copy(int8_t *to, const int8_t *from, int32_t n) {
  int32_t i = 0;
  for (; i + 4 <= n; i += 4) mcg_store4(to + i, mcg_load4(from + i));
  for (; i < n; ++i) to[i] = from[i];
  return to + n;
}

static inline int8_t *fill(int8_t *to, int32_t value, int32_t n) {
  for (int32_t i = 0; i < n; ++i) to[i] = (int8_t)value;
  return to + n;
}

/* column [n] = from - zero, in the order that dot() reads.  `from` may lie in the second half of the column's bytes. */
static void widen(int16_t *column, const int8_t *from, int32_t n, int32_t zero) {
  const uint32_t minus = mcg_pair(-zero, -zero);
  int32_t i = 0;
  for (; MCG_DUAL_MAC && i + 4 <= n; i += 4) {
    const uint32_t v = mcg_load4(from + i);
    mcg_store4_aligned(column + i, mcg_sxtab16(minus, v));
    mcg_store4_aligned(column + i + 2, mcg_sxtab16_odd(minus, v));
  }
  for (; i < n; ++i) column[i] = (int16_t)(from[i] - zero);
}

/* Channels [first, first + n) of the order at every tap of pixel (oy, ox): column [taps * n]. */
static void gather(const strip_t *s, const mcg_rows_t *r, const int8_t *x, int32_t oy, int32_t ox, int32_t first,
                   int32_t n, int16_t *column) {
  const mcg_conv2d_t *p = s->p;
  const int32_t top = oy * p->stride_h - p->pad_top, left = ox * p->stride_w - p->pad_left;
  const int32_t total = p->kernel_h * p->kernel_w * n;
  const mcg_taps_t h = mcg_taps(left, p->kernel_w, p->in_w);
  int8_t *const bytes = (int8_t *)column + round4(total);
  int8_t *to = bytes;
  for (int32_t ky = 0; ky < p->kernel_h; ++ky) {
    const int32_t iy = top + ky;
    if (iy < 0 || iy >= p->in_h || h.first >= h.last) {
      to = fill(to, p->x_zero, p->kernel_w * n);
      continue;
    }
    const int8_t *at = mcg_row(x, iy, r->x_rows, p->in_w * p->in_c) + (left + h.first) * p->in_c;
    to = fill(to, p->x_zero, h.first * n);
    if (p->order == NULL) {
      to = copy(to, at, (h.last - h.first) * n);
    } else {
      for (int32_t kx = h.first; kx < h.last; ++kx, at += p->in_c) {
        for (int32_t i = 0; i < n; ++i) *to++ = at[p->order[first + i]];
      }
    }
    to = fill(to, p->x_zero, (p->kernel_w - h.last) * n);
  }
  widen(column, bytes, total, p->x_zero);
}

/* The column of output pixel (oy, ox). */
static void fetch(const strip_t *s, const mcg_rows_t *r, const int8_t *x, int32_t oy, int32_t ox, int16_t *column) {
  const mcg_conv2d_t *p = s->p;
  const int32_t iy = oy * p->stride_h - p->pad_top, ix = ox * p->stride_w - p->pad_left;
  if (s->n_live == p->in_c && p->order == NULL && iy >= 0 && iy < p->in_h && ix >= 0 && ix < p->in_w) {
    widen(column, mcg_row(x, iy, r->x_rows, p->in_w * p->in_c) + ix * p->in_c, p->in_c, p->x_zero);
    return;
  }
  gather(s, r, x, oy, ox, 0, p->live, column);
  if (s->n_rest > 0) gather(s, r, x, oy, ox, p->live, p->in_c - p->live, column + round4(s->n_live));
}

/* acc[pixel][output] += column . weight over four inputs; the weights of the second output lie `pitch` bytes on. */
MCG_INLINE void dot4(int32_t acc[2][2], const int16_t *c0, const int16_t *c1, const int8_t *w0, const int8_t *w1,
                     int pixels, int outputs) {
  const uint32_t even0 = mcg_load4_aligned(c0), odd0 = mcg_load4_aligned(c0 + 2);
  const uint32_t even1 = pixels > 1 ? mcg_load4_aligned(c1) : 0u, odd1 = pixels > 1 ? mcg_load4_aligned(c1 + 2) : 0u;
  for (int o = 0; o < outputs; ++o) {
    const uint32_t v = mcg_load4(o == 0 ? w0 : w1), even = mcg_sxtb16(v), odd = mcg_sxtb16_odd(v);
    acc[0][o] = mcg_smlad(odd0, odd, mcg_smlad(even0, even, acc[0][o]));
    if (pixels > 1) acc[1][o] = mcg_smlad(odd1, odd, mcg_smlad(even1, even, acc[1][o]));
  }
}

/* acc[pixel][output] += column [n] . weight [n]. */
MCG_INLINE void dot(int32_t acc[2][2], const int16_t *c0, const int16_t *c1, const int8_t *w0, const int8_t *w1,
                    int32_t n, int pixels, int outputs) {
  int32_t i = 0;
  for (; MCG_DUAL_MAC && i + 8 <= n; i += 8) {
    dot4(acc, c0 + i, c1 + i, w0 + i, w1 + i, pixels, outputs);
    dot4(acc, c0 + i + 4, c1 + i + 4, w0 + i + 4, w1 + i + 4, pixels, outputs);
  }
  if (MCG_DUAL_MAC && i + 4 <= n) {
    dot4(acc, c0 + i, c1 + i, w0 + i, w1 + i, pixels, outputs);
    i += 4;
  }
  for (; i < n; ++i) {
    acc[0][0] += c0[i] * w0[i];
    if (pixels > 1) acc[1][0] += c1[i] * w0[i];
    if (outputs > 1) acc[0][1] += c0[i] * w1[i];
    if (pixels > 1 && outputs > 1) acc[1][1] += c1[i] * w1[i];
  }
}

/* Outputs [o, o + outputs) of the strip's pixels. */
MCG_INLINE void block(const strip_t *s, int32_t o, int pixels, int outputs) {
  const int16_t *c0 = s->column[0], *c1 = s->column[1];
  const int8_t *w = s->weight + o * s->n_live;
  int32_t acc[2][2];
  for (int i = 0; i < outputs; ++i) acc[0][i] = acc[1][i] = s->bias[o + i];
  dot(acc, c0, c1, w, w + s->n_live, s->n_live, pixels, outputs);
  if (s->n_rest > 0) {
    const int32_t skip = round4(s->n_live);
    w = s->rest + o * s->n_rest;
    dot(acc, c0 + skip, c1 + skip, w, w + s->n_rest, s->n_rest, pixels, outputs);
  }
  for (int i = 0; i < outputs; ++i) {
    const int32_t m = s->p->multiplier[o + i], shift = s->p->shift[o + i];
    for (int j = 0; j < pixels; ++j) s->y[j][o + i] = mcg_requantize(acc[j][i], m, shift, s->p->y_zero);
  }
}

/* All outputs of the strip's pixels. */
MCG_INLINE void strip(const strip_t *s, int pixels) {
  int32_t o = 0;
  for (; o + 2 <= s->p->out_c; o += 2) block(s, o, pixels, 2);
  if (o < s->p->out_c) block(s, o, pixels, 1);
}

void mcg_conv2d(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight, const int8_t *rest,
                const int32_t *bias, int8_t *y, void *scratch) {
  const int32_t taps = p->kernel_h * p->kernel_w;
  strip_t s = {p, weight, rest, bias, taps * p->live, taps * (p->in_c - p->live), {scratch, scratch}, {y, y}};
  int waiting = 0;
  if (p->groups != 1) {
    mcg_conv2d_plain(p, r, x, weight, rest, bias, y, scratch);
    return;
  }
  s.column[1] += round4(s.n_live) + round4(s.n_rest);
  for (int32_t oy = r->first; oy < r->last; ++oy) {
    int8_t *to = mcg_row_out(y, oy, r->y_rows, p->out_w * p->out_c);
    for (int32_t ox = 0; ox < p->out_w; ++ox, to += p->out_c) {
      fetch(&s, r, x, oy, ox, s.column[waiting]);
      s.y[waiting] = to;
      waiting ^= 1;
      if (waiting == 0) strip(&s, 2);
    }
  }
  if (waiting != 0) strip(&s, 1);
}
