/* Weight gradient of a convolution and its step at once; no gradient outlives a few channels.
 *
 * dW[tap][i] = sum over positions of (x - x_zero - mu_i) * h; taps in the padding contribute nothing.
 */
#include "backward.h"
#include "dot.h"

#define OUTPUTS 8 /* computed together, so that a column of x is widened once for all of them */
#define INPUTS 16

/* Input channel j of those that this weight keeps, counted inside its group. */
static inline int32_t channel(const mcg_conv2d_t *p, int32_t j) { return p->order != NULL ? p->order[j] : j; }

/* What dW takes off each x of channel j. */
static inline int32_t middle(const mcg_conv2d_t *p, const int16_t *mu, int32_t j) {
  return p->x_zero + (mu != NULL ? mu[channel(p, j)] : 0);
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
static void tap_plain(const mcg_conv2d_t *p, const int8_t *x, const int8_t *h, const int16_t *mu, int32_t ky,
                      int32_t kx, int32_t *grad) {
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
static void update_plain(const mcg_conv2d_t *p, const int8_t *x, const int8_t *h, const int16_t *mu,
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

/* Scratch of a 1x1 update, for blocks of up to `most` positions. */
typedef struct {
  int32_t most;
  int32_t *grad;   /* [OUTPUTS][INPUTS] */
  int16_t *column; /* [round4(most)][2]: two widened columns of x */
  int8_t *turned;  /* [OUTPUTS][most]: h by output */
} pointwise_t;

/* to [n][positions] = h [positions][pitch], n outputs of it */
static void turn(const int8_t *h, int32_t positions, int32_t pitch, int32_t n, int8_t *to) {
  for (; n >= 4; n -= 4, h += 4, to += 4 * positions) {
    const int8_t *from = h;
    for (int32_t i = 0; i < positions; ++i, from += pitch) {
      const uint32_t v = mcg_load4(from);
      for (int32_t o = 0; o < 4; ++o) to[o * positions + i] = (int8_t)(v >> (8 * o) & 0xFFu);
    }
  }
  for (; n > 0; --n, ++h, to += positions) {
    for (int32_t i = 0; i < positions; ++i) to[i] = h[i * pitch];
  }
}

/* sum of h [n] */
static int32_t sum(const int8_t *h, int32_t n) {
  int32_t total = 0;
  for (int32_t i = 0; i < n; ++i) total += h[i];
  return total;
}

/* grad [n][width] += the share of `positions` positions: channels first ... first + width - 1 of x, turned outputs. */
static void multiply_block(const mcg_conv2d_t *p, const int8_t *x, int32_t positions, int32_t n, int32_t first,
                           int32_t width, const pointwise_t *s) {
  for (int32_t j = 0; j < width; j += 2) {
    const int columns = mcg_min(2, width - j);
    for (int c = 0; c < columns; ++c) {
      mcg_widen(x + channel(p, first + j + c), positions, p->in_c, c, columns, s->column);
    }
    mcg_multiply(s->turned, n, positions, s->column, columns, s->grad + j, INPUTS, 1);
  }
}

/* A 1x1 convolution: outputs o ... o + n - 1. */
static void pointwise(const mcg_conv2d_t *p, const int8_t *x, const int8_t *h, const int16_t *mu,
                      const mcg_weight_step_t *step, int32_t o, int32_t n, const pointwise_t *s) {
  const int32_t positions = p->in_h * p->in_w;
  int64_t shifted[OUTPUTS] = {0};
  int32_t sums[OUTPUTS] = {0};
  for (int32_t first = 0; first < p->live; first += INPUTS) {
    const int32_t width = mcg_min(INPUTS, p->live - first);
    mcg_zero(s->grad, OUTPUTS * INPUTS);
    for (int32_t at = 0; at < positions; at += s->most) {
      const int32_t count = mcg_min(s->most, positions - at);
      if (first == 0 || positions > s->most) turn(h + at * p->out_c + o, count, p->out_c, n, s->turned);
      for (int32_t i = 0; first == 0 && i < n; ++i) sums[i] += sum(s->turned + i * count, count);
      multiply_block(p, x + at * p->in_c, count, n, first, width, s);
    }
    for (int32_t i = 0; i < n; ++i) {
      int32_t *grad = s->grad + i * INPUTS;
      for (int32_t j = 0; j < width; ++j) grad[j] -= middle(p, mu, first + j) * sums[i];
      shifted[i] += mcg_weight_step(step, o + i, 0, first, width, grad, mu);
    }
  }
  for (int32_t i = 0; mu != NULL && i < n; ++i) mcg_centre(step, o + i, shifted[i]);
}

/* x [in_h][in_w][in_c], h [out_h][out_w][out_c], mu [in_c] or null; scratch: int32 [live], or that of pointwise_t */
void mcg_conv2d_update(const mcg_conv2d_t *p, const int8_t *x, const int8_t *h, const int16_t *mu,
                       const mcg_weight_step_t *step, void *scratch) {
  if (!mcg_is_pointwise(p)) {
    update_plain(p, x, h, mu, step, (int32_t *)scratch);
    return;
  }
  pointwise_t s = {mcg_min(MCG_BLOCK, p->in_h * p->in_w), (int32_t *)scratch, NULL, NULL};
  s.column = (int16_t *)(void *)(s.grad + OUTPUTS * INPUTS);
  s.turned = (int8_t *)(s.column + 2 * ((s.most + 3) & ~3));
  for (int32_t o = 0; o < p->out_c; o += OUTPUTS) {
    pointwise(p, x, h, mu, step, o, mcg_min(OUTPUTS, p->out_c - o), &s);
  }
}
