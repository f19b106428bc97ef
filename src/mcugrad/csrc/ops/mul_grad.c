/* Gradient of a factor: the gradient of the product times the other factor, summed over what was broadcast. */
#include "backward.h"

/* acc [row] += row oy of the product */
static void add_row(const mcg_mul_grad_t *p, const int8_t *g, const int8_t *x, int32_t oy, int32_t *acc) {
  g += oy * p->width * p->channels;
  x += oy * p->x_row;
  for (int32_t ox = 0; ox < p->width; ++ox, g += p->channels, x += p->x_pixel, acc += p->a_pixel) {
    MCG_ROLLED for (int32_t c = 0; c < p->channels; ++c) acc[c * p->a_step] += g[c] * (x[c * p->x_step] - p->zero);
  }
}

/* g [height][width][channels], scratch int32 [row] */
void mcg_mul_grad(const mcg_mul_grad_t *p, const int8_t *g, const int8_t *x, const mcg_chain_t *chain, void *scratch) {
  int32_t *acc = (int32_t *)scratch;
  mcg_chain_start(chain);
  for (int32_t r = 0; r < p->rows; ++r) {
    const int32_t last = p->rows == p->height ? r + 1 : p->height;
    mcg_zero(acc, p->row);
    for (int32_t oy = r; oy < last; ++oy) add_row(p, g, x, oy, acc);
    mcg_chain_row(chain, r, p->row, acc);
  }
}
