/* What the backward kernels share: the chain's row, the steps and their helpers. */
#ifndef MCG_BACKWARD_H
#define MCG_BACKWARD_H

#include <stdint.h>

#include "fixed.h"
#include "kernels.h"
#include "port.h"

/* Inner loops that get all registers. */
#define MCG_NOINLINE __attribute__((noinline))

/* Exponent of a gradient; slot -1 stands for 0. */
static inline int32_t mcg_exponent(const int8_t *exponents, int32_t slot) { return slot < 0 ? 0 : exponents[slot]; }

static inline int32_t mcg_min(int32_t a, int32_t b) { return a < b ? a : b; }

static inline int32_t mcg_max(int32_t a, int32_t b) { return a > b ? a : b; }

/* The bias from which a step starts: 0 of an output that is met for the first time. */
static inline int32_t mcg_met(int32_t bias, int32_t step) { return bias == MCG_UNSEEN && step != 0 ? 0 : bias; }

/* n / stride of n >= 0; small cores divide by calling a function. */
static inline int32_t mcg_over(int32_t n, int32_t stride) {
  return stride == 1 ? n : stride == 2 ? n >> 1 : n / stride;
}

/* Output positions [first, last) of a sliding window whose tap `tap` lies inside an input of `size`. */
typedef struct {
  int32_t first, last;
} mcg_span_t;

static inline mcg_span_t mcg_span(int32_t tap, int32_t stride, int32_t pad, int32_t size, int32_t outputs) {
  const int32_t low = pad - tap, high = size - 1 + pad - tap;
  const mcg_span_t span = {low <= 0 ? 0 : mcg_over(low + stride - 1, stride),
                           high < 0 ? 0 : mcg_min(outputs, mcg_over(high, stride) + 1)};
  return span;
}

/* Output row (or column) whose tap `tap` reads input row `at`; -1 when there is none. */
static inline int32_t mcg_reader(int32_t at, int32_t tap, int32_t stride, int32_t pad, int32_t outputs) {
  const int32_t reach = at + pad - tap;
  if (reach < 0) return -1;
  const int32_t output = mcg_over(reach, stride);
  return output * stride == reach && output < outputs ? output : -1;
}

/* A product of two matrices: 1x1, every position, one group. */
static inline int mcg_is_pointwise(const mcg_conv2d_t *p) {
  return p->kernel_h == 1 && p->kernel_w == 1 && p->stride_h == 1 && p->stride_w == 1 && p->groups == 1 &&
         p->out_h == p->in_h && p->out_w == p->in_w;
}

/* acc [n] = 0 */
static inline void mcg_zero(int32_t *acc, int32_t n) {
  MCG_COMPACT for (int32_t i = 0; i < n; ++i) acc[i] = 0;
}

/* A piece of an int32 gradient [rows][width][channels]: whole rows of n of its channels, first ... first + n - 1. */
typedef struct {
  int32_t *acc;  /* [rows][width], overwritten by the chain */
  int32_t pitch; /* elements from one position of acc to the next */
  int32_t row, rows, width, channels;
  int32_t n, first;
} mcg_block_t;

/* Rows of a block that aims at `positions`. */
static inline int32_t mcg_block_rows(const mcg_conv2d_t *p, int32_t positions) {
  return mcg_between(positions / p->in_w, 1, p->in_h);
}

/* A multiplier M and its shift. */
typedef struct {
  int32_t multiplier, shift;
} mcg_factor_t;

/* M * ratio / 2^31 to the nearest that ends in six zeros, 2^30 <= M < 2^31; quant/affine.py does the same. */
static inline mcg_factor_t mcg_rescaled(int32_t multiplier, int32_t shift, int32_t ratio) {
  const int32_t up = mcg_mulhi(multiplier, ratio) * 2, shorter = up < (1 << 30) - 32;
  const mcg_factor_t f = {(int32_t)((((uint32_t)up << shorter) + 32u) & ~63u), shift + shorter};
  return f;
}

/* The factor of channel c; of any, where all have one. */
static inline mcg_factor_t mcg_stage_factor(const mcg_stage_params_t *p, int32_t c) {
  const int32_t i = p->channels > 1 ? c : 0;
  const mcg_factor_t f = {p->multiplier[i], p->shift[i] + p->more};
  return p->ratio == 0 ? f : mcg_rescaled(f.multiplier, f.shift, p->ratio);
}

/* The shift of a step at channel c, without exponents and halvings. */
static inline int32_t mcg_base(const mcg_rate_t *r, int32_t c) {
  if (r->base != NULL) return r->base[c];
  const int32_t m = r->multiplier[c];
  return r->most - 2 * r->shift[c] + ((m - r->first) >> 31) + ((m - r->second) >> 31);
}

/* Sets the counts of clamped elements to 0; before the first block or row. */
void mcg_chain_start(const mcg_chain_t *chain);

/* Runs the stages on a block. */
void mcg_chain_block(const mcg_chain_t *chain, const mcg_block_t *block);

/* Runs the stages on row `row` of a gradient, acc [n]. */
void mcg_chain_row(const mcg_chain_t *chain, int32_t row, int32_t n, int32_t *acc);

/* Adds the calls before to grad [n], elements from `at` on of the parameter.  Non-zero: more calls follow, for which the
 * sum is kept; grad is none. */
int32_t mcg_gather(const mcg_sum_t *s, int32_t at, int32_t n, int32_t *grad);

/* Moves channels first ... first + n - 1 (as the weight counts them) of output o and tap `tap` of a convolution's weight
 * by grad [n], overwritten; returns sum mu * change, the centring's share of the bias.  mu [n] of these channels, or null. */
int64_t mcg_weight_step(const mcg_weight_step_t *step, int32_t o, int32_t tap, int32_t first, int32_t n, int32_t *grad,
                        const int16_t *mu);

/* bias[o] -= by, kept within +-2^30; or delta[o], within +-32767, where bias is null. */
static inline void mcg_move_bias(int32_t *bias, int16_t *delta, int32_t o, int64_t by) {
  const int64_t moved = (bias != NULL ? bias[o] : delta[o]) - by, limit = bias != NULL ? MCG_BIAS_LIMIT : 32767;
  const int32_t kept = (int32_t)(moved > limit ? limit : moved < -limit ? -limit : moved);
  if (bias != NULL) bias[o] = kept;
  else delta[o] = (int16_t)kept;
}

/* mcg_bias_update from sum [channels] on, by the step of several samples; shift: without base[c]. */
void mcg_bias_hold(const mcg_bias_step_t *step, int32_t shift, int32_t channels, const int32_t *sum);

/* The bias of output o, or its delta, less `by`. */
void mcg_centre(const mcg_weight_step_t *step, int32_t o, int64_t by);

/* Moves channels first ... first + n - 1 of a depthwise weight [taps][C] by grad [taps][n], which sum up so many positions,
 * and centres them. */
void mcg_depthwise_step(const mcg_weight_step_t *step, int32_t first, int32_t n, int32_t positions, int32_t *grad);

#endif
