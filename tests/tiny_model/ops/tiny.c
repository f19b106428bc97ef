/* One linear layer by hand: x int8 [128], weight int16 [128, 4], bias and logits int32 [4]. */
#include "tiny.h"

void mcg_tiny_linear(const int8_t *x, const int16_t *weight, const int32_t *bias, int32_t *logits) {
  for (int32_t k = 0; k < 4; ++k) {
    logits[k] = bias[k];
    for (int32_t i = 0; i < 128; ++i) logits[k] += x[i] * weight[4 * i + k];
  }
}

void mcg_tiny_linear_grad(const int32_t *logits, int32_t label, int32_t *gradient) {
  int32_t best = 0;
  for (int32_t k = 1; k < 4; ++k) {
    if (logits[k] > logits[best]) best = k;
  }
  for (int32_t k = 0; k < 4; ++k) gradient[k] = 64 * (k == best) - 64 * (k == label);
}

void mcg_tiny_linear_update(const int8_t *x, const int32_t *gradient, int32_t shift, int16_t *weight, int32_t *bias) {
  for (int32_t k = 0; k < 4; ++k) {
    bias[k] -= gradient[k];
    for (int32_t i = 0; i < 128; ++i) {
      const int32_t moved = weight[4 * i + k] - (x[i] * gradient[k] >> shift);
      weight[4 * i + k] = (int16_t)(moved > 32767 ? 32767 : moved < -32767 ? -32767 : moved);
    }
  }
}
