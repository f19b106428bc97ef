/* Weight gradient of a convolution and its step at once; no gradient outlives a few channels.
 *
 * dW[tap][i] = sum over positions of (x - x_zero - mu_i) * h; taps in the padding contribute nothing.
 */
#include "backward.h"
#include "conv2d_update_mve.h"
#include "uses.h"
#include "weight_step.h"
#include "wide.h"

#define MOST 1024    /* positions of x that are turned together; ops/turned.py sizes the scratch by all three */
#define POSITIONS 64 /* of h that are widened together */
#define OUTPUTS 4    /* whose weights move together */

/* Input channel j of those that this weight keeps, counted inside its group. */
static inline int32_t channel(const mcg_conv2d_t *p, int32_t j) { return p->order != NULL ? p->order[j] : j; }

/* What dW takes off each x of channel j. */
static inline int32_t middle(const mcg_conv2d_t *p, const int16_t *mu, int32_t j) {
  return p->x_zero + (MCG_USES_MEANS && mu != NULL ? mu[j] : 0);
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

/* Scratch of an update as a product of matrices, and the inputs that it is computing: those of a convolution's output are
 * the live channels under each tap in turn, which is the order of its weights. */
typedef struct {
  int32_t inputs, most; /* inputs and positions that are turned together, a multiple of four and an even number */
  int16_t *h;           /* [positions of h / 2][4][2]: pairs of positions of four outputs */
  int16_t *x;           /* [inputs / 2][most / 2][2][2]: likewise of pairs of channels, less what dW takes off */
  int32_t *grad;        /* [4][MCG_GRADS], of the last `inputs` */
  uint32_t *number;     /* [inputs] the channels' share of the random numbers */
  int32_t *moved;       /* [O] of mcg_weight_rows_t, where a centred weight takes several rounds */
  int32_t first, n;     /* inputs first ... first + n - 1 */
  int16_t mu[MCG_GRADS]; /* of these inputs */
} product_t;

/* to [count / 2][4] = channel x of `count` positions, `pitch` apart, less `off`; the half of a pair that is left 0. */
static MCG_APART void turn_channel(const int8_t *x, int32_t count, int32_t pitch, int32_t off, int16_t *to) {
  MCG_ROLLED for (; count > 1; count -= 2, x += 2 * pitch, to += 4) {
    to[0] = (int16_t)(x[0] - off);
    to[1] = (int16_t)(x[pitch] - off);
  }
  if (count > 0) to[0] = (int16_t)(x[0] - off), to[1] = 0;
}

/* The same of `count` outputs from position `at` on, x under tap (ky, kx) of each, 0 in the padding. */
static MCG_APART void turn_tap(const mcg_conv2d_t *p, const int8_t *x, int32_t ky, int32_t kx, int32_t at, int32_t count,
                               int32_t off, int16_t *to) {
  ky = ky * p->dilation_h - p->pad_top, kx *= p->dilation_w;
  const mcg_span_t columns = mcg_span(kx, p->stride_w, p->pad_left, p->in_w, p->out_w);
  const int32_t step = p->stride_w * p->in_c, end = at + count;
  for (int32_t i = 0, row = at / p->out_w, ox = at % p->out_w; at < end; ++row, ox = 0) {
    const int32_t iy = row * p->stride_h + ky, last = mcg_min(p->out_w, ox + end - at);
    const int32_t inside = iy >= 0 && iy < p->in_h ? mcg_min(columns.last, last) : 0;
    at += last - ox;
    MCG_ROLLED for (; ox < mcg_min(columns.first, last); ++ox, ++i) to[i + (i & ~1)] = 0;
    const int8_t *from = x + (ox < inside ? (iy * p->in_w + ox * p->stride_w + kx - p->pad_left) * p->in_c : 0);
    MCG_ROLLED for (; ox < inside; ++ox, ++i, from += step) to[i + (i & ~1)] = (int16_t)(*from - off);
    MCG_ROLLED for (; ox < last; ++ox, ++i) to[i + (i & ~1)] = 0;
  }
  if (count & 1) to[2 * count - 1] = 0;
}

/* Where channel j of s->x begins. */
static inline int16_t *turned(const product_t *s, int32_t j) { return s->x + (j >> 1) * 2 * s->most + 2 * (j & 1); }

/* The first channels of s->x, four at a time, of an even number of positions; returns how many. */
static int32_t turn_fours(const mcg_conv2d_t *p, const int8_t *x, const product_t *s, int32_t count) {
  const int32_t off = -p->x_zero;
  mcg_turn_t t = {x + s->first, count >> 1, p->in_c, s->x, s->x + 2 * s->most, s->mu, mcg_pair(off, off)};
  const int32_t fours = MCG_ASM ? s->n & ~3 : 0;
  MCG_ROLLED for (int32_t j = 0; j < fours; j += 4, t.x += 4, t.mu += 4, t.to += 4 * s->most, t.next += 4 * s->most) {
    if (MCG_ASM) mcg_outer_turn(&t);
  }
  return fours;
}

/* s->x of `count` positions from `at` on. */
static void turn(const mcg_conv2d_t *p, const int8_t *x, const product_t *s, int32_t at, int32_t count) {
  const int pointwise = !MCG_USES_WINDOW_UPDATES || mcg_is_pointwise(p);
  int32_t j = pointwise && p->order == NULL && (count & 1) == 0 ? turn_fours(p, x + at * p->in_c, s, count) : 0;
  for (; j < s->n + (s->n & 1); ++j) {
    const int32_t k = j < s->n ? j : 0, input = s->first + k; /* what no input is left for is computed for nothing */
    const int32_t off = p->x_zero + s->mu[k];
    if (pointwise) {
      turn_channel(x + at * p->in_c + channel(p, input), count, p->in_c, off, turned(s, j));
    } else {
      const int32_t tap = input / p->in_c;
      turn_tap(p, x + input % p->in_c, tap / p->kernel_w, tap % p->kernel_w, at, count, off, turned(s, j));
    }
  }
}

/* s->h of `count` positions of n outputs, h at the first. */
static MCG_APART void widen_pairs(const int8_t *h, int32_t count, int32_t pitch, int32_t n, int16_t *to) {
  if (MCG_ASM && n == OUTPUTS && count > 1) {
    mcg_outer_widen(h, count >> 1, pitch, to);
    h += (count & ~1) * pitch, to += (count & ~1) * OUTPUTS, count &= 1;
  }
  MCG_ROLLED for (; count > 0; count -= 2, h += 2 * pitch, to += 2 * OUTPUTS) {
    MCG_ROLLED for (int32_t k = 0; k < OUTPUTS; ++k) {
      to[2 * k] = k < n ? h[k] : 0;
      to[2 * k + 1] = k < n && count > 1 ? h[pitch + k] : 0;
    }
  }
}

/* grad [2][MCG_GRADS] of two channels and two outputs, the pairs of which begin at x and h. */
MCG_INLINE void square(const mcg_outer_t *s, const int16_t *x, const int16_t *h, int32_t *grad) {
  int32_t acc[2][2] = {{0, 0}, {0, 0}};
  MCG_ROLLED for (int32_t i = 0; i < s->pairs; ++i, x += 4, h += 2 * OUTPUTS) {
    for (int o = 0; o < 2; ++o) {
      for (int c = 0; c < 2; ++c) {
        if (MCG_DUAL_MAC) acc[o][c] = mcg_smlad(mcg_load4_aligned(x + 2 * c), mcg_load4_aligned(h + 2 * o), acc[o][c]);
        else acc[o][c] += x[2 * c] * h[2 * o] + x[2 * c + 1] * h[2 * o + 1];
      }
    }
  }
  for (int i = 0; i < 4; ++i) {
    int32_t *to = grad + (i >> 1) * MCG_GRADS + (i & 1);
    *to = (s->keep ? *to : 0) + acc[i >> 1][i & 1];
  }
}

/* mcg_outer in the simplest way. */
static MCG_APART void outer(const mcg_outer_t *s) {
  for (int32_t j = 0; j < s->channels; j += 2) {
    const int16_t *x = s->x + (j >> 1) * (s->next >> 1);
    for (int32_t o = 0; o < OUTPUTS; o += 2) square(s, x, s->h + 2 * o, s->grad + o * MCG_GRADS + j);
  }
}

/* s->grad of outputs o ... o + n - 1 += those of positions [at, at + count), x of which was turned. */
static void add_positions(const mcg_conv2d_t *p, const int8_t *h, int32_t o, int32_t n, int32_t at, int32_t count,
                          const product_t *s) {
  for (int32_t done = 0; done < count; done += POSITIONS) {
    const int32_t some = mcg_min(POSITIONS, count - done);
    const mcg_outer_t part = {s->x + 2 * done, s->h, s->grad, (s->n + 1) & ~1, (some + 1) >> 1, 4 * s->most, at + done > 0};
    widen_pairs(h + (at + done) * p->out_c + o, some, p->out_c, n, s->h);
    if (MCG_ASM) mcg_outer(&part);
    else outer(&part);
  }
}

/* The inputs of `s`; mu [live] or null. */
static void product(const mcg_conv2d_t *p, const int8_t *x, const int8_t *h, const int16_t *mu,
                    const mcg_weight_step_t *step, product_t *s) {
  const int32_t positions = p->out_h * p->out_w;
  mcg_weight_rows_t rows = {s->first, s->n, positions, s->grad, s->number, s->moved, 0, 0, 0u};
  mcg_weight_rows_start(step, &rows);
  const uint16_t *order = step->p->order; /* x may hold the live channels alone, and p have no order */
  MCG_ROLLED for (int32_t j = 0; j < s->n; ++j) {
    s->number[j] = mcg_random_number((uint32_t)(order != NULL ? order[s->first + j] : s->first + j));
    s->mu[j] = mu != NULL ? mu[(s->first + j) % p->live] : 0;
  }
  const int16_t *const means = mu != NULL ? s->mu : NULL;
  if (MCG_MVE && mcg_is_pointwise(p)) {
    mcg_pointwise_update_mve(p, x, h, means, step, &rows, (int8_t *)s->h, (int32_t)((int8_t *)s->x - (int8_t *)s->h),
                             (int8_t *)s->x, 2 * s->inputs * s->most);
    return;
  }
  for (int32_t o = 0; o < p->out_c; o += OUTPUTS) {
    const int32_t n = mcg_min(OUTPUTS, p->out_c - o);
    for (int32_t at = 0; at < positions; at += s->most) {
      const int32_t count = mcg_min(s->most, positions - at);
      if (o == 0 || positions > s->most) turn(p, x, s, at, count);
      add_positions(p, h, o, n, at, count, s);
    }
    mcg_weight_rows(step, o, n, &rows, means);
  }
}

/* Every input in turn, of a weight that has one tap. */
static void products(const mcg_conv2d_t *p, const int8_t *x, const int8_t *h, const int16_t *mu, int32_t inputs,
                     const mcg_weight_step_t *step, void *scratch) {
  product_t s;
  s.inputs = inputs, s.most = mcg_min((p->out_h * p->out_w + 1) & ~1, MOST);
  s.grad = (int32_t *)scratch;
  s.number = (uint32_t *)scratch + (OUTPUTS - 1) * MCG_GRADS + inputs;
  s.h = (int16_t *)(s.number + inputs);
  s.x = s.h + OUTPUTS * mcg_min(POSITIONS, s.most);
  s.moved = (int32_t *)(void *)(s.x + inputs * s.most);
  for (s.first = 0; s.first < step->p->live; s.first += inputs) {
    s.n = mcg_min(inputs, step->p->live - s.first);
    product(p, x, h, mu, step, &s);
  }
}

/* The inputs under all taps as the channels of a 1x1 convolution. */
static MCG_APART void flat_products(const mcg_conv2d_t *p, const int8_t *x, const int8_t *h, const int16_t *mu, int32_t inputs,
                          const mcg_weight_step_t *step, void *scratch) {
  const int32_t taps = p->kernel_h * p->kernel_w;
  mcg_weight_params_t flat = *step->p;
  mcg_weight_step_t whole = *step;
  flat.taps = 1, flat.live = (int16_t)(flat.live * taps), flat.total = (int16_t)(flat.total * taps);
  whole.p = &flat;
  products(p, x, h, mu, inputs, &whole, scratch);
}

/* x [in_h][in_w][in_c], h [out_h][out_w][out_c], mu [groups * live] or null; scratch: int32 [live], or that of product_t */
void mcg_conv2d_update(const mcg_conv2d_t *p, const int8_t *x, const int8_t *h, const int16_t *mu, int32_t together,
                       const mcg_weight_step_t *step, void *scratch) {
  if (MCG_WIDE && mcg_conv2d_update_wide(p, x, h, mu, step)) return;
  if (!MCG_USES_MEANS) mu = NULL;
  const int dense = p->groups == 1 && p->order == NULL && step->p->order == NULL &&
                    p->kernel_h * p->kernel_w * step->p->total <= INT16_MAX;
  if (!MCG_USES_WINDOW_UPDATES || mcg_is_pointwise(p)) products(p, x, h, mu, together, step, scratch);
  else if (dense) flat_products(p, x, h, mu, together, step, scratch);
  else update_plain(p, x, h, mu, step, (int32_t *)scratch);
}
