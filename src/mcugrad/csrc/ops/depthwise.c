/* Depthwise convolution, int8 in and out.
 *
 * The fast path takes four channels at a time through all rows of the range.  Their weights are widened to int16 in
 * scratch first; with dual MACs four channels a b c d are held as the pairs (a c) (b d), which is how SXTB16 takes
 * four bytes apart.
 */
#include "fixed.h"
#include "kernels.h"
#include "ops/rows.h"

#define LANES 4

/* Four channels, from channel `first` on. */
typedef struct {
  const mcg_conv2d_t *p;
  const int32_t *bias;       /* [4] */
  const int32_t *multiplier; /* [4] */
  const uint8_t *shift;      /* [4], all > 32 */
  const int16_t *weight;     /* [kh][kw][4] in the order of the lanes */
  int32_t pitch;             /* bytes of an input row */
  int32_t ring;              /* bytes of all rows kept */
  const int8_t *end;         /* of the ring, at these channels */
  mcg_taps_t inner;          /* output columns whose windows lie inside the input */
} block_t;

/* Channels [first, last) of output pixel (oy, ox). */
static void plain_pixel(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight,
                        const int32_t *bias, int32_t oy, int32_t ox, int32_t first, int32_t last, int8_t *y) {
  for (int32_t c = first; c < last; ++c) {
    int32_t acc = bias[c];
    for (int32_t ky = 0; ky < p->kernel_h; ++ky) {
      const int32_t iy = oy * p->stride_h - p->pad_top + ky;
      if (iy < 0 || iy >= p->in_h) continue;
      const int8_t *row = mcg_row(x, iy, r->x_rows, p->in_w * p->in_c);
      for (int32_t kx = 0; kx < p->kernel_w; ++kx) {
        const int32_t ix = ox * p->stride_w - p->pad_left + kx;
        if (ix < 0 || ix >= p->in_w) continue;
        acc += (row[ix * p->in_c + c] - p->x_zero) * weight[(ky * p->kernel_w + kx) * p->in_c + c];
      }
    }
    y[c] = mcg_requantize(acc, p->multiplier[c], p->shift[c], p->y_zero);
  }
}

static void plain_channels(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight,
                           const int32_t *bias, int32_t first, int32_t last, int8_t *y) {
  for (int32_t oy = r->first; oy < r->last; ++oy) {
    int8_t *to = mcg_row_out(y, oy, r->y_rows, p->out_w * p->out_c);
    for (int32_t ox = 0; ox < p->out_w; ++ox, to += p->out_c) {
      plain_pixel(p, r, x, weight, bias, oy, ox, first, last, to);
    }
  }
}

void mcg_depthwise_plain(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight,
                         const int32_t *bias, int8_t *y, void *scratch) {
  (void)scratch;
  plain_channels(p, r, x, weight, bias, 0, p->in_c, y);
}

/* acc [4] += (x [4] - zero) * weight [4]. */
MCG_INLINE void tap(int32_t acc[LANES], const int8_t *x, const int16_t *weight, int32_t zero, uint32_t minus) {
  if (MCG_DUAL_MAC) {
    const uint32_t v = mcg_load4(x), even = mcg_sxtab16(minus, v), odd = mcg_sxtab16_odd(minus, v);
    const uint32_t w_even = mcg_load4_aligned(weight), w_odd = mcg_load4_aligned(weight + 2);
    acc[0] = mcg_smlabb(even, w_even, acc[0]);
    acc[1] = mcg_smlabb(odd, w_odd, acc[1]);
    acc[2] = mcg_smlatt(even, w_even, acc[2]);
    acc[3] = mcg_smlatt(odd, w_odd, acc[3]);
  } else {
    for (int i = 0; i < LANES; ++i) acc[i] += (x[i] - zero) * weight[i];
  }
}

/* One output pixel from the window whose first tap inside the input is at `x`: rows v, `columns` taps of each from
 * tap h on. */
MCG_INLINE void pixel(const block_t *b, const int8_t *x, mcg_taps_t v, int32_t h, int32_t columns, int8_t *y) {
  const mcg_conv2d_t *p = b->p;
  const uint32_t minus = mcg_pair(-p->x_zero, -p->x_zero);
  const int16_t *weight = b->weight + LANES * (v.first * p->kernel_w + h);
  int32_t acc[LANES];
  for (int i = 0; i < LANES; ++i) acc[i] = b->bias[i];
  for (int32_t ky = v.first; ky < v.last; ++ky, weight += LANES * p->kernel_w) {
    for (int32_t kx = 0; kx < columns; ++kx) tap(acc, x + kx * p->in_c, weight + LANES * kx, p->x_zero, minus);
    x += b->pitch;
    if (x >= b->end) x -= b->ring;
  }
  for (int i = 0; i < LANES; ++i) y[i] = mcg_requantize_high(acc[i], b->multiplier[i], b->shift[i], p->y_zero);
}

/* The inner output columns; `columns` is kernel_w, a constant where that pays. */
MCG_INLINE void inner(const block_t *b, const int8_t *x, mcg_taps_t v, int32_t columns, int8_t *y) {
  const mcg_conv2d_t *p = b->p;
  const int32_t step = p->stride_w * p->in_c;
  x += (b->inner.first * p->stride_w - p->pad_left) * p->in_c;
  for (int32_t ox = b->inner.first; ox < b->inner.last; ++ox, x += step) pixel(b, x, v, 0, columns, y + ox * p->out_c);
}

static void border(const block_t *b, const int8_t *x, mcg_taps_t v, int32_t ox, int8_t *y) {
  const mcg_conv2d_t *p = b->p;
  const int32_t left = ox * p->stride_w - p->pad_left;
  const mcg_taps_t h = mcg_taps(left, p->kernel_w, p->in_w);
  pixel(b, x + (left + h.first) * p->in_c, v, h.first, h.last - h.first, y + ox * p->out_c);
}

/* Output row y [out_w] from the rows v of its window, the first of which is x. */
static void row(const block_t *b, const int8_t *x, mcg_taps_t v, int8_t *y) {
  for (int32_t ox = 0; ox < b->inner.first; ++ox) border(b, x, v, ox, y);
  if (b->p->kernel_w == 3) inner(b, x, v, 3, y);
  else if (b->p->kernel_w == 5) inner(b, x, v, 5, y);
  else if (b->p->kernel_w == 7) inner(b, x, v, 7, y);
  else inner(b, x, v, b->p->kernel_w, y);
  for (int32_t ox = b->inner.last; ox < b->p->out_w; ++ox) border(b, x, v, ox, y);
}

/* Output columns whose windows lie inside the input. */
static mcg_taps_t inner_columns(const mcg_conv2d_t *p) {
  mcg_taps_t t = {0, p->out_w};
  while (t.first < p->out_w && t.first * p->stride_w < p->pad_left) ++t.first;
  while (t.last > t.first && (t.last - 1) * p->stride_w - p->pad_left + p->kernel_w > p->in_w) --t.last;
  return t;
}

/* to [taps][4] = weight [taps][C] at four channels. */
static void widen_weight(int16_t *to, const int8_t *weight, int32_t taps, int32_t channels) {
  for (int32_t i = 0; i < taps; ++i, weight += channels, to += LANES) {
    if (MCG_DUAL_MAC) {
      const uint32_t v = mcg_load4(weight);
      mcg_store4_aligned(to, mcg_sxtb16(v));
      mcg_store4_aligned(to + 2, mcg_sxtb16_odd(v));
    } else {
      for (int j = 0; j < LANES; ++j) to[j] = weight[j];
    }
  }
}

static void four_channels(const block_t *b, const mcg_rows_t *r, const int8_t *x, int8_t *y) {
  const mcg_conv2d_t *p = b->p;
  for (int32_t oy = r->first; oy < r->last; ++oy) {
    const int32_t top = oy * p->stride_h - p->pad_top;
    const mcg_taps_t v = mcg_taps(top, p->kernel_h, p->in_h);
    row(b, mcg_row(x, top + v.first, r->x_rows, b->pitch), v, mcg_row_out(y, oy, r->y_rows, p->out_w * p->out_c));
  }
}

static int all_high(const uint8_t *shift) {
  return shift[0] > 32 && shift[1] > 32 && shift[2] > 32 && shift[3] > 32;
}

void mcg_depthwise(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight,
                   const int32_t *bias, int8_t *y, void *scratch) {
  const int32_t pitch = p->in_w * p->in_c, ring = r->x_rows * pitch, channels = p->in_c;
  const mcg_taps_t columns = inner_columns(p);
  if (channels < LANES) {
    mcg_depthwise_plain(p, r, x, weight, bias, y, scratch);
    return;
  }
  for (int32_t next = 0; next < channels; next += LANES) {
    const int32_t c = next + LANES > channels ? channels - LANES : next; /* the last block may overlap the one before */
    const block_t b = {p, bias + c, p->multiplier + c, p->shift + c, scratch, pitch, ring, x + c + ring, columns};
    if (!all_high(b.shift)) {
      plain_channels(p, r, x, weight, bias, c, c + LANES, y);
      continue;
    }
    widen_weight(scratch, weight + c, p->kernel_h * p->kernel_w, channels);
    four_channels(&b, r, x + c, y + c);
  }
}
