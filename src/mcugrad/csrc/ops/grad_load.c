/* A stored gradient as the start of a chain. */
#include "backward.h"

/* g [rows][row], scratch int32 [row] */
void mcg_grad_load_s8(int32_t rows, int32_t row, const int8_t *g, const mcg_chain_t *chain, void *scratch) {
  int32_t *acc = (int32_t *)scratch;
  mcg_chain_start(chain);
  for (int32_t r = 0; r < rows; ++r, g += row) {
    for (int32_t i = 0; i < row; ++i) acc[i] = g[i];
    mcg_chain_row(chain, r, row, acc);
  }
}

void mcg_grad_load_s32(int32_t rows, int32_t row, const int32_t *g, const mcg_chain_t *chain, void *scratch) {
  int32_t *acc = (int32_t *)scratch;
  mcg_chain_start(chain);
  for (int32_t r = 0; r < rows; ++r, g += row) {
    for (int32_t i = 0; i < row; ++i) acc[i] = g[i];
    mcg_chain_row(chain, r, row, acc);
  }
}

void mcg_grad_negate(int32_t rows, int32_t row, const int8_t *g, const mcg_chain_t *chain, void *scratch) {
  int32_t *acc = (int32_t *)scratch;
  mcg_chain_start(chain);
  for (int32_t r = 0; r < rows; ++r, g += row) {
    for (int32_t i = 0; i < row; ++i) acc[i] = -g[i];
    mcg_chain_row(chain, r, row, acc);
  }
}
