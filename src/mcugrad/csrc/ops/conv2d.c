/* Convolution, int8 in and out.
 *
 * The fast path widens the inputs of four output pixels at a time to int16 and multiplies them with one row of weights
 * after the other, so that each weight is loaded and widened once for four products.
 */
#include "fixed.h"
#include "kernels.h"
#include "ops/conv2d_strip.h"
#include "ops/rows.h"

#define GROUP (MCG_PIXELS * 4) /* int16 elements of a group of the columns */

/* A call of the fast path. */
typedef struct {
  const mcg_conv2d_t *p;
  const mcg_rows_t *r;
  const int8_t *x;
  int8_t *bytes;         /* [max(round4(live), round4(resting))] of one pixel */
  int32_t live, resting; /* inputs of an output: taps * channels */
  int32_t outputs;       /* that mcg_conv2d_strip may compute */
} conv_t;

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

static inline int32_t round4(int32_t n) { return (n + 3) & ~3; }

/* to [n] = from [n]; returns the end.  The last word may overlap the one before. */
static inline int8_t *copy(int8_t *to, const int8_t *from, int32_t n) {
  int8_t *const end = to + n;
  if (n < 4) {
    MCG_ROLLED while (to < end) *to++ = *from++;
    return end;
  }
  MCG_ROLLED for (; to + 4 < end; to += 4, from += 4) mcg_store4(to, mcg_load4(from));
  mcg_store4(end - 4, mcg_load4(from + (end - to) - 4));
  return end;
}

static inline int8_t *fill(int8_t *to, int32_t value, int32_t n) {
  int8_t *const end = to + n;
  MCG_ROLLED while (to < end) *to++ = (int8_t)value;
  return end;
}

static inline int8_t *pick(int8_t *to, const int8_t *from, const uint16_t *order, int32_t n) {
  for (int32_t i = 0; i < n; ++i) to[i] = from[order[i]];
  return to + n;
}

/* One pixel's column of a segment: columns [(n + 3) / 4][.][4] = from [n] - zero, then zeros. */
static void widen(int16_t *columns, const int8_t *from, int32_t n, int32_t zero) {
  const uint32_t minus = mcg_pair(-zero, -zero);
  for (; n >= 4; n -= 4, from += 4, columns += GROUP) {
    if (MCG_DUAL_MAC) {
      const uint32_t v = mcg_load4(from);
      mcg_store4_aligned(columns, mcg_sxtab16(minus, v));
      mcg_store4_aligned(columns + 2, mcg_sxtab16_odd(minus, v));
    } else {
      for (int32_t i = 0; i < 4; ++i) columns[i] = (int16_t)(from[i] - zero);
    }
  }
  for (int32_t i = 0; n > 0 && i < 4; ++i) {
    const int32_t at = MCG_DUAL_MAC ? (i & 1) << 1 | i >> 1 : i;
    columns[at] = (int16_t)(i < n ? from[i] - zero : 0);
  }
}

/* to [taps][n] = channels [first, first + n) of the order at every tap of output pixel (oy, ox), up to a whole group. */
static void gather(const conv_t *f, int32_t oy, int32_t ox, int32_t first, int32_t n, int8_t *to) {
  const mcg_conv2d_t *p = f->p;
  const int32_t top = oy * p->stride_h - p->pad_top, left = ox * p->stride_w - p->pad_left;
  const mcg_taps_t h = mcg_taps(left, p->kernel_w, p->in_w);
  for (int32_t ky = 0; ky < p->kernel_h; ++ky) {
    const int32_t iy = top + ky;
    if (iy < 0 || iy >= p->in_h || h.first >= h.last) {
      to = fill(to, p->x_zero, p->kernel_w * n);
      continue;
    }
    const int8_t *at = mcg_row(f->x, iy, f->r->x_rows, p->in_w * p->in_c) + (left + h.first) * p->in_c;
    to = fill(to, p->x_zero, h.first * n);
    if (p->order == NULL) {
      to = copy(to, at, (h.last - h.first) * n);
    } else {
      for (int32_t kx = h.first; kx < h.last; ++kx, at += p->in_c) to = pick(to, at, p->order + first, n);
    }
    to = fill(to, p->x_zero, (p->kernel_w - h.last) * n);
  }
  fill(to, p->x_zero, -(p->kernel_h * p->kernel_w * n) & 3);
}

/* The columns of output pixel (oy, ox), one of the four of a strip. */
static void fetch(const conv_t *f, int32_t oy, int32_t ox, int16_t *columns) {
  const mcg_conv2d_t *p = f->p;
  const int32_t iy = oy * p->stride_h - p->pad_top, ix = ox * p->stride_w - p->pad_left;
  if (f->live == p->in_c && p->order == NULL && iy >= 0 && iy < p->in_h && ix >= 0 && ix < p->in_w) {
    widen(columns, mcg_row(f->x, iy, f->r->x_rows, p->in_w * p->in_c) + ix * p->in_c, p->in_c, p->x_zero);
    return;
  }
  gather(f, oy, ox, 0, p->live, f->bytes);
  widen(columns, f->bytes, round4(f->live), p->x_zero);
  if (f->resting == 0) return;
  gather(f, oy, ox, p->live, p->in_c - p->live, f->bytes);
  widen(columns + MCG_PIXELS * round4(f->live), f->bytes, round4(f->resting), p->x_zero);
}

/* acc [pixel] += columns [groups][4][4] . w [groups][4]. */
static void dot_groups(const int16_t *columns, const int8_t *w, int32_t groups, int32_t acc[MCG_PIXELS]) {
  int32_t a = acc[0], b = acc[1], c = acc[2], d = acc[3];
  for (; groups > 0; --groups, w += 4, columns += GROUP) {
    if (MCG_DUAL_MAC) {
      const uint32_t v = mcg_load4(w), even = mcg_sxtb16(v), odd = mcg_sxtb16_odd(v);
      a = mcg_smlad(mcg_load4_aligned(columns + 2), odd, mcg_smlad(mcg_load4_aligned(columns), even, a));
      b = mcg_smlad(mcg_load4_aligned(columns + 6), odd, mcg_smlad(mcg_load4_aligned(columns + 4), even, b));
      c = mcg_smlad(mcg_load4_aligned(columns + 10), odd, mcg_smlad(mcg_load4_aligned(columns + 8), even, c));
      d = mcg_smlad(mcg_load4_aligned(columns + 14), odd, mcg_smlad(mcg_load4_aligned(columns + 12), even, d));
    } else {
      for (int i = 0; i < 4; ++i) {
        a += columns[i] * w[i];
        b += columns[i + 4] * w[i];
        c += columns[i + 8] * w[i];
        d += columns[i + 12] * w[i];
      }
    }
  }
  acc[0] = a, acc[1] = b, acc[2] = c, acc[3] = d;
}

/* acc [pixel] += columns [(n + 3) / 4][4][4] . w [n]. */
static void dot(const int16_t *columns, const int8_t *w, int32_t n, int32_t acc[MCG_PIXELS]) {
  const int32_t whole = n & ~3;
  dot_groups(columns, w, whole >> 2, acc);
  if (whole < n) {
    int8_t last[4] = {0, 0, 0, 0};
    for (int32_t i = whole; i < n; ++i) last[i - whole] = w[i];
    dot_groups(columns + MCG_PIXELS * whole, last, 1, acc);
  }
}

/* Output o of the strip's pixels. */
static void output(const conv_t *f, const mcg_strip_t *s, int32_t o) {
  int32_t acc[MCG_PIXELS];
  for (int j = 0; j < MCG_PIXELS; ++j) acc[j] = s->bias[o];
  dot(s->columns, s->weight + o * f->live, f->live, acc);
  if (f->resting > 0) dot(s->columns + GROUP * s->live_groups, s->rest + o * f->resting, f->resting, acc);
  for (int j = 0; j < MCG_PIXELS; ++j) {
    s->y[j][o] = mcg_requantize(acc[j], s->multiplier[o], s->shift[o], f->p->y_zero);
  }
}

static void strip(const conv_t *f, const mcg_strip_t *s) {
  if (MCG_ASM && f->outputs > 0) mcg_conv2d_strip(s, f->outputs);
  for (int32_t o = f->outputs; o < f->p->out_c; ++o) output(f, s, o);
}

/* Outputs that mcg_conv2d_strip may compute: all shifts exceed 32, and what it reads too much is still weights. */
static int32_t quick_outputs(const conv_t *f) {
  const mcg_conv2d_t *p = f->p;
  int32_t n = p->out_c;
  if (((f->live | f->resting) & 3) != 0) n -= f->live < 3 || (f->resting > 0 && f->resting < 3) ? 3 : 1;
  for (int32_t o = 0; o < p->out_c; ++o) n = p->shift[o] > 32 ? n : 0;
  return MCG_ASM && n > 0 ? n : 0;
}

/* All strips; one that is not full ends with copies of its last pixel. */
static void strips(const conv_t *f, mcg_strip_t *s, int16_t *columns, int8_t *y) {
  const mcg_conv2d_t *p = f->p;
  int32_t waiting = 0;
  for (int32_t oy = f->r->first; oy < f->r->last; ++oy) {
    int8_t *to = mcg_row_out(y, oy, f->r->y_rows, p->out_w * p->out_c);
    for (int32_t ox = 0; ox < p->out_w; ++ox, to += p->out_c) {
      const int last = oy == f->r->last - 1 && ox == p->out_w - 1;
      do {
        fetch(f, oy, ox, columns + 4 * waiting);
        s->y[waiting++] = to;
      } while (last && waiting < MCG_PIXELS);
      if (waiting < MCG_PIXELS) continue;
      strip(f, s);
      waiting = 0;
    }
  }
}

void mcg_conv2d(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight, const int8_t *rest,
                const int32_t *bias, int8_t *y, void *scratch) {
  if (p->groups != 1) {
    mcg_conv2d_plain(p, r, x, weight, rest, bias, y, scratch);
    return;
  }
  const int32_t taps = p->kernel_h * p->kernel_w, live = taps * p->live, resting = taps * p->in_c - live;
  const int32_t live4 = round4(live), rest4 = round4(resting);
  int16_t *columns = (int16_t *)scratch;
  conv_t f = {p, r, x, (int8_t *)(columns + MCG_PIXELS * (live4 + rest4)), live, resting, 0};
  mcg_strip_t s = {columns, weight, rest, live4 >> 2, rest4 >> 2, live4 - live, rest4 - resting,
                   bias, p->multiplier, p->shift, 2 * p->y_zero + 1, {y, y, y, y}};
  f.outputs = quick_outputs(&f);
  strips(&f, &s, columns, y);
}
