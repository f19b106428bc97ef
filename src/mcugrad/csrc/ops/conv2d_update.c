/* Weight gradient of a convolution and its step at once; no gradient outlives a few channels.
 *
 * dW[tap][i] = sum over positions of (x - x_zero - mu_i) * h; taps in the padding contribute nothing.
 */
#include "backward.h"
#include "dot.h"

#define INPUTS 16    /* most that are computed together; ops/conv2d.py sizes the scratch by both */
#define POSITIONS 64 /* of a block */

/* Input channel j of those that this weight keeps, counted inside its group. */
static inline int32_t channel(const mcg_conv2d_t *p, int32_t j) { return p->order != NULL ? p->order[j] : j; }

/* What dW takes off each x of channel j. */
static inline int32_t middle(const mcg_conv2d_t *p, const int16_t *mu, int32_t j) {
  return p->x_zero + (mu != NULL ? mu[j] : 0);
}

/* grad [live] += x [in_c] * h, x at the first channel of the group. */
static void add_position(const mcg_conv2d_t *p, const int8_t *x, int32_t h, int32_t *grad) {
  if (p->order == NULL) {
    for (int32_t j = 0; j < p->live; ++j) grad[j] += x[j] * h;
  } else {
    for (int32_t j = 0; j < p->live; ++j) grad[j] += x[p->order[j]] * h;
  }
}

/* grad [live] of output o and tap (ky, kx); x at the first channel of the group, mu at its means. */
static MCG_APART void tap_plain(const mcg_conv2d_t *p, const int8_t *x, const int8_t *h, const int16_t *mu, int32_t ky,
                      int32_t kx, int32_t *grad) {
  ky *= p->dilation_h;
  kx *= p->dilation_w;
  const mcg_span_t rows = mcg_span(ky, p->stride_h, p->pad_top, p->in_h, p->out_h);
  const mcg_span_t columns = mcg_span(kx, p->stride_w, p->pad_left, p->in_w, p->out_w);
  int32_t total = 0;
  mcg_zero(grad, p->live);
  for (int32_t oy = rows.first; oy < rows.last; ++oy) {
    const int32_t iy = oy * p->stride_h + ky - p->pad_top;
    for (int32_t ox = columns.first; ox < columns.last; ++ox) {
      const int32_t ix = ox * p->stride_w + kx - p->pad_left, v = h[(oy * p->out_w + ox) * p->out_c];
      total += v;
      if (v != 0) add_position(p, x + (iy * p->in_w + ix) * p->in_c, v, grad);
    }
  }
  for (int32_t j = 0; j < p->live; ++j) grad[j] -= middle(p, mu, j) * total;
}

/* Any convolution, one output and tap at a time; grad [live]. */
static MCG_APART void update_plain(const mcg_conv2d_t *p, const int8_t *x, const int8_t *h, const int16_t *mu,
                         const mcg_weight_step_t *step, int32_t *grad) {
  const int32_t outputs = p->out_c / p->groups, inputs = p->in_c / p->groups;
  for (int32_t o = 0; o < p->out_c; ++o) {
    const int32_t first = o / outputs * inputs;
    const int16_t *means = mu != NULL ? mu + first : NULL;
    int64_t shifted = 0;
    for (int32_t tap = 0; tap < p->kernel_h * p->kernel_w; ++tap) {
      tap_plain(p, x + first, h + o, means, tap / p->kernel_w, tap % p->kernel_w, grad);
      shifted += mcg_weight_step(step, o, tap, 0, p->live, grad, means);
    }
    if (mu != NULL) mcg_centre(step, o, shifted);
  }
}

/* Scratch of a 1x1 update, for blocks of up to `most` positions, and the input channels that it is computing. */
typedef struct {
  int32_t most, inputs; /* a multiple of four, and channels computed together */
  int16_t *columns;     /* [most / 4][4][4]: four widened outputs of h */
  int32_t *grad;        /* [inputs + 1][4] */
  int8_t *turned;       /* [inputs + 1][most]: x by channel, and a row of ones that makes the sums of h */
  int32_t first, n;     /* channels first ... first + n - 1 */
} pointwise_t;

/* turned = x of `count` positions; what follows them meets zeros. */
static MCG_APART void turn(const mcg_conv2d_t *p, const int8_t *x, int32_t count, const pointwise_t *s) {
  int8_t *to = s->turned;
  for (int32_t j = 0; j < s->n; ++j, to += s->most) {
    const int8_t *from = x + channel(p, s->first + j);
    MCG_ROLLED for (int32_t i = 0; i < count; ++i, from += p->in_c) to[i] = *from;
  }
  MCG_ROLLED for (int32_t i = 0; i < count; ++i) to[i] = 1;
}

/* The step of outputs o ... o + n - 1 by grad. */
static MCG_APART void step_outputs(const mcg_conv2d_t *p, const int16_t *mu, const mcg_weight_step_t *step, int32_t o,
                                   int32_t n, const pointwise_t *s) {
  const int32_t *sums = s->grad + MCG_COLUMNS * s->n;
  for (int32_t i = 0; i < n; ++i) {
    int32_t run[INPUTS];
    for (int32_t j = 0; j < s->n; ++j) run[j] = s->grad[MCG_COLUMNS * j + i] - middle(p, mu, s->first + j) * sums[i];
    const int64_t shifted = mcg_weight_step(step, o + i, 0, s->first, s->n, run, mu);
    if (mu != NULL) mcg_centre(step, o + i, shifted);
  }
}

/* A 1x1 convolution, the channels of `s`. */
static void pointwise(const mcg_conv2d_t *p, const int8_t *x, const int8_t *h, const int16_t *mu,
                      const mcg_weight_step_t *step, const pointwise_t *s) {
  const int32_t positions = p->in_h * p->in_w;
  for (int32_t o = 0; o < p->out_c; o += MCG_COLUMNS) {
    const int32_t n = mcg_min(MCG_COLUMNS, p->out_c - o);
    for (int32_t at = 0; at < positions; at += s->most) {
      const int32_t count = mcg_min(s->most, positions - at);
      if (o == 0 || positions > s->most) turn(p, x + at * p->in_c, count, s);
      mcg_widen(h + at * p->out_c + o, count, p->out_c, n, s->columns);
      mcg_multiply(s->turned, s->n + 1, MCG_DUAL_MAC ? mcg_round4(count) : count, s->most, s->columns, s->grad, at > 0);
    }
    step_outputs(p, mu, step, o, n, s);
  }
}

/* x [in_h][in_w][in_c], h [out_h][out_w][out_c], mu [groups * live] or null; scratch: int32 [live], or that of pointwise_t */
void mcg_conv2d_update(const mcg_conv2d_t *p, const int8_t *x, const int8_t *h, const int16_t *mu,
                       const mcg_weight_step_t *step, void *scratch) {
  if (!mcg_is_pointwise(p)) {
    update_plain(p, x, h, mu, step, (int32_t *)scratch);
    return;
  }
  const int32_t most = mcg_min(POSITIONS, mcg_round4(p->in_h * p->in_w));
  pointwise_t s = {most, most > POSITIONS / 2 ? INPUTS / 2 : INPUTS, (int16_t *)scratch, NULL, NULL, 0, 0};
  s.grad = (int32_t *)scratch + 2 * most;
  s.turned = (int8_t *)(s.grad + MCG_COLUMNS * (s.inputs + 1));
  for (; s.first < p->live; s.first += s.inputs) {
    s.n = mcg_min(s.inputs, p->live - s.first);
    pointwise(p, x, h, mu, step, &s);
  }
}
