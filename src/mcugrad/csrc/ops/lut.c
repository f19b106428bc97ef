/* A function of one element by table, and its gradient by a table of slopes; both tables are indexed by the byte of x. */
#include "backward.h"
#include "ops/rows.h"

void mcg_lut(int32_t row, const int8_t *table, const mcg_rows_t *r, const int8_t *x, int8_t *y) {
  for (int32_t i = r->first; i < r->last; ++i) {
    const int8_t *from = mcg_row(x, i, r->x_rows, row);
    int8_t *to = mcg_row_out(y, i, r->y_rows, row);
    int32_t j = 0;
    MCG_ROLLED for (; j + 4 <= row; j += 4) {
      const uint32_t v = mcg_load4(from + j);
      const uint32_t low = (uint8_t)table[v & 0xFFu] | (uint32_t)(uint8_t)table[v >> 8 & 0xFFu] << 8;
      const uint32_t high = (uint8_t)table[v >> 16 & 0xFFu] | (uint32_t)(uint8_t)table[v >> 24] << 8;
      mcg_store4(to + j, low | high << 16);
    }
    MCG_ROLLED for (; j < row; ++j) to[j] = table[(uint8_t)from[j]];
  }
}

/* g and x [rows][row], scratch int32 [row] */
void mcg_lut_grad(int32_t rows, int32_t row, const int16_t *table, const int8_t *g, const int8_t *x,
                  const mcg_chain_t *chain, void *scratch) {
  int32_t *acc = (int32_t *)scratch;
  mcg_chain_start(chain);
  for (int32_t r = 0; r < rows; ++r, g += row, x += row) {
    MCG_ROLLED for (int32_t i = 0; i < row; ++i) acc[i] = g[i] * table[(uint8_t)x[i]];
    mcg_chain_row(chain, r, row, acc);
  }
}
