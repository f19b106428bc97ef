/* Gradient of a softmax over the channels, from its int8 output. */
#include "backward.h"

/* a, g and y [classes]: |sum| < 2^22 and |a| < 2^30, for at most 2^15 classes whose probabilities are rounded to 1/256 */
static void position(int32_t classes, const int8_t *g, const int8_t *y, int32_t *a) {
  int32_t sum = 0;
  for (int32_t k = 0; k < classes; ++k) {
    a[k] = -128 < y[k] && y[k] < 127 ? g[k] : 0;
    sum += a[k] * (y[k] + 128);
  }
  for (int32_t k = 0; k < classes; ++k) a[k] = (y[k] + 128) * (256 * a[k] - sum);
}

void mcg_softmax_grad(int32_t rows, int32_t row, int32_t classes, const int8_t *g, const int8_t *y,
                      const mcg_chain_t *chain, void *scratch) {
  int32_t *a = (int32_t *)scratch;
  mcg_chain_start(chain);
  for (int32_t r = 0; r < rows; ++r, g += row, y += row) {
    for (int32_t i = 0; i < row; i += classes) position(classes, g + i, y + i, a + i);
    mcg_chain_row(chain, r, row, a);
  }
}
