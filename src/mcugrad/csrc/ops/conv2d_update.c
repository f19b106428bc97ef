/* Weight gradient of a convolution, one output channel at a time, and its step at once.
 *
 * dW[tap][i] = sum over positions of (x - x_zero - mu_i) * h; taps in the padding contribute nothing.
 */
#include "backward.h"

/* Input channel j of those that this weight keeps, counted inside its group. */
static inline int32_t channel(const mcg_conv2d_t *p, int32_t j) { return p->order != NULL ? p->order[j] : j; }

/* grad [live] += x [in_c] * h, x at the first channel of the group. */
static void add_position(const mcg_conv2d_t *p, const int8_t *x, int32_t h, int32_t *grad) {
  if (p->order == NULL) {
    for (int32_t j = 0; j < p->live; ++j) grad[j] += x[j] * h;
  } else {
    for (int32_t j = 0; j < p->live; ++j) grad[j] += x[p->order[j]] * h;
  }
}

/* grad [live] of output o and tap (ky, kx); x at the first channel of the group, mu at its means. */
static void tap_plain(const mcg_conv2d_t *p, const int8_t *x, const int8_t *h, const int16_t *mu, int32_t ky,
                      int32_t kx, int32_t *grad) {
  const mcg_span_t rows = mcg_span(ky, p->stride_h, p->pad_top, p->in_h, p->out_h);
  const mcg_span_t columns = mcg_span(kx, p->stride_w, p->pad_left, p->in_w, p->out_w);
  int32_t sum = 0;
  mcg_zero(grad, p->live);
  for (int32_t oy = rows.first; oy < rows.last; ++oy) {
    const int32_t iy = oy * p->stride_h + ky - p->pad_top;
    for (int32_t ox = columns.first; ox < columns.last; ++ox) {
      const int32_t ix = ox * p->stride_w + kx - p->pad_left, v = h[(oy * p->out_w + ox) * p->out_c];
      sum += v;
      if (v != 0) add_position(p, x + (iy * p->in_w + ix) * p->in_c, v, grad);
    }
  }
  for (int32_t j = 0; j < p->live; ++j) grad[j] -= (p->x_zero + (mu != NULL ? mu[channel(p, j)] : 0)) * sum;
}

/* x [in_h][in_w][in_c], h [out_h][out_w][out_c], mu [in_c] or null, scratch int32 [taps][live] */
void mcg_conv2d_update(const mcg_conv2d_t *p, const int8_t *x, const int8_t *h, const int16_t *mu,
                       const mcg_weight_step_t *step, void *scratch) {
  int32_t *grad = (int32_t *)scratch;
  const int32_t outputs = p->out_c / p->groups, inputs = p->in_c / p->groups;
  for (int32_t o = 0; o < p->out_c; ++o) {
    const int32_t first = o / outputs * inputs;
    const int16_t *means = mu != NULL ? mu + first : NULL;
    for (int32_t tap = 0; tap < p->kernel_h * p->kernel_w; ++tap) {
      tap_plain(p, x + first, h + o, means, tap / p->kernel_w, tap % p->kernel_w, grad + tap * p->live);
    }
    mcg_weight_step(step, o, grad, means);
  }
}
