/* Weight gradient of a depthwise convolution, four channels at a time, and their step at once:
 * dW[tap][c] = sum of (x - x_zero - mu_c) * h, which fits int16 times int8; taps in the padding contribute nothing.
 */
#include "backward.h"
#include "depthwise_update.h"
#include "wide.h"

#define CHANNELS 4

static mcg_tap_t tap_at(const mcg_conv2d_t *p, const int8_t *x, const int8_t *h, int32_t ky, int32_t kx) {
  ky *= p->dilation_h;
  kx *= p->dilation_w;
  const mcg_span_t y = mcg_span(ky, p->stride_h, p->pad_top, p->in_h, p->out_h);
  const mcg_span_t z = mcg_span(kx, p->stride_w, p->pad_left, p->in_w, p->out_w);
  const int32_t rows = mcg_max(y.last - y.first, 0), columns = mcg_max(z.last - z.first, 0);
  mcg_tap_t t = {x, h, rows, columns, p->stride_h * p->in_w * p->in_c, p->out_w * p->in_c, p->stride_w * p->in_c, p->in_c};
  if (rows == 0 || columns == 0) return t;
  t.x += ((y.first * p->stride_h + ky - p->pad_top) * p->in_w + z.first * p->stride_w + kx - p->pad_left) * p->in_c;
  t.h += (y.first * p->out_w + z.first) * p->in_c;
  return t;
}

/* grad [n] of the n channels from those that t names; middle [n] is taken off x. */
static void tap_plain(const mcg_tap_t *t, int32_t n, const int32_t *middle, int32_t *grad) {
  mcg_zero(grad, n);
  for (int32_t r = 0; r < t->rows; ++r) {
    const int8_t *x = t->x + r * t->x_row, *h = t->h + r * t->h_row;
    for (int32_t i = 0; i < t->columns; ++i) {
      for (int32_t j = 0; j < n; ++j) grad[j] += (x[i * t->x_step + j] - middle[j]) * h[i * t->h_step + j];
    }
  }
}

/* The same for four channels by pairs, middles of channels 0 2 and 1 3. */
static MCG_NOINLINE void tap_packed(const mcg_tap_t *t, uint32_t even, uint32_t odd, int32_t *grad) {
  int32_t a0 = 0, a1 = 0, a2 = 0, a3 = 0;
  for (int32_t r = 0; r < t->rows; ++r) {
    const int8_t *x = t->x + r * t->x_row, *h = t->h + r * t->h_row;
    MCG_ROLLED for (int32_t i = t->columns; i > 0; --i, x += t->x_step, h += t->h_step) {
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

static void tap(const mcg_tap_t *t, int32_t n, const int32_t *middle, int32_t *grad) {
  if (!MCG_DUAL_MAC || n < CHANNELS) {
    tap_plain(t, n, middle, grad);
    return;
  }
  const uint32_t even = mcg_pair(-middle[0], -middle[2]), odd = mcg_pair(-middle[1], -middle[3]);
  if (MCG_ASM && t->rows > 0 && t->columns > 0) mcg_depthwise_tap(t, even, odd, grad);
  else if (MCG_ASM) mcg_zero(grad, CHANNELS);
  else tap_packed(t, even, odd, grad);
}

/* x [in_h][in_w][C], h [out_h][out_w][C], mu [C] or null, scratch int32 [kh][kw][4] */
void mcg_depthwise_update(const mcg_conv2d_t *p, const int8_t *x, const int8_t *h, const int16_t *mu,
                          const mcg_weight_step_t *step, void *scratch) {
  if (MCG_WIDE && mcg_depthwise_update_wide(p, x, h, mu, step)) return;
  int32_t *grad = (int32_t *)scratch;
  for (int32_t c = 0; c < p->in_c; c += CHANNELS) {
    const int32_t n = mcg_min(CHANNELS, p->in_c - c);
    int32_t middle[CHANNELS] = {0, 0, 0, 0}, *to = grad;
    for (int32_t j = 0; j < n; ++j) middle[j] = p->x_zero + (mu != NULL ? mu[c + j] : 0);
    for (int32_t ky = 0; ky < p->kernel_h; ++ky) {
      for (int32_t kx = 0; kx < p->kernel_w; ++kx, to += n) {
        const mcg_tap_t t = tap_at(p, x + c, h + c, ky, kx);
        tap(&t, n, middle, to);
      }
    }
    mcg_depthwise_step(step, c, n, grad);
  }
}
