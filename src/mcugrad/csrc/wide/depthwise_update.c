/* Weight gradient of a depthwise convolution, 16 channels at a time, and their step at once.
 *
 * A line of x, of every stride-th column from one of the first on, meets MCG_TERMS neighbours of a row of h in one mcg_dot;
 * its terms are 0 outside, and what the zero point and the mean take off follows from the sum of h over the positions whose
 * tap lies inside.
 */
#include "ops/backward.h"
#include "wide.h"
#include "product.h"

#define TAPS 256
#define WORDS (4096 / MCG_TERMS) /* of h: neighbours of 16 channels */
#define INSIDE (1024 / MCG_TERMS)
#define LINE 1024
#define BITS (32 / MCG_TERMS) /* of a term */

typedef struct {
  const mcg_conv2d_t *p;
  int32_t across;            /* words of a row of h */
  mcg_wide_t h[WORDS];       /* [out_h][across] */
  mcg_wide_t line[LINE];     /* element MCG_TERMS - 1 + j begins with column j of those of one remainder */
  mcg_wide_t products[TAPS]; /* sums of (x + MCG_FLIP) * h */
  mcg_wide_t sums[TAPS];     /* of h */
  uint32_t inside[INSIDE];   /* [kernel_w][across]: a term 1 where the tap of an output lies inside */
} update_t;

/* Columns of tap kx: the remainder of the stride that they share, and how many of it lie before that of output 0. */
typedef struct {
  int32_t remainder, before;
} column_t;

static column_t column_of(const mcg_conv2d_t *p, int32_t kx) {
  const int32_t at = kx - p->pad_left, stride = p->stride_w;
  const column_t c = {((at % stride) + stride) % stride, at >= 0 ? at / stride : -((stride - 1 - at) / stride)};
  return c;
}

static void load_h(update_t *u, const int8_t *h, int32_t n) {
  const mcg_conv2d_t *p = u->p;
  for (int32_t oy = 0; oy < p->out_h; ++oy, h += p->out_w * p->out_c) {
    for (int32_t q = 0; q < u->across; ++q) {
      const int32_t at = MCG_TERMS * q;
      u->h[oy * u->across + q] = mcg_word(h + at * p->out_c, p->out_c, n, mcg_at_most(MCG_TERMS, p->out_w - at));
    }
  }
}

static void mark_inside(update_t *u) {
  const mcg_conv2d_t *p = u->p;
  for (int32_t kx = 0; kx < p->kernel_w; ++kx) {
    const mcg_span_t span = mcg_span(kx, p->stride_w, p->pad_left, p->in_w, p->out_w);
    for (int32_t q = 0; q < u->across; ++q) {
      uint32_t word = 0;
      for (int32_t i = 0, at = MCG_TERMS * q; i < MCG_TERMS; ++i, ++at) {
        word |= (uint32_t)(at >= span.first && at < span.last) << (i * BITS);
      }
      u->inside[kx * u->across + q] = word;
    }
  }
}

/* sums [kernel_h][kernel_w] += row oy of h, where the taps are inside */
static void add_sums(update_t *u, int32_t oy) {
  const mcg_conv2d_t *p = u->p;
  const mcg_wide_t *h = u->h + oy * u->across;
  const int32_t top = oy * p->stride_h - p->pad_top;
  for (int32_t kx = 0; kx < p->kernel_w; ++kx) {
    mcg_wide_t sum = {0};
    for (int32_t q = 0; q < u->across; ++q) sum = mcg_dot(sum, mcg_splat((int32_t)u->inside[kx * u->across + q]), h[q]);
    for (int32_t ky = 0; ky < p->kernel_h; ++ky) {
      if (top + ky >= 0 && top + ky < p->in_h) u->sums[ky * p->kernel_w + kx] += sum;
    }
  }
}

/* line = n channels of columns left ... of `width`, x at the first, `pixel` bytes apart */
static void fill_line(mcg_wide_t *line, int32_t columns, const int8_t *x, int32_t left, int32_t width, int32_t pixel,
                      int32_t n) {
  mcg_uwide_t v = {0};
  for (int32_t j = left; j < left + columns + MCG_TERMS - 1; ++j) {
    v >>= BITS;
    if (j >= 0 && j < width) v |= (mcg_uwide_t)(mcg_signed(mcg_load_bytes(x + j * pixel, n)) + MCG_FLIP) << (32 - BITS);
    *line++ = (mcg_wide_t)v;
  }
}

/* products [kernel_h][kernel_w] += n channels of input row iy, x at the columns of one remainder */
static void add_products(update_t *u, const int8_t *x, int32_t n, int32_t iy, int32_t remainder) {
  const mcg_conv2d_t *p = u->p;
  const int32_t width = (p->in_w - remainder + p->stride_w - 1) / p->stride_w;
  const int32_t left = column_of(p, 0).before - 1, most = column_of(p, p->kernel_w - 1).before;
  fill_line(u->line, most - left + MCG_TERMS * u->across, x, left, width, p->stride_w * p->in_c, n);
  for (int32_t ky = 0; ky < p->kernel_h; ++ky) {
    const int32_t oy = mcg_reader(iy, ky, p->stride_h, p->pad_top, p->out_h);
    for (int32_t kx = 0; oy >= 0 && kx < p->kernel_w; ++kx) {
      const column_t c = column_of(p, kx);
      if (c.remainder != remainder) continue;
      const mcg_wide_t *h = u->h + oy * u->across, *line = u->line + MCG_TERMS - 1 + c.before - left;
      mcg_wide_t sum = u->products[ky * p->kernel_w + kx];
      for (int32_t q = 0; q < u->across; ++q) sum = mcg_dot(sum, line[MCG_TERMS * q], h[q]);
      u->products[ky * p->kernel_w + kx] = sum;
    }
  }
}

/* Channels c ... c + n - 1. */
static void channels(update_t *u, const int8_t *x, const int8_t *h, const int16_t *mu, const mcg_weight_step_t *step,
                     int32_t c, int32_t n) {
  const mcg_conv2d_t *p = u->p;
  int32_t grad[TAPS * MCG_WIDTH];
  const int32_t taps = p->kernel_h * p->kernel_w;
  mcg_wide_t middle = mcg_splat(MCG_FLIP + p->x_zero);
  for (int32_t j = 0; mu != NULL && j < n; ++j) middle[j] += mu[c + j];
  for (int32_t tap = 0; tap < taps; ++tap) u->products[tap] = u->sums[tap] = (mcg_wide_t){0};
  load_h(u, h + c, n);
  for (int32_t oy = 0; oy < p->out_h; ++oy) add_sums(u, oy);
  for (int32_t iy = 0; iy < p->in_h; ++iy) {
    const int8_t *row = x + iy * p->in_w * p->in_c + c;
    for (int32_t r = 0; r < mcg_min(p->stride_w, p->in_w); ++r) add_products(u, row + r * p->in_c, n, iy, r);
  }
  for (int32_t tap = 0; tap < taps; ++tap) mcg_store_some(grad + tap * n, u->products[tap] - u->sums[tap] * middle, n);
  mcg_depthwise_step(step, c, n, p->out_h * p->out_w, grad);
}

int32_t mcg_depthwise_update_wide(const mcg_conv2d_t *p, const int8_t *x, const int8_t *h, const int16_t *mu,
                                  const mcg_weight_step_t *step) {
  update_t u;
  u.p = p, u.across = mcg_groups(p->out_w);
  if (p->dilation_h != 1 || p->dilation_w != 1 || p->kernel_h * p->kernel_w > TAPS || u.across * p->kernel_w > INSIDE) return 0;
  if (u.across * p->out_h > WORDS || MCG_TERMS * u.across + p->kernel_w + 8 > LINE) return 0;
  mark_inside(&u);
  for (int32_t c = 0; c < p->in_c; c += MCG_WIDTH) channels(&u, x, h, mu, step, c, mcg_min(MCG_WIDTH, p->in_c - c));
  return 1;
}
