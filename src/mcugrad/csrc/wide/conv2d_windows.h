/* Windows of a convolution, laid out as rows of a matrix of terms. */
#ifndef MCG_CONV2D_WINDOWS_H
#define MCG_CONV2D_WINDOWS_H

#include "ops/backward.h"
#include "ops/rows.h"
#include "product.h"

typedef struct {
  const mcg_conv2d_t *p;
  const mcg_rows_t *r;
  const int8_t *x, *weight, *rest;
  const int32_t *bias;
  int32_t live, resting; /* terms of a sum: taps * channels */
} conv_t;

/* Returns the end of to [n] = from [n]. */
MCG_INLINE int8_t *copy(int8_t *to, const int8_t *from, int32_t n) {
  int32_t i = 0;
  for (; i + 16 <= n; i += 16) __builtin_memcpy(to + i, from + i, 16);
  if (n - i >= 8) __builtin_memcpy(to + i, from + i, 8), i += 8;
  if (n - i >= 4) __builtin_memcpy(to + i, from + i, 4), i += 4;
  for (; i < n; ++i) to[i] = from[i];
  return to + n;
}

MCG_INLINE int8_t *fill(int8_t *to, int32_t value, int32_t n) {
  for (int32_t i = 0; i < n; ++i) to[i] = (int8_t)value;
  return to + n;
}

/* Channels first ... first + n - 1 of the order at so many neighbouring pixels. */
static inline int8_t *pick(int8_t *to, const int8_t *at, const mcg_conv2d_t *p, int32_t first, int32_t n, int32_t pixels) {
  if (p->order == NULL) return copy(to, at, pixels * n);
  for (; pixels > 0; --pixels, at += p->in_c) {
    for (int32_t i = 0; i < n; ++i) *to++ = at[p->order[first + i]];
  }
  return to;
}

/* to [taps][n], filled up to whole groups = the window of an output pixel */
static inline int8_t *gather(const conv_t *f, int32_t oy, int32_t ox, int32_t first, int32_t n, int8_t *to) {
  const mcg_conv2d_t *p = f->p;
  const int32_t top = oy * p->stride_h - p->pad_top, left = ox * p->stride_w - p->pad_left;
  const mcg_taps_t v = mcg_taps(top, p->kernel_h, p->in_h), h = mcg_taps(left, p->kernel_w, p->in_w);
  for (int32_t ky = 0; ky < p->kernel_h; ++ky) {
    if (ky < v.first || ky >= v.last || h.first >= h.last) {
      to = fill(to, p->x_zero, p->kernel_w * n);
      continue;
    }
    const int8_t *at = mcg_row(f->x, top + ky, f->r->x_rows, p->in_w * p->in_c) + (left + h.first) * p->in_c;
    to = fill(to, p->x_zero, h.first * n);
    to = pick(to, at, p, first, n, h.last - h.first);
    to = fill(to, p->x_zero, (p->kernel_w - h.last) * n);
  }
  return fill(to, 0, -(p->kernel_h * p->kernel_w * n) & (MCG_TERMS - 1));
}

/* Output columns [first, last) of row oy whose windows lie inside the input, all channels in order and no ring's end in
 * between; none where that does not hold. */
static inline mcg_taps_t inside(const conv_t *f, int32_t oy) {
  const mcg_conv2d_t *p = f->p;
  const int32_t top = oy * p->stride_h - p->pad_top;
  mcg_taps_t t = {0, 0};
  if (p->order != NULL || f->resting > 0 || top < 0 || top + p->kernel_h > p->in_h) return t;
  if (mcg_ring_slot(top, f->r->x_rows) + p->kernel_h > f->r->x_rows || p->kernel_w > p->in_w) return t;
  t.first = (p->pad_left + p->stride_w - 1) / p->stride_w;
  t.last = mcg_at_most(p->out_w, (p->in_w - p->kernel_w + p->pad_left) / p->stride_w + 1);
  return t;
}

/* The windows of neighbours that are inside, the first of them at (oy, ox). */
static inline int8_t *gather_inside(const conv_t *f, int32_t oy, int32_t ox, int32_t pixels, int8_t *to) {
  const mcg_conv2d_t *p = f->p;
  const int32_t pitch = p->in_w * p->in_c, n = p->kernel_w * p->in_c, height = p->kernel_h, pad = -f->live & (MCG_TERMS - 1);
  const int32_t step = p->stride_w * p->in_c;
  const int8_t *from = mcg_row(f->x, oy * p->stride_h - p->pad_top, f->r->x_rows, pitch);
  from += (ox * p->stride_w - p->pad_left) * p->in_c;
  int32_t spare = (int32_t)(f->x + (f->r->x_rows - height + 1) * pitch - from) - 16; /* bytes beyond the last 16 to read */
  for (; n <= 16 && pixels > 0 && spare >= 0; --pixels, from += step, spare -= step, to += pad) {
    for (int32_t ky = 0; ky < height; ++ky, to += n) __builtin_memcpy(to, from + ky * pitch, 16); /* the next covers the rest */
  }
  for (; pixels > 0; --pixels, from += step) {
    for (int32_t ky = 0; ky < height; ++ky) to = copy(to, from + ky * pitch, n);
    to = fill(to, 0, pad);
  }
  return to;
}

/* A pixel as a window: its channels in their order, each segment filled up to whole groups. */
static inline int8_t *put_in_order(const conv_t *f, const int8_t *at, int8_t *to) {
  const uint16_t *order = f->p->order;
  const int32_t live = f->live, resting = f->resting;
  for (int32_t i = 0; i < live; ++i) to[i] = at[order[i]];
  to = fill(to + live, 0, -live & (MCG_TERMS - 1));
  for (int32_t i = 0; i < resting; ++i) to[i] = at[order[live + i]];
  return fill(to + resting, 0, -resting & (MCG_TERMS - 1));
}

/* The same of neighbours. */
static inline int8_t *put_all_in_order(const conv_t *f, const int8_t *at, int32_t pixels, int8_t *to) {
  const int32_t n = f->p->in_c;
#if MCG_ANY_ORDER
  if (n <= 64 && f->live % MCG_TERMS == 0 && f->resting % MCG_TERMS == 0) {
    uint8_t order[64] = {0};
    for (int32_t i = 0; i < n; ++i) order[i] = (uint8_t)f->p->order[i];
    for (; pixels > 0; --pixels, at += n, to += n) mcg_pick_bytes(to, at, n, order);
  }
#endif
  for (; pixels > 0; --pixels, at += n) to = put_in_order(f, at, to);
  return to;
}

static inline void gather_pixels(const conv_t *f, int32_t oy, int32_t ox, int32_t pixels, int8_t *to) {
  for (int32_t n; pixels > 0; pixels -= n) {
    const mcg_taps_t inner = inside(f, oy);
    n = 1;
    if (f->p->order != NULL && mcg_is_pointwise(f->p)) {
      n = mcg_at_most(pixels, f->p->out_w - ox);
      to = put_all_in_order(f, mcg_row(f->x, oy, f->r->x_rows, f->p->in_w * f->p->in_c) + ox * f->p->in_c, n, to);
    } else if (ox >= inner.first && ox < inner.last) {
      n = mcg_at_most(pixels, inner.last - ox);
      to = gather_inside(f, oy, ox, n, to);
    } else {
      to = gather(f, oy, ox, 0, f->p->live, to);
      if (f->resting > 0) to = gather(f, oy, ox, f->p->live, f->p->in_c - f->p->live, to);
    }
    ox += n;
    if (ox == f->p->out_w) ox = 0, ++oy;
  }
}

#endif
