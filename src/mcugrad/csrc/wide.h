/* Vector kernels that the host build (csrc/wide, MCG_WIDE) has in place of others; each returns 0, having done nothing,
 * where it leaves the call to the kernel that asked. */
#ifndef MCG_WIDE_H
#define MCG_WIDE_H

#include "kernels.h"

int32_t mcg_conv2d_wide(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight,
                        const int8_t *rest, const int32_t *bias, int8_t *y);

int32_t mcg_depthwise_wide(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight,
                           const int32_t *bias, int8_t *y);

#endif
