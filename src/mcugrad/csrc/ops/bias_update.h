/* The two loops of a bias update. */
#ifndef MCG_BIAS_UPDATE_H
#define MCG_BIAS_UPDATE_H

#include <stdint.h>

/* sum [8] of eight channels of h [positions][channels], 0 < positions <= 256.  Needs MCG_ASM. */
void mcg_bias_sum(const int8_t *h, int32_t positions, int32_t channels, int32_t *sum);

/* Channels whose shifts are made of the forward pass's; bias_update.S knows the order of the fields. */
typedef struct {
  const int32_t *multiplier, *sum;
  int32_t *bias;
  const uint8_t *shift;
  int32_t n;             /* at least 1 */
  int32_t first, second; /* as in mcg_rate_t */
  int32_t most;          /* likewise, and what all channels add to it */
} mcg_bias_run_t;

/* Moves biases up to the first whose shift k is not 1 ... 31; returns how many are left.  Needs MCG_ASM. */
int32_t mcg_bias_run(const mcg_bias_run_t *s);

#endif
