/* Weight gradient of a depthwise convolution, four channels at a time, and their step at once:
 * dW[tap][c] = sum of (x - x_zero - mu_c) * h, which fits int16 times int8; taps in the padding contribute nothing.
 */
#include "backward.h"
#include "wide.h"

#define CHANNELS 4

/* One tap at all positions whose tap lies inside the input. */
typedef struct {
  const int8_t *x, *h; /* channel 0 of the first such position */
  int32_t rows, columns;
  int32_t x_row, h_row, x_step; /* from row to row, and from position to position of x */
} tap_t;

static tap_t tap_at(const mcg_conv2d_t *p, const int8_t *x, const int8_t *h, int32_t ky, int32_t kx) {
  ky *= p->dilation_h;
  kx *= p->dilation_w;
  const mcg_span_t y = mcg_span(ky, p->stride_h, p->pad_top, p->in_h, p->out_h);
  const mcg_span_t z = mcg_span(kx, p->stride_w, p->pad_left, p->in_w, p->out_w);
  const int32_t rows = mcg_max(y.last - y.first, 0), columns = mcg_max(z.last - z.first, 0);
  tap_t t = {x, h, rows, columns, p->stride_h * p->in_w * p->in_c, p->out_w * p->in_c, p->stride_w * p->in_c};
  if (rows == 0 || columns == 0) return t;
  t.x += ((y.first * p->stride_h + ky - p->pad_top) * p->in_w + z.first * p->stride_w + kx - p->pad_left) * p->in_c;
  t.h += (y.first * p->out_w + z.first) * p->in_c;
  return t;
}

/* grad [n]: channels c ... c + n - 1; middle [n] is taken off x. */
static void tap_plain(const tap_t *t, int32_t channels, int32_t c, int32_t n, const int32_t *middle, int32_t *grad) {
  mcg_zero(grad, n);
  for (int32_t r = 0; r < t->rows; ++r) {
    const int8_t *x = t->x + r * t->x_row + c, *h = t->h + r * t->h_row + c;
    for (int32_t i = 0; i < t->columns; ++i) {
      for (int32_t j = 0; j < n; ++j) grad[j] += (x[i * t->x_step + j] - middle[j]) * h[i * channels + j];
    }
  }
}

/* The same for four channels by pairs. */
static MCG_NOINLINE void tap_packed(const tap_t *t, int32_t channels, int32_t c, const int32_t *middle, int32_t *grad) {
  const uint32_t even = mcg_pair(-middle[0], -middle[2]), odd = mcg_pair(-middle[1], -middle[3]);
  const int32_t step = t->x_step;
  int32_t a0 = 0, a1 = 0, a2 = 0, a3 = 0;
  for (int32_t r = 0; r < t->rows; ++r) {
    const int8_t *x = t->x + r * t->x_row + c, *h = t->h + r * t->h_row + c;
#pragma GCC unroll 1
    for (int32_t i = t->columns; i > 0; --i, x += step, h += channels) {
      const uint32_t v = mcg_load4(x), g = mcg_load4(h);
      const uint32_t ve = mcg_sxtab16(even, v), vo = mcg_sxtab16_odd(odd, v);
      const uint32_t ge = mcg_sxtb16(g), go = mcg_sxtb16_odd(g);
      a0 = mcg_smlabb(ve, ge, a0);
      a1 = mcg_smlabb(vo, go, a1);
      a2 = mcg_smlatt(ve, ge, a2);
      a3 = mcg_smlatt(vo, go, a3);
    }
  }
  grad[0] = a0;
  grad[1] = a1;
  grad[2] = a2;
  grad[3] = a3;
}

/* x [in_h][in_w][C], h [out_h][out_w][C], mu [C] or null, scratch int32 [kh][kw][4] */
void mcg_depthwise_update(const mcg_conv2d_t *p, const int8_t *x, const int8_t *h, const int16_t *mu,
                          const mcg_weight_step_t *step, void *scratch) {
  if (MCG_WIDE && mcg_depthwise_update_wide(p, x, h, mu, step)) return;
  int32_t *grad = (int32_t *)scratch;
  for (int32_t c = 0; c < p->in_c; c += CHANNELS) {
    const int32_t n = mcg_min(CHANNELS, p->in_c - c);
    int32_t middle[CHANNELS] = {0, 0, 0, 0};
    for (int32_t j = 0; j < n; ++j) middle[j] = p->x_zero + (mu != NULL ? mu[c + j] : 0);
    for (int32_t tap = 0; tap < p->kernel_h * p->kernel_w; ++tap) {
      const tap_t t = tap_at(p, x, h, tap / p->kernel_w, tap % p->kernel_w);
      if (MCG_DUAL_MAC && n == CHANNELS) {
        tap_packed(&t, p->in_c, c, middle, grad + tap * n);
      } else {
        tap_plain(&t, p->in_c, c, n, middle, grad + tap * n);
      }
    }
    mcg_depthwise_step(step, c, n, grad);
  }
}
