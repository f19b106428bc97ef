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

/* These leave nothing. */
void mcg_add_row_wide(const mcg_add_t *p, int32_t round, const int8_t *a, const int8_t *b, int8_t *y);
void mcg_mask_row_wide(const int8_t *y, int32_t n, uint8_t *to);

#endif
