/* Depthwise convolution, int8 in and out.
 *
 * With dual MACs: depthwise_packed.c.  Without, four channels at a time stay in registers through the window.  In place,
 * their rows under the window are copied to a ring first.
 */
#include "fixed.h"
#include "kernels.h"
#include "ops/depthwise_mve.h"
#include "ops/depthwise_row.h"
#include "ops/depthwise_tile_mve.h"
#include "ops/rows.h"
#include "uses.h"
#include "wide.h"

/* Four channels, from channel `first` on. */
typedef struct {
  const mcg_conv2d_t *p;
  const int32_t *bias;       /* [4] */
  const int32_t *multiplier; /* [4] */
  const uint8_t *shift;      /* [4] */
  const int8_t *weight;      /* [kh][kw][C] */
  int32_t step;              /* bytes from pixel to pixel of the input, or of the ring in which it is copied */
  int32_t pitch;             /* bytes of an input row */
  int32_t ring;              /* bytes of all rows kept */
  const int8_t *end;         /* of the ring, at these channels */
  mcg_taps_t inner;          /* output columns whose windows lie inside the input */
} block_t;

/* Output pixel (oy, ox) to y [C]. */
static void plain_pixel(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight,
                        const int32_t *bias, int32_t oy, int32_t ox, int8_t *y) {
  MCG_ROLLED for (int32_t c = 0; c < p->in_c; ++c) {
    int32_t acc = bias[c];
    MCG_ROLLED for (int32_t ky = 0; ky < p->kernel_h; ++ky) {
      const int32_t iy = oy * p->stride_h - p->pad_top + ky * p->dilation_h;
      if (iy < 0 || iy >= p->in_h) continue;
      const int8_t *row = mcg_row(x, iy, r->x_rows, p->in_w * p->in_c);
      MCG_ROLLED for (int32_t kx = 0; kx < p->kernel_w; ++kx) {
        const int32_t ix = ox * p->stride_w - p->pad_left + kx * p->dilation_w;
        if (ix < 0 || ix >= p->in_w) continue;
        acc += (row[ix * p->in_c + c] - p->x_zero) * weight[(ky * p->kernel_w + kx) * p->in_c + c];
      }
    }
    y[c] = mcg_requantize(acc, p->multiplier[c], p->shift[c], p->y_zero);
  }
}

void mcg_depthwise_plain(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight,
                         const int32_t *bias, int8_t *y, void *scratch) {
  (void)scratch;
  for (int32_t oy = r->first; oy < r->last; ++oy) {
    int8_t *to = mcg_row_out(y, oy, r->y_rows, p->out_w * p->out_c);
    for (int32_t ox = 0; ox < p->out_w; ++ox, to += p->out_c) plain_pixel(p, r, x, weight, bias, oy, ox, to);
  }
}

/* One output pixel from the window whose first tap inside the input is at `x`: rows v, `columns` taps of each from
 * tap h on. */
MCG_INLINE void pixel(const block_t *b, const int8_t *x, mcg_taps_t v, int32_t h, int32_t columns, int8_t *y) {
  const mcg_conv2d_t *p = b->p;
  const int32_t channels = p->in_c, step = b->step, zero = p->x_zero;
  const int8_t *weight = b->weight + channels * (v.first * p->kernel_w + h);
  int32_t acc[MCG_LANES];
  for (int i = 0; i < MCG_LANES; ++i) acc[i] = b->bias[i];
  for (int32_t ky = v.first; ky < v.last; ++ky, weight += channels * p->kernel_w) {
    const int8_t *at = x, *w = weight;
    if (MCG_DUAL_MAC) { /* where this file is for rare cases: less code */
      MCG_ROLLED for (int32_t kx = 0; kx < columns; ++kx, at += step, w += channels) {
        MCG_ROLLED for (int i = 0; i < MCG_LANES; ++i) acc[i] += (at[i] - zero) * w[i];
      }
    } else {
      for (int32_t kx = 0; kx < columns; ++kx, at += step, w += channels) {
        for (int i = 0; i < MCG_LANES; ++i) acc[i] += (at[i] - zero) * w[i];
      }
    }
    x += b->pitch;
    if (x >= b->end) x -= b->ring;
  }
  MCG_ROLLED for (int i = 0; MCG_DUAL_MAC && i < MCG_LANES; ++i) {
    y[i] = mcg_requantize(acc[i], b->multiplier[i], b->shift[i], p->y_zero);
  }
  for (int i = 0; !MCG_DUAL_MAC && i < MCG_LANES; ++i) {
    y[i] = mcg_requantize(acc[i], b->multiplier[i], b->shift[i], p->y_zero);
  }
}

/* The inner output columns; `columns` is kernel_w, a constant where that pays. */
MCG_INLINE void inner(const block_t *b, const int8_t *x, mcg_taps_t v, int32_t columns, int8_t *y) {
  const mcg_conv2d_t *p = b->p;
  const int32_t step = p->stride_w * b->step;
  x += (b->inner.first * p->stride_w - p->pad_left) * b->step;
  for (int32_t ox = b->inner.first; ox < b->inner.last; ++ox, x += step) pixel(b, x, v, 0, columns, y + ox * p->out_c);
}

static void border(const block_t *b, const int8_t *x, mcg_taps_t v, int32_t ox, int8_t *y) {
  const mcg_conv2d_t *p = b->p;
  const int32_t left = ox * p->stride_w - p->pad_left;
  const mcg_taps_t h = mcg_taps(left, p->kernel_w, p->in_w);
  pixel(b, x + (left + h.first) * b->step, v, h.first, h.last - h.first, y + ox * p->out_c);
}

/* Output row y [out_w] from the rows v of its window, the first of which is x. */
static void row(const block_t *b, const int8_t *x, mcg_taps_t v, int8_t *y) {
  for (int32_t ox = 0; ox < b->inner.first; ++ox) border(b, x, v, ox, y);
  if (MCG_DUAL_MAC) return; /* none are inner */
  if (b->p->kernel_w == 3) inner(b, x, v, 3, y);
  else if (b->p->kernel_w == 5) inner(b, x, v, 5, y);
  else if (b->p->kernel_w == 7) inner(b, x, v, 7, y);
  else inner(b, x, v, b->p->kernel_w, y);
  for (int32_t ox = b->inner.last; ox < b->p->out_w; ++ox) border(b, x, v, ox, y);
}

/* Output columns whose windows lie inside the input. */
static mcg_taps_t inner_columns(const mcg_conv2d_t *p) {
  mcg_taps_t t = {0, p->out_w};
  if (MCG_DUAL_MAC) t.first = p->out_w; /* what is left for this file is rare there: less code */
  while (t.first < p->out_w && t.first * p->stride_w < p->pad_left) ++t.first;
  while (t.last > t.first && (t.last - 1) * p->stride_w - p->pad_left + p->kernel_w > p->in_w) --t.last;
  return t;
}

static void four_channels(const block_t *b, const mcg_rows_t *r, const int8_t *x, int8_t *y) {
  const mcg_conv2d_t *p = b->p;
  for (int32_t oy = r->first; oy < r->last; ++oy) {
    const int32_t top = oy * p->stride_h - p->pad_top;
    const mcg_taps_t v = mcg_taps(top, p->kernel_h, p->in_h);
    row(b, mcg_row(x, top + v.first, r->x_rows, b->pitch), v, mcg_row_out(y, oy, r->y_rows, p->out_w * p->out_c));
  }
}

/* Input rows [next, last) of four channels into the ring at `to`; returns last. */
static int32_t copy_rows(const block_t *b, const int8_t *x, int32_t next, int32_t last, int32_t rows, int8_t *to) {
  const mcg_conv2d_t *p = b->p;
  for (; next < last; ++next) {
    const int8_t *from = x + next * p->in_w * p->in_c;
    int8_t *at = to + mcg_ring_slot(next, rows) * b->pitch;
    MCG_ROLLED for (int32_t ix = 0; ix < p->in_w; ++ix, from += p->in_c, at += MCG_LANES) mcg_store4(at, mcg_load4(from));
  }
  return last;
}

/* The same where y is x: a row is copied before the row at its place is written. */
static void four_channels_in_place(const block_t *b, int8_t *x, int32_t rows, int8_t *ring) {
  const mcg_conv2d_t *p = b->p;
  int32_t next = 0;
  for (int32_t oy = 0; oy < p->out_h; ++oy) {
    const int32_t top = oy - p->pad_top;
    const mcg_taps_t v = mcg_taps(top, p->kernel_h, p->in_h);
    next = copy_rows(b, x, next, top + v.last, rows, ring);
    row(b, mcg_row(ring, top + v.first, rows, b->pitch), v, x + oy * p->out_w * p->out_c);
  }
}

/* Four channels and more. */
static MCG_APART void by_channels(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight,
                                  const int32_t *bias, int8_t *y, void *scratch) {
  const int32_t channels = p->in_c, in_place = x == y, rows = p->in_h < p->kernel_h ? p->in_h : p->kernel_h;
  const int32_t step = in_place ? MCG_LANES : channels, pitch = p->in_w * step;
  const int32_t ring = (in_place ? rows : r->x_rows) * pitch;
  const mcg_taps_t columns = inner_columns(p);
  for (int32_t next = 0; next < channels; next += MCG_LANES) {
    const int32_t c = next + MCG_LANES > channels ? channels - MCG_LANES : next; /* the last may overlap the one before */
    const int8_t *const first = in_place ? (const int8_t *)scratch : x + c;
    const block_t b = {p,    bias + c, p->multiplier + c, p->shift + c, weight + c,
                       step, pitch,    ring,              first + ring, columns};
    if (in_place) four_channels_in_place(&b, y + c, rows, (int8_t *)scratch);
    else four_channels(&b, r, x + c, y + c);
  }
}

void mcg_depthwise(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight,
                   const int32_t *bias, int8_t *y, void *scratch) {
  if (MCG_WIDE && mcg_depthwise_wide(p, r, x, weight, bias, y)) return;
  if (MCG_MVE && scratch != NULL && mcg_depthwise_tile(p, r, x, weight, bias, y, scratch)) return;
  if (MCG_MVE && scratch != NULL && mcg_depthwise_mve(p, r, x, weight, bias, y, scratch)) return;
  if (MCG_DUAL_MAC && scratch != NULL && mcg_depthwise_packed(p, r, x, weight, bias, y, scratch)) return;
  if (MCG_DUAL_MAC && !MCG_USES_DEPTHWISE_PLAIN) return; /* it refuses none of them */
  if (p->in_c < MCG_LANES) mcg_depthwise_plain(p, r, x, weight, bias, y, scratch);
  else by_channels(p, r, x, weight, bias, y, scratch);
}
