/* All kernels of the runtime and their parameters.
 *
 * Activations and gradients are NHWC with batch 1, contiguous.  A weight is [O][kh][kw][C/groups] and contiguous per
 * output; a partly updated one is two such arrays, its live (updated) and its resting input channels.  Bit masks hold
 * element i of a row in bit (i & 7) of byte i >> 3, rows padded to whole bytes; 4-bit residuals hold element 2i in the
 * low nibble of byte i.  int8 operands may have any alignment, scratch and wider operands that of int32_t; a null pointer
 * stands for an absent operand.  Kernels never allocate, and write only outputs and scratch.
 */
#ifndef MCG_KERNELS_H
#define MCG_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "mcugrad.h"

/* Output rows [first, last) to compute, and how many rows each operand keeps: row r of a value lies at
 * base + (r % rows) * row bytes.  rows == height for a resident value. */
typedef struct {
  int32_t first, last;
  int32_t x_rows, y_rows, x2_rows;
} mcg_rows_t;

/* ---- forward ---- */

/* Geometry of every sliding window (convolutions, pools, their gradients) and, where the kernel wants them, the
 * channel order, zero points and requantization.  x is [in_h][in_w][in_c], y [out_h][out_w][out_c]. */
typedef struct {
  int16_t in_h, in_w, in_c;
  int16_t out_h, out_w, out_c;
  int16_t kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w;
  int16_t groups;
  int16_t live;              /* input channels of the first weight segment (per group) */
  int16_t x_zero, y_zero;
  const uint16_t *order;     /* [in_c] live, then resting channels; the update's lists live ones only; null: identity */
  const int32_t *multiplier; /* [out_c] */
  const uint8_t *shift;      /* [out_c] */
} mcg_conv2d_t;

/* weight [O][kh][kw][live], rest [O][kh][kw][C - live] or null, bias [O].
 * scratch: 12 bytes for each of round4(taps * live) + round4(taps * (C - live)) inputs (8 where these are more than 384); 6
 * (4) for each of the larger segment unless x can be read in place (1x1, stride 1, no padding, no order, C in whole words); where a segment is not of whole
 * words, round4(last * inputs + 3) for each, with last = 3 where a segment has one input, else 1. */
void mcg_conv2d(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight, const int8_t *rest,
                const int32_t *bias, int8_t *y, void *scratch);

/* The same function one pixel at a time.  scratch: a quarter to a sixth of the above for columns and inputs. */
void mcg_conv2d_narrow(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight, const int8_t *rest,
                       const int32_t *bias, int8_t *y, void *scratch);

/* The same function in the simplest way, and the only one for groups. */
void mcg_conv2d_plain(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight,
                      const int8_t *rest, const int32_t *bias, int8_t *y, void *scratch);

typedef struct {
  int32_t positions;
  int16_t inputs, outputs; /* some channels of the input, a multiple of four; all of the output */
  int16_t pitch;           /* weights from one output to the next */
  int16_t x_zero;
  int32_t more;            /* 1: the sums go on */
} mcg_conv2d_sum_t;

/* Some input channels of a 1x1 convolution: sum [positions][outputs] (+)= (x - x_zero) . weight, x [positions][inputs], weight
 * [outputs][.] at the first of these channels.  scratch: 8 * inputs bytes. */
void mcg_conv2d_sum(const mcg_conv2d_sum_t *p, const int8_t *x, const int8_t *weight, int32_t *sum, void *scratch);

typedef struct {
  int32_t positions;
  int16_t channels, y_zero;
  const int32_t *multiplier; /* [channels] */
  const uint8_t *shift;      /* [channels] */
} mcg_requantize_t;

/* y [positions][channels] = clamp8(MBQM(sum + bias) + y_zero); bias [channels] with its delta, if there is one; y may begin
 * where sum does. */
void mcg_requantize_sum(const mcg_requantize_t *p, const int32_t *sum, const int32_t *bias, const int16_t *delta, int8_t *y);

/* weight [kh][kw][C], bias [C].  scratch, used with dual MACs: 8 * (min(kh, in_h) * (round4(out_w) * stride_w +
 * 2 * steps - 2) + 8 * kh * steps) bytes with steps = kw / 2 + 1, for small maps what the op's `kernel` in Python says, or
 * null for the slow way.  y may be x where it has its size, the stride is 1 and C is a multiple of four; this needs the
 * scratch on every core. */
void mcg_depthwise(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight,
                   const int32_t *bias, int8_t *y, void *scratch);

/* The same function in the simplest way, and the only one for dilation. */
void mcg_depthwise_plain(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight,
                         const int32_t *bias, int8_t *y, void *scratch);

/* to [taps][C] = the depthwise weight of channels order[c]: live [taps][n], then rest [taps][C - n]; returns to. */
const int8_t *mcg_joined_weight(const int8_t *live, const int8_t *rest, const uint16_t *order, int32_t n, int32_t channels,
                                int32_t taps, void *to);

/* sum [n] = base + delta, kept within +-2^30; returns sum. */
const int32_t *mcg_summed_bias(const int32_t *base, const int16_t *delta, int32_t n, void *sum);

typedef struct {
  int32_t rows, row; /* row: elements */
  int32_t factor1, factor2;
  int16_t zero1, zero2, y_zero;
  int16_t shift; /* 1 to 30; 15: both products at once where the core can */
} mcg_add_t;

/* y = clamp8(RSH((x1 - zero1) * factor1 + (x2 - zero2) * factor2, shift) + y_zero); y may be x1 or x2; factors may be negative. */
void mcg_add(const mcg_add_t *p, const mcg_rows_t *r, const int8_t *x1, const int8_t *x2, int8_t *y);

typedef struct {
  int32_t rows, row; /* row: elements */
  int32_t multiplier;
  int16_t shift, x_zero, y_zero;
} mcg_clamp_t;

/* y = clamp8(MBQM(x - x_zero) + y_zero); y may be x. */
void mcg_clamp(const mcg_clamp_t *p, const mcg_rows_t *r, const int8_t *x, int8_t *y);

/* One input of a concatenation: runs of `run` bytes, requantized unless the multiplier is 0. */
typedef struct {
  int32_t run;
  int32_t multiplier;
  int16_t shift, zero;
} mcg_part_params_t;

typedef struct {
  const mcg_part_params_t *p;
  const int8_t *x; /* [outer][run] */
} mcg_part_t;

typedef struct {
  int32_t outer;
  int32_t y_zero;
  int32_t count;
  const mcg_part_t *parts;
} mcg_concat_t;

/* y [outer][sum of the runs]: a run of each part after the other. */
void mcg_concat(const mcg_concat_t *p, int8_t *y);

typedef struct {
  int16_t in_h, in_w, in_c;
  int16_t out_h, out_w, out_c;
  int16_t top, left, first; /* of y in x: rows, columns, channels; may be negative */
  int16_t value;            /* outside x */
} mcg_place_t;

/* y at (r, x, c) is x at (r, x, c) + (top, left, first), or the value where x has no such element. */
void mcg_place(const mcg_place_t *p, const mcg_rows_t *r, const int8_t *x, int8_t *y);

typedef struct {
  int32_t size0, size1, size2; /* of y */
  int32_t step0, step1, step2; /* of its axes in x */
} mcg_transpose_t;

void mcg_transpose(const mcg_transpose_t *p, const int8_t *x, int8_t *y);

typedef struct {
  int16_t in_h, in_w, channels;
  int16_t factor_h, factor_w;
} mcg_upsample_t;

/* Each element of x factor_h * factor_w times. */
void mcg_upsample(const mcg_upsample_t *p, const mcg_rows_t *r, const int8_t *x, int8_t *y);

typedef struct {
  int16_t width, channels;            /* of x1 and y */
  int32_t x2_row;                     /* elements from a row of x2 to the next; 0: one row for all */
  int16_t x2_pixel, x2_step;          /* likewise from pixel to pixel, and from channel to channel */
  int16_t shift, zero1, zero2, y_zero;
  int32_t multiplier;
} mcg_mul_t;

/* y = clamp8(MBQM((x1 - zero1) * (x2 - zero2)) + y_zero); y may be x1, and x2 of the same shape. */
void mcg_mul(const mcg_mul_t *p, const mcg_rows_t *r, const int8_t *x1, const int8_t *x2, int8_t *y);

/* y = table[byte of x], x and y [rows][row]; y may be x. */
void mcg_lut(int32_t row, const int8_t *table, const mcg_rows_t *r, const int8_t *x, int8_t *y);

void mcg_avg_pool(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, int8_t *y);

/* Where an average halfway between two numbers goes. */
enum { MCG_TIES_UP = 0, MCG_TIES_AWAY = 1, MCG_TIES_EVEN = 2, MCG_TIES_ODD = 3 };

/* The same, with halves as `ties` says. */
void mcg_avg_pool_ties(const mcg_conv2d_t *p, int32_t ties, const mcg_rows_t *r, const int8_t *x, int8_t *y);

void mcg_max_pool(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, int8_t *y);

/* mask bit = the value passed its clamp: -128 < y < 127.  y [rows][row], mask [rows][(row + 7) / 8]. */
void mcg_clamp_mask(const mcg_rows_t *r, const int8_t *y, uint8_t *mask, int32_t row);

typedef struct {
  int16_t width, in_c, out_c;
  const uint16_t *order; /* [out_c] channels of x, ascending */
} mcg_select_t;

/* y [rows][width][out_c] = the listed channels of x [rows][width][in_c]; y may be x. */
void mcg_select_channels(const mcg_select_t *p, const mcg_rows_t *r, const int8_t *x, int8_t *y);

/* Input rows [first, last) into dst, a ring of y_rows rows of row_bytes.  Non-zero: the row source failed. */
int32_t mcg_load_rows(const mcg_context_t *c, const mcg_rows_t *r, int8_t *dst, int32_t row_bytes);

/* What a training step may do to its sample [rows][width][channels]; 0: never. */
typedef struct {
  int16_t rows, width, channels;
  int16_t flip;                 /* 1: mirror every other sample, left to right */
  int16_t shift;                /* pixels by which it moves at most, each way; what comes in is ... */
  int16_t zero;                 /* ... the zero point */
  int16_t brightness, contrast; /* at most added; 128ths by which the distance from the zero point changes at most */
} mcg_augment_t;

/* What a step does to it. */
typedef struct {
  const mcg_augment_t *p;
  int32_t flip, down, right, add, gain;
} mcg_drawn_t;

/* Draws by the context's seed and step; returns `drawn`. */
const mcg_drawn_t *mcg_draw(const mcg_augment_t *p, const mcg_context_t *c, mcg_drawn_t *drawn);

/* Draws, and changes the resident sample in place. */
void mcg_augment_image(const mcg_augment_t *p, const mcg_context_t *c, int8_t *image);

/* mcg_load_rows of the sample as it was drawn; d: null for the sample as it is.  Rows are pulled in order, none twice. */
int32_t mcg_load_augmented(const mcg_context_t *c, const mcg_drawn_t *d, const mcg_rows_t *r, int8_t *dst,
                           int32_t row_bytes);

/* The `bytes` bytes from data + by on move to data. */
void mcg_slide(int32_t bytes, int32_t by, int8_t *data);

/* to [rows][bytes] = the first bytes of each row of `from`, rows `pitch` bytes apart. */
void mcg_take(int32_t rows, int32_t bytes, int32_t pitch, const int8_t *from, int8_t *to);

/* The first bytes of each row of `to`, rows `pitch` bytes apart, = from [rows][bytes]. */
void mcg_put(int32_t rows, int32_t bytes, int32_t pitch, const int8_t *from, int8_t *to);

/* ---- head and loss ---- */

typedef struct {
  int32_t features, classes;
  int32_t zero;  /* of the features */
  int32_t limit; /* largest |weight| */
  int32_t weight_shift, bias_shift;
} mcg_head_t;

/* x [F], weight [F][K], bias [K], logits [K]. */
void mcg_head(const mcg_head_t *p, const int8_t *x, const int16_t *weight, const int32_t *bias, int32_t *logits);

/* gf [F] = weight [F][K] * g [K]. */
void mcg_head_input_grad(int32_t features, int32_t classes, const int16_t *weight, const int32_t *g, int32_t *gf);

/* x [F], g [K], weight [F][K], bias [K]. */
void mcg_head_update(const mcg_head_t *p, const mcg_context_t *c, const int8_t *x, const int32_t *g, int16_t *weight,
                     int32_t *bias);

typedef struct {
  int32_t classes;
  int32_t multiplier, shift;
} mcg_softmax_t;

/* logits [K], label [1], p_label [1], g [K]. */
void mcg_softmax_cross_entropy(const mcg_softmax_t *p, const int32_t *logits, const int32_t *label, int32_t *p_label,
                               int32_t *g);

/* Softmax over the last axis for inference: x and y [positions][classes], y at scale 1/256 and zero point -128;
 * scratch: 4 * classes bytes. */
void mcg_softmax(const mcg_softmax_t *p, int32_t positions, const int8_t *x, int8_t *y, void *scratch);

/* logits [n] = x [n] - zero */
void mcg_logits(int32_t n, int32_t zero, const int8_t *x, int32_t *logits);

/* logits [K], target [K] of 0 or 1; *least: the smallest probability (Q15) of a right answer; g [K] = RSH(p - target, shift)
 * of Q15. */
void mcg_sigmoid_cross_entropy(const mcg_softmax_t *p, int32_t shift, const int32_t *logits, const int32_t *target,
                               int32_t *least, int32_t *g);

#define MCG_TARGET_LIMIT (1 << 16) /* of a target of an int8 output, in 1/128 of its steps */

typedef struct {
  int32_t outputs;
  int32_t fraction;          /* bits of a target behind the logit's point */
  int32_t limit;             /* of |g| with a multiplier */
  int32_t score_shift;
  int32_t multiplier, shift; /* of the difference; 0: none */
  int32_t target_multiplier, target_shift, target_zero; /* of a sample that is its own target */
} mcg_squared_error_t;

/* g [K] from the differences of logits [K] and target [K], or x [K] where the target is null; *score: sum of their squares,
 * each rounded to 2^score_shift. */
void mcg_mean_squared_error(const mcg_squared_error_t *p, const int32_t *logits, const int32_t *target, const int8_t *x,
                            int32_t *score, int32_t *g);

/* Non-zero: the step ends here. */
int32_t mcg_stop_if_easy(const mcg_context_t *c, const int32_t *p_label);
int32_t mcg_stop_if_zero(const int32_t *gf, int32_t n);

/* gf [n] in units of 2^unit, scaled [n] (may be gf), sample_exponent [1]. */
void mcg_sample_scale(int32_t n, int32_t unit, const int32_t *gf, int32_t *scaled, int32_t *sample_exponent);

#include "kernels_backward.h"

#endif
