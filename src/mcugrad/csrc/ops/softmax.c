/* Softmax over the channels of an int8 activation. */
#include "fixed.h"
#include "kernels.h"
#include "ops/exponential.h"

/* y [classes] at scale 1/256 and zero point -128; e int32 [classes] */
static void softmax(const mcg_softmax_t *p, const int8_t *x, int8_t *y, uint32_t *e) {
  int32_t most = -128;
  uint32_t sum = 0;
  for (int32_t k = 0; k < p->classes; ++k) most = x[k] > most ? x[k] : most;
  for (int32_t k = 0; k < p->classes; ++k) {
    e[k] = (uint32_t)mcg_exponential(p->multiplier, p->shift, most - x[k]);
    sum += e[k];
  }
  for (int32_t k = 0; k < p->classes; ++k) y[k] = mcg_clamp8((int32_t)(((e[k] << 8) + (sum >> 1)) / sum) - 128);
}

void mcg_softmax(const mcg_softmax_t *p, int32_t positions, const int8_t *x, int8_t *y, void *scratch) {
  for (; positions > 0; --positions, x += p->classes, y += p->classes) softmax(p, x, y, (uint32_t *)scratch);
}
