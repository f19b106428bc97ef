#ifndef TINY_H
#define TINY_H

#include <stdint.h>

void mcg_tiny_linear(const int8_t *x, const int16_t *weight, const int32_t *bias, int32_t *logits);
void mcg_tiny_linear_grad(const int32_t *logits, int32_t label, int32_t *gradient);
void mcg_tiny_linear_update(const int8_t *x, const int32_t *gradient, int32_t shift, int16_t *weight, int32_t *bias);

#endif
