/* Weight gradient of a depthwise convolution by dual MACs: see depthwise_update.h.
 *
 * Taps of a row of the window that are a stride apart meet neighbouring elements of the same rows of x: one that is an even
 * number away meets pairs of x as they lie, the others pairs made of two.
 */
#include "backward.h"
#include "depthwise_row.h"
#include "depthwise_update.h"
#include "uses.h"

#define H 2 /* of g->apart */

/* mcg_depthwise_apart in the simplest way; what is padding is zero already. */
static void apart_in_c(const mcg_apart_t *s, const int8_t *from, uint32_t even, uint32_t odd) {
  const int32_t centre[MCG_LANES] = {mcg_low(even), mcg_low(odd), mcg_high(even), mcg_high(odd)};
  for (int32_t i = 0; i < s->rows * s->pixels * MCG_LANES; ++i) {
    const int32_t c = i % MCG_LANES, at = i / MCG_LANES % s->pixels, r = i / MCG_LANES / s->pixels;
    if (at < s->odd_place) continue;
    s->to[c * (s->plane / 2) + r * (s->pitch / 2) + at] = (int16_t)(from[r * s->row + at * s->pixel + c] + centre[c]);
  }
}

/* The products of one row of the window and one tap. */
static void tap_in_c(const mcg_taps_t *t, const mcg_met_t *met, int32_t tap) {
  const int32_t width = MCG_QUAD * t->quads, pitch = width + (t->taps > 3 ? 4 : 2) + t->skip / 2;
  for (int32_t c = 0; c < MCG_LANES; ++c) {
    const int16_t *x = t->x + met->x / 2 + c * (t->x_plane / 2) + tap, *h = t->h + met->h / 2 + c * (t->h_plane / 2);
    int32_t *grad = t->grad + met->grad / 4 + tap * (t->next / 4) + c;
    for (int32_t r = 0; r < met->rows; ++r, x += pitch, h += width) {
      for (int32_t j = 0; j < width; ++j) *grad += x[j] * h[j];
    }
  }
}

/* mcg_depthwise_taps in the simplest way. */
static void taps_in_c(const mcg_taps_t *t) {
  for (const mcg_met_t *met = t->met; met < t->end; ++met) {
    for (int32_t tap = 0; tap < t->taps; ++tap) tap_in_c(t, met, tap);
  }
}

static void apart(const mcg_apart_t *s, const int8_t *from, uint32_t even, uint32_t odd) {
  if (MCG_ASM) mcg_depthwise_apart(s, from, even, odd);
  else apart_in_c(s, from, even, odd);
}

/* n / stride, rounded up, for a stride of 1 or 2. */
static inline int32_t share(int32_t n, int32_t stride) { return (n + stride - 1) >> (stride - 1); }

void mcg_update_planes_begin(mcg_update_planes_t *g, const mcg_conv2d_t *p, int32_t rows, void *scratch) {
  const int32_t quads = (p->out_w + MCG_QUAD - 1) / MCG_QUAD, width = MCG_QUAD * quads, h_plane = rows * width;
  const int32_t pitch = width + mcg_max(share(p->kernel_w, p->stride_w) & ~1, 2);
  const int32_t x_plane = mcg_min((rows - 1) * p->stride_h + p->kernel_h, p->in_h) * pitch;
  mcg_taps_t *const t = &g->taps;
  g->p = p, g->rows = rows, g->first = -1, g->pitch = pitch, g->skip = 2 * (p->stride_h * pitch - width - 4);
  t->met = g->met = (mcg_met_t *)scratch;
  t->h = (int16_t *)(void *)(g->met + p->kernel_h), g->x = t->h + MCG_LANES * h_plane;
  t->next = 4 * MCG_LANES * p->stride_w, t->x_plane = 2 * x_plane, t->h_plane = 2 * h_plane, t->quads = quads;
  mcg_clear(t->h, MCG_LANES * (h_plane + p->stride_w * x_plane));
}

/* How columns kx, kx + stride, ... of so many rows of x, from row `top` on, are taken apart. */
static MCG_APART void begin_x(mcg_update_planes_t *g, int32_t kx, int32_t top, int32_t rows) {
  const mcg_conv2d_t *p = g->p;
  const int32_t stride = p->stride_w, zeros = mcg_max(share(p->pad_left - kx, stride), 0), odd = zeros & 1;
  const int32_t column = zeros * stride + kx - p->pad_left;
  const int32_t pixels = mcg_min(g->pitch - zeros, share(p->in_w - column, stride));
  mcg_apart_t *const s = &g->apart[kx];
  s->to = g->x + kx * 2 * g->taps.x_plane + zeros - odd, s->row = p->in_w * p->in_c;
  s->plane = g->taps.x_plane, s->pixel = stride * p->in_c, s->pitch = 2 * g->pitch;
  s->odd_place = odd, s->pixels = pixels > 0 ? pixels + odd : 0, s->rows = rows;
  g->offset[kx] = (top * p->in_w + column - odd * stride) * p->in_c;
}

/* How the rows [first, last) of h are taken apart: rows of whole quads as one. */
static inline void begin_h(mcg_update_planes_t *g, int32_t first, int32_t last) {
  const mcg_conv2d_t *p = g->p;
  const int32_t width = MCG_QUAD * g->taps.quads, rows = last - first, whole = width == p->out_w;
  const mcg_apart_t s = {g->taps.h, p->out_w * p->in_c, g->taps.h_plane, p->in_c, 2 * width, 0, whole ? rows * width : p->out_w,
                         whole ? 1 : rows};
  g->apart[H] = s, g->offset[H] = first * s.row;
}

/* What these rows meet; row `top` is the first of x. */
static MCG_APART void begin_met(mcg_update_planes_t *g, int32_t first, int32_t last, int32_t top) {
  const mcg_conv2d_t *p = g->p;
  const int32_t stride = p->stride_h;
  int32_t from = last, end = last; /* rows of h whose tap lies inside the input */
  mcg_met_t *met = g->met;
  for (int32_t ky = -p->pad_top; ky < p->kernel_h - p->pad_top; ++ky) {
    while (from > first && (from - 1) * stride + ky >= 0) --from;
    while (end > from && (end - 1) * stride + ky >= p->in_h) --end;
    if (from == end) continue;
    met->x = 2 * g->pitch * (from * stride + ky - top), met->h = g->apart[H].pitch * (from - first);
    met->rows = end - from, met->grad = 4 * MCG_LANES * p->kernel_w * (ky + p->pad_top);
    ++met;
  }
  g->taps.end = met;
}

/* The rows from `first` on of h. */
static MCG_APART void begin_rows(mcg_update_planes_t *g, int32_t first) {
  const mcg_conv2d_t *p = g->p;
  const int32_t last = mcg_min(first + g->rows, p->out_h), above = first * p->stride_h - p->pad_top, top = mcg_max(above, 0);
  const int32_t bottom = mcg_min(above + (last - 1 - first) * p->stride_h + p->kernel_h, p->in_h);
  begin_h(g, first, last);
  MCG_ROLLED for (int32_t kx = 0; kx < p->stride_w; ++kx) begin_x(g, kx, top, bottom - top);
  begin_met(g, first, last, top);
  g->first = first;
}

/* All taps of the window. */
static MCG_APART void all_taps(mcg_update_planes_t *g, int32_t *grad) {
  const int32_t stride = g->p->stride_w;
  const int16_t *x = g->x;
  mcg_taps_t *t = &g->taps;
  MCG_ROLLED for (int32_t kx = 0; kx < stride; ++kx, x += 2 * t->x_plane, grad += MCG_LANES) {
    t->x = x, t->grad = grad;
    MCG_ROLLED for (int32_t left = share(g->p->kernel_w - kx, stride); left > 0; left -= t->taps) {
      t->taps = (left & 1) != 0 && left <= (MCG_USES_UPDATE_FIVES ? 5 : 3) ? left : 2; /* an even number, unless they are the last */
      t->skip = g->skip + (t->taps > 3 ? 0 : 4);
      if (MCG_ASM) mcg_depthwise_taps(t);
      else taps_in_c(t);
      t->x += t->taps, t->grad += t->taps * stride * MCG_LANES;
    }
  }
}

void mcg_update_planes(mcg_update_planes_t *g, const int8_t *x, const int8_t *h, uint32_t even, uint32_t odd, int32_t *grad) {
  const mcg_conv2d_t *p = g->p;
  MCG_ROLLED for (int32_t *to = grad, *end = grad + MCG_LANES * p->kernel_h * p->kernel_w; to < end; to += MCG_LANES) {
    to[0] = to[1] = to[2] = to[3] = 0;
  }
  MCG_ROLLED for (int32_t first = 0; first < p->out_h; first += g->rows) {
    if (g->first != first) begin_rows(g, first);
    if (g->met == g->taps.end) continue;
    apart(&g->apart[H], h + g->offset[H], 0u, 0u);
    MCG_ROLLED for (int32_t kx = 0; kx < p->stride_w; ++kx) {
      if (g->apart[kx].pixels > 0) apart(&g->apart[kx], x + g->offset[kx], even, odd);
    }
    all_taps(g, grad);
  }
}
