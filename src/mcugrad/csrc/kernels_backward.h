/* Kernels of the backward pass and of the updates, and their parameters; conventions as in kernels.h. */
#ifndef MCG_KERNELS_BACKWARD_H
#define MCG_KERNELS_BACKWARD_H

#include "kernels.h"

/* ---- backward: an input gradient is computed piece by piece in scratch (int32) and leaves through a chain.  The scratch
 * of those without a formula here is what the op's `kernel` in Python says ---- */

/* The constant part of a stage.  A slot indexes the exponents; -1 stands for exponent 0. */
typedef struct {
  int16_t acc_slot;          /* of the int32 row */
  int16_t add_slot;          /* of `add` */
  int16_t mask_bits;         /* 1: mask is a bit mask, 0: the clamp's int8 output */
  int16_t out_slot;          /* of `out` */
  int16_t channels;          /* of multiplier and shift: C, or 1 for one of each */
  int16_t more;              /* added to every shift */
  const int32_t *multiplier; /* null: out is rounded by RSH */
  const uint8_t *shift;
  int32_t ratio;             /* in 2^-31, by which the multipliers are rescaled; 0: as they are */
} mcg_stage_params_t;

/* In this order: acc += RSH(add, E_acc - E_add); acc *= mask; out = clampg(acc * multiplier * 2^(E_acc - E_out)).
 * Absent operands are null.  *clamped is set to the number of elements of `out` that the clamp changed. */
typedef struct {
  const mcg_stage_params_t *p;
  const int8_t *add;
  const void *mask;
  int8_t *out;
  int32_t *clamped;
} mcg_stage_t;

/* A gradient that is the sum of several calls; the last one goes on with it. */
typedef struct {
  int32_t *sum; /* of the gradient's shape */
  int16_t add;  /* 1: sum holds that of the calls before */
  int16_t more; /* 1: more calls follow: sum is stored, and there are no other operands */
} mcg_sum_t;

typedef struct {
  const int8_t *exponents;
  int32_t count;
  const mcg_stage_t *stages;
  int32_t more;         /* 1: the counts of clamped elements go on */
  const mcg_sum_t *sum; /* null: the gradient is whole */
} mcg_chain_t;

/* h [out_h][out_w][out_c]; weight and rest as in mcg_conv2d.  Of a 1x1 convolution the weight may have more input channels
 * than are wanted: p->live of them, without rest and order, of which the first in_c count. */
void mcg_conv2d_input_grad(const mcg_conv2d_t *p, const int8_t *h, const int8_t *weight, const int8_t *rest,
                           const mcg_chain_t *chain, void *scratch);

/* weight [kh][kw][C]. */
void mcg_depthwise_input_grad(const mcg_conv2d_t *p, const int8_t *h, const int8_t *weight, const mcg_chain_t *chain,
                              void *scratch);

/* g [out_h][out_w][C]; scratch: 4 * in_w * in_c bytes. */
void mcg_avg_pool_grad_s8(const mcg_conv2d_t *p, const int8_t *g, const mcg_chain_t *chain, void *scratch);
void mcg_avg_pool_grad_s32(const mcg_conv2d_t *p, const int32_t *g, const mcg_chain_t *chain, void *scratch);

/* g [out_h][out_w][C], x [in_h][in_w][C]; scratch: 4 * in_w * in_c bytes. */
void mcg_max_pool_grad(const mcg_conv2d_t *p, const int8_t *g, const int8_t *x, const mcg_chain_t *chain,
                       void *scratch);

/* a at (r, x, c) is g at (r, x, c) + (top, left, first), or 0; g [in_h][in_w][in_c]; scratch: 4 * out_w * out_c bytes. */
void mcg_grad_place(const mcg_place_t *p, const int8_t *g, const mcg_chain_t *chain, void *scratch);

/* g [in_h * factor_h][in_w * factor_w][C]; scratch: 4 * in_w * C bytes. */
void mcg_upsample_grad(const mcg_upsample_t *p, const int8_t *g, const mcg_chain_t *chain, void *scratch);

/* a = g * table[byte of x], g and x [rows][row]; scratch: 4 * row bytes. */
void mcg_lut_grad(int32_t rows, int32_t row, const int16_t *table, const int8_t *g, const int8_t *x,
                  const mcg_chain_t *chain, void *scratch);

/* a [rows][row] of a softmax over `classes`: g and its output y [rows][row]; scratch: 4 * row bytes. */
void mcg_softmax_grad(int32_t rows, int32_t row, int32_t classes, const int8_t *g, const int8_t *y,
                      const mcg_chain_t *chain, void *scratch);

/* a [rows][row] of one factor of a product: `a_*` are elements from one pixel and channel of it to the next, 0 where it was
 * broadcast, `x_*` those of the other factor. */
typedef struct {
  int16_t height, width, channels; /* of g */
  int16_t zero;                    /* of x */
  int32_t x_row;
  int16_t a_pixel, a_step, x_pixel, x_step;
  int32_t rows, row;
} mcg_mul_grad_t;

/* a = g * (x - zero), summed over what was broadcast; scratch: 4 * row bytes. */
void mcg_mul_grad(const mcg_mul_grad_t *p, const int8_t *g, const int8_t *x, const mcg_chain_t *chain, void *scratch);

/* a = -g, g [rows][row]; scratch: 4 * row bytes. */
void mcg_grad_negate(int32_t rows, int32_t row, const int8_t *g, const mcg_chain_t *chain, void *scratch);

/* g [rows][row]; scratch: 4 * row bytes. */
void mcg_grad_load_s8(int32_t rows, int32_t row, const int8_t *g, const mcg_chain_t *chain, void *scratch);
void mcg_grad_load_s32(int32_t rows, int32_t row, const int32_t *g, const mcg_chain_t *chain, void *scratch);

/* ---- updates, in place ---- */

/* A step that several samples make: each adds its share to what is held, the last one moves the parameter. */
typedef struct {
  void *held;           /* of the parameter's shape: int32_t for an int32 bias, else int16_t */
  const int32_t *count; /* samples of this step before */
  int32_t last;         /* the count at which the parameter moves */
  int32_t fraction;     /* bits of what is held below the unit in which it moves */
  int32_t most;         /* of a share, so that no sum overflows */
} mcg_hold_t;

/* *count = (*count + 1) mod samples */
void mcg_count_sample(int32_t samples, int32_t *count);

/* mcg_head_update by the step of several samples; w, b: what is held for weights and biases. */
void mcg_head_hold(const mcg_head_t *p, const mcg_context_t *c, const int8_t *x, const int32_t *g, int16_t *weight,
                   int32_t *bias, const mcg_hold_t *w, const mcg_hold_t *b);

/* Shifts of a step by channel: base[c], or most - 2 * shift[c] and one less for each of two numbers that the multiplier
 * falls short of; less the exponent of the gradient. */
typedef struct {
  int16_t slot;              /* of the gradient; -1: exponent 0 */
  int16_t most;
  int32_t first, second;     /* at least 2^30, as multipliers are */
  const int8_t *base;        /* null: of the forward pass's ... */
  const int32_t *multiplier;
  const uint8_t *shift;
} mcg_rate_t;

typedef struct {
  const mcg_rate_t *rate;
  int32_t *bias;  /* [C]; null: */
  int16_t *delta; /* [C] what moves instead, within +-32767 */
  const int32_t *sample_exponent;
  const int8_t *exponents;
  const mcg_context_t *c;
  const mcg_sum_t *sum;   /* null: the gradient is whole */
  const mcg_hold_t *hold; /* null: every sample moves the bias */
} mcg_bias_step_t;

typedef struct {
  const mcg_rate_t *rate; /* of the outputs */
  int16_t residual_bits; /* 0, 4 or 8 */
  int16_t tensor;        /* of the random numbers */
  int16_t taps;          /* kh * kw */
  int16_t live;          /* input channels in this weight */
  int16_t total;         /* input channels of the whole weight */
  const uint16_t *order; /* [live] channel numbers; null: identity */
  int32_t first;         /* element of the whole weight with which this one begins */
} mcg_weight_params_t;

typedef struct {
  const mcg_weight_params_t *p;
  int8_t *weight;
  void *residual; /* int8_t, or packed 4-bit; null without residual bits */
  const int32_t *sample_exponent;
  const int8_t *exponents;
  const int16_t *mu; /* of the channels in this weight, all groups; null: not centred */
  int32_t *bias;     /* [O] moved by centring; null: not centred, or the bias moves by its ... */
  int16_t *delta;    /* ... [O]; null: not centred, or the bias itself moves */
  const mcg_context_t *c;
  const mcg_sum_t *sum;   /* null: the gradient is whole */
  const mcg_hold_t *hold; /* null: every sample moves the weight */
} mcg_weight_step_t;

typedef struct {
  int16_t slot;      /* of the gradient */
  int16_t base, top; /* the exponent's range; base is its calibrated value */
  int32_t limit;     /* clamped elements in 256 steps that are still healthy */
} mcg_adapt_t;

/* clamped [1], exponents [slots], health [slots]. */
void mcg_adapt_exponent(const mcg_adapt_t *p, const int32_t *clamped, int8_t *exponents, int32_t *health);

/* h [positions][channels]; scratch: 4 * channels bytes. */
void mcg_bias_update(const int8_t *h, int32_t positions, int32_t channels, const mcg_bias_step_t *step, void *scratch);

/* x [in_h][in_w][in_c], h [out_h][out_w][out_c], mu [groups * live] or null; together: inputs, a multiple of four up to 48,
 * that are turned at once, and scratch for these as ops/turned.py says. */
void mcg_conv2d_update(const mcg_conv2d_t *p, const int8_t *x, const int8_t *h, const int16_t *mu, int32_t together,
                       const mcg_weight_step_t *step, void *scratch);

/* The same for a weight [kh][kw][C]; rows: of h that are taken apart at once, or 0 to read it as it is; scratch: 16 * taps
 * bytes, and for such rows what ops/apart.py says. */
void mcg_depthwise_update(const mcg_conv2d_t *p, const int8_t *x, const int8_t *h, const int16_t *mu, int32_t rows,
                          const mcg_weight_step_t *step, void *scratch);

/* Where latents of past samples are kept: the buffer lies behind everything else in the arena's block; where they lie in
 * flash, only its counts and labels do. */
typedef struct {
  uint32_t block;  /* offset of the buffer in the arena, a multiple of four */
  uint32_t latent; /* offset of the value at the cut */
  uint32_t bytes;  /* of that value */
  uint32_t slots, classes;
} mcg_replay_t;

/* Keeps the value at the cut, of a sample of class `target`, if the reservoir has room for it; step 0 empties the buffer.
 * MCG_E_STORE when flash does not take it, or when no slot is left that does. */
mcg_status_t mcg_replay_offer(const mcg_replay_t *p, const mcg_context_t *c, int32_t target);

/* Puts a kept value, drawn by c->step, in its place at the cut; its class.  One must have been offered;
 * of latents in flash none may be held all the same: then -1. */
int32_t mcg_replay_load(const mcg_replay_t *p, const mcg_context_t *c);

#endif
