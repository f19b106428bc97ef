/* Weight gradient of a depthwise convolution, four channels at a time, and their step at once:
 * dW[tap][c] = sum of (x - x_zero - mu_c) * h, which fits int16 times int8; taps in the padding contribute nothing.
 */
#include "backward.h"
#include "depthwise_update.h"
#include "uses.h"
#include "wide.h"

#define CHANNELS 4
#define FEW (MCG_USES_UPDATE_FEW || !MCG_DUAL_MAC)      /* some channels are no four */
#define BY_TAPS (MCG_USES_UPDATE_TAPS || !MCG_DUAL_MAC) /* some call reads its operands as they are */

/* Output positions along one side whose tap lies inside the input; {0, 0} for none. */
static mcg_span_t inside(int32_t tap, int32_t dilation, int32_t stride, int32_t pad, int32_t size, int32_t outputs) {
  const mcg_span_t span = mcg_span(tap * dilation, stride, pad, size, outputs);
  const mcg_span_t none = {0, 0};
  return span.first < span.last ? span : none;
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

/* Four channels, or n < 4. */
typedef struct {
  int32_t n, middle[CHANNELS];
  uint32_t even, odd; /* pairs of -middle */
} channels_t;

static channels_t channels_at(const mcg_conv2d_t *p, const int16_t *mu, int32_t c) {
  channels_t s = {FEW ? mcg_min(CHANNELS, p->in_c - c) : CHANNELS, {0, 0, 0, 0}, 0u, 0u};
  for (int32_t j = 0; j < s.n; ++j) s.middle[j] = p->x_zero + (mu != NULL ? mu[c + j] : 0);
  s.even = mcg_pair(-s.middle[0], -s.middle[2]), s.odd = mcg_pair(-s.middle[1], -s.middle[3]);
  return s;
}

static void tap(const mcg_tap_t *t, const channels_t *s, int32_t *grad) {
  if (!MCG_DUAL_MAC || (FEW && s->n < CHANNELS)) tap_plain(t, s->n, s->middle, grad);
  else if (MCG_ASM) mcg_depthwise_tap(t, s->even, s->odd, grad);
  else tap_packed(t, s->even, s->odd, grad);
}

/* grad [kw][n] of row ky of the window; x and h at the first channel. */
static MCG_APART void tap_row(const mcg_conv2d_t *p, const int8_t *x, const int8_t *h, int32_t ky, const channels_t *s,
                              int32_t *grad) {
  const mcg_span_t rows = inside(ky, p->dilation_h, p->stride_h, p->pad_top, p->in_h, p->out_h);
  const int32_t pitch = p->in_w * p->in_c, across = p->out_w * p->in_c, step = p->stride_w * p->in_c;
  const int32_t row = (rows.first * p->stride_h + ky * p->dilation_h - p->pad_top) * pitch;
  mcg_tap_t t = {x, h, rows.last - rows.first, 0, p->stride_h * pitch, across, step, p->in_c};
  for (int32_t kx = 0; kx < p->kernel_w; ++kx, grad += s->n) {
    const mcg_span_t columns = inside(kx, p->dilation_w, p->stride_w, p->pad_left, p->in_w, p->out_w);
    t.columns = columns.last - columns.first;
    if (t.rows > 0 && t.columns > 0) {
      t.x = x + row + columns.first * step + (kx * p->dilation_w - p->pad_left) * p->in_c;
      t.h = h + rows.first * across + columns.first * p->in_c;
      tap(&t, s, grad);
    } else {
      mcg_zero(grad, s->n);
    }
  }
}

/* x [in_h][in_w][C], h [out_h][out_w][C], mu [C] or null, scratch int32 [kh][kw][4], then planes for `rows` of h */
void mcg_depthwise_update(const mcg_conv2d_t *p, const int8_t *x, const int8_t *h, const int16_t *mu, int32_t rows,
                          const mcg_weight_step_t *step, void *scratch) {
  if (MCG_WIDE && mcg_depthwise_update_wide(p, x, h, mu, step)) return;
  int32_t *const grad = (int32_t *)scratch;
  const int in_planes = MCG_DUAL_MAC && MCG_USES_UPDATE_PLANES && rows > 0;
  mcg_update_planes_t g;
  if (in_planes) mcg_update_planes_begin(&g, p, rows, grad + CHANNELS * p->kernel_h * p->kernel_w);
  for (int32_t c = 0; c < p->in_c; c += CHANNELS) {
    const channels_t s = channels_at(p, mu, c);
    if (in_planes && s.n == CHANNELS) mcg_update_planes(&g, x + c, h + c, s.even, s.odd, grad);
    else if (BY_TAPS) for (int32_t ky = 0; ky < p->kernel_h; ++ky) tap_row(p, x + c, h + c, ky, &s, grad + ky * p->kernel_w * s.n);
    mcg_depthwise_step(step, c, s.n, p->out_h * p->out_w, grad);
  }
}
