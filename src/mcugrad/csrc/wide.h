/* Vector kernels that the host build (csrc/wide, MCG_WIDE) has in place of others; each returns 0, having done nothing,
 * where it leaves the call to the kernel that asked. */
#ifndef MCG_WIDE_H
#define MCG_WIDE_H

#include "kernels.h"
#include "ops/backward.h"

int32_t mcg_conv2d_wide(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight,
                        const int8_t *rest, const int32_t *bias, int8_t *y);

int32_t mcg_depthwise_wide(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight,
                           const int32_t *bias, int8_t *y);

int32_t mcg_chain_block_wide(const mcg_chain_t *chain, const mcg_block_t *block);

int32_t mcg_conv2d_input_grad_wide(const mcg_conv2d_t *p, const int8_t *h, const int8_t *weight, const int8_t *rest,
                                   const mcg_chain_t *chain);

int32_t mcg_depthwise_input_grad_wide(const mcg_conv2d_t *p, const int8_t *h, const int8_t *weight,
                                      const mcg_chain_t *chain);

int32_t mcg_conv2d_update_wide(const mcg_conv2d_t *p, const int8_t *x, const int8_t *h, const int16_t *mu,
                               const mcg_weight_step_t *step);
int32_t mcg_conv2d_update_windows(const mcg_conv2d_t *p, const int8_t *x, const int8_t *h, const int16_t *mu,
                                  const mcg_weight_step_t *step);

/* Moves elements at ... at + n - 1 of a weight by grad, which then holds their changes; row + i, or row + order[i], are the
 * elements of the random numbers. */
int32_t mcg_weight_run_wide(const mcg_weight_step_t *s, int32_t at, int32_t n, int32_t k, uint32_t key, uint32_t row,
                            const uint16_t *order, int32_t *grad);

/* Moves and centres channels first ... first + n - 1 of a depthwise weight; shift: k less base[c]. */
int32_t mcg_depthwise_step_wide(const mcg_weight_step_t *s, int32_t first, int32_t n, const int32_t *grad, int32_t shift,
                                uint32_t key);

int32_t mcg_depthwise_update_wide(const mcg_conv2d_t *p, const int8_t *x, const int8_t *h, const int16_t *mu,
                                  const mcg_weight_step_t *step);

/* Returns how many of the first channels it moved: it leaves those from the first 16 on of which one has a shift below 1. */
int32_t mcg_bias_step_wide(const mcg_bias_step_t *step, int32_t shift, int32_t channels, const int32_t *sum);

/* These leave nothing. */
void mcg_bias_sums_wide(const int8_t *h, int32_t positions, int32_t channels, int32_t *sum);
void mcg_add_row_wide(const mcg_add_t *p, int32_t round, const int8_t *a, const int8_t *b, int8_t *y);
void mcg_mask_row_wide(const int8_t *y, int32_t n, uint8_t *to);

#endif
