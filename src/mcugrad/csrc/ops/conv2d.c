/* Convolution, int8 in and out.
 *
 * The fast path widens the inputs of four output pixels to int16, x - x_zero with the live channels of all taps first,
 * then multiplies them with one row of weights at a time, so that each weight is loaded and widened once for four
 * products.  The inputs of the four pixels alternate: groups [4 pixels][4 inputs].  With dual MACs the inputs a b c d of
 * a whole group are stored as a c b d, which is how SXTB16 takes four weights apart.
 */
#include "fixed.h"
#include "kernels.h"
#include "ops/rows.h"

#define PIXELS 4
#define GROUP (PIXELS * 4) /* int16 elements of a group */

/* Four output pixels and all they need. */
typedef struct {
  const mcg_conv2d_t *p;
  const int8_t *weight; /* [O][n_live] */
  const int8_t *rest;   /* [O][n_rest] */
  const int32_t *bias;  /* [O] */
  int32_t n_live, n_rest;
  int16_t *columns;  /* [round4(n_live) / 4][4][4], then the same of n_rest */
  int8_t *bytes;     /* [max(n_live, n_rest)] of one pixel */
  int8_t *y[PIXELS]; /* [O] each */
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

static inline int8_t *pick(int8_t *to, const int8_t *from, const uint16_t *order, int32_t n) {
  for (int32_t i = 0; i < n; ++i) to[i] = from[order[i]];
  return to + n;
}

/* One pixel's column of a segment: columns [n / 4][.][4] = from [n] - zero. */
static void widen(int16_t *columns, const int8_t *from, int32_t n, int32_t zero) {
  const uint32_t minus = mcg_pair(-zero, -zero);
  for (; MCG_DUAL_MAC && n >= 4; n -= 4, from += 4, columns += GROUP) {
    const uint32_t v = mcg_load4(from);
    mcg_store4_aligned(columns, mcg_sxtab16(minus, v));
    mcg_store4_aligned(columns + 2, mcg_sxtab16_odd(minus, v));
  }
  for (; n >= 4; n -= 4, from += 4, columns += GROUP) {
    for (int32_t i = 0; i < 4; ++i) columns[i] = (int16_t)(from[i] - zero);
  }
  for (int32_t i = 0; i < n; ++i) columns[i] = (int16_t)(from[i] - zero);
}

/* to [taps][n] = channels [first, first + n) of the order at every tap of output pixel (oy, ox). */
static void gather(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, int32_t oy, int32_t ox, int32_t first,
                   int32_t n, int8_t *to) {
  const int32_t top = oy * p->stride_h - p->pad_top, left = ox * p->stride_w - p->pad_left;
  const mcg_taps_t h = mcg_taps(left, p->kernel_w, p->in_w);
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
      for (int32_t kx = h.first; kx < h.last; ++kx, at += p->in_c) to = pick(to, at, p->order + first, n);
    }
    to = fill(to, p->x_zero, (p->kernel_w - h.last) * n);
  }
}

/* The columns of output pixel (oy, ox), as number `slot` of the strip. */
static void fetch(const strip_t *s, const mcg_rows_t *r, const int8_t *x, int32_t oy, int32_t ox, int32_t slot) {
  const mcg_conv2d_t *p = s->p;
  const int32_t iy = oy * p->stride_h - p->pad_top, ix = ox * p->stride_w - p->pad_left;
  int16_t *columns = s->columns + 4 * slot;
  if (s->n_live == p->in_c && p->order == NULL && iy >= 0 && iy < p->in_h && ix >= 0 && ix < p->in_w) {
    widen(columns, mcg_row(x, iy, r->x_rows, p->in_w * p->in_c) + ix * p->in_c, p->in_c, p->x_zero);
    return;
  }
  gather(p, r, x, oy, ox, 0, p->live, s->bytes);
  widen(columns, s->bytes, s->n_live, p->x_zero);
  if (s->n_rest == 0) return;
  gather(p, r, x, oy, ox, p->live, p->in_c - p->live, s->bytes);
  widen(columns + PIXELS * round4(s->n_live), s->bytes, s->n_rest, p->x_zero);
}

/* acc [pixel] += columns [n / 4][4][4] . w [n]. */
static void dot(const int16_t *columns, const int8_t *w, int32_t n, int32_t acc[PIXELS]) {
  for (; MCG_DUAL_MAC && n >= 4; n -= 4, w += 4, columns += GROUP) {
    const uint32_t v = mcg_load4(w), even = mcg_sxtb16(v), odd = mcg_sxtb16_odd(v);
    for (int j = 0; j < PIXELS; ++j) {
      acc[j] = mcg_smlad(mcg_load4_aligned(columns + 4 * j), even, acc[j]);
      acc[j] = mcg_smlad(mcg_load4_aligned(columns + 4 * j + 2), odd, acc[j]);
    }
  }
  for (; n > 0; n -= 4, w += 4, columns += GROUP) {
    for (int j = 0; j < PIXELS; ++j) {
      for (int i = 0; i < (n < 4 ? n : 4); ++i) acc[j] += columns[4 * j + i] * w[i];
    }
  }
}

/* All outputs of the strip's pixels. */
static void strip(const strip_t *s) {
  const mcg_conv2d_t *p = s->p;
  const int8_t *weight = s->weight, *rest = s->rest;
  for (int32_t o = 0; o < p->out_c; ++o, weight += s->n_live) {
    int32_t acc[PIXELS];
    for (int j = 0; j < PIXELS; ++j) acc[j] = s->bias[o];
    dot(s->columns, weight, s->n_live, acc);
    if (s->n_rest > 0) {
      dot(s->columns + PIXELS * round4(s->n_live), rest, s->n_rest, acc);
      rest += s->n_rest;
    }
    for (int j = 0; j < PIXELS; ++j) s->y[j][o] = mcg_requantize(acc[j], p->multiplier[o], p->shift[o], p->y_zero);
  }
}

/* A strip that is not full ends with copies of its last pixel. */
void mcg_conv2d(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight, const int8_t *rest,
                const int32_t *bias, int8_t *y, void *scratch) {
  const int32_t taps = p->kernel_h * p->kernel_w, n_live = taps * p->live, n_rest = taps * p->in_c - n_live;
  strip_t s = {p, weight, rest, bias, n_live, n_rest, scratch, NULL, {NULL, NULL, NULL, NULL}};
  int32_t waiting = 0;
  if (p->groups != 1) {
    mcg_conv2d_plain(p, r, x, weight, rest, bias, y, scratch);
    return;
  }
  s.bytes = (int8_t *)(s.columns + PIXELS * (round4(n_live) + round4(n_rest)));
  for (int32_t oy = r->first; oy < r->last; ++oy) {
    int8_t *to = mcg_row_out(y, oy, r->y_rows, p->out_w * p->out_c);
    for (int32_t ox = 0; ox < p->out_w; ++ox, to += p->out_c) {
      const int last = oy == r->last - 1 && ox == p->out_w - 1;
      do {
        fetch(&s, r, x, oy, ox, waiting);
        s.y[waiting++] = to;
      } while (last && waiting < PIXELS);
      if (waiting < PIXELS) continue;
      strip(&s);
      waiting = 0;
    }
  }
}
