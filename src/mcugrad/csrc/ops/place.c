/* Padding and slicing, and their gradients: y at (r, x, c) is x at (r, x, c) + (top, left, first), or a constant outside. */
#include "backward.h"
#include "ops/bytes.h"
#include "ops/rows.h"

/* Elements [first, last) of `n` that lie inside `size` when moved by `offset`. */
static mcg_taps_t inside(int32_t offset, int32_t size, int32_t n) {
  const int32_t first = mcg_between(-offset, 0, n);
  const mcg_taps_t t = {first, mcg_between(size - offset, first, n)};
  return t;
}

/* to [n] = from [i + offset] where that is one of `size`, else the value */
static void run(const int8_t *from, int32_t size, int32_t offset, int32_t value, int32_t n, int8_t *to) {
  const mcg_taps_t t = inside(offset, size, n);
  mcg_fill(to, value, t.first);
  if (t.first < t.last) mcg_copy(to + t.first, from + t.first + offset, t.last - t.first);
  mcg_fill(to + t.last, value, n - t.last);
}

void mcg_place(const mcg_place_t *p, const mcg_rows_t *r, const int8_t *x, int8_t *y) {
  const int32_t pitch = p->in_w * p->in_c, row = p->out_w * p->out_c;
  for (int32_t oy = r->first; oy < r->last; ++oy) {
    const int32_t iy = oy + p->top;
    int8_t *to = mcg_row_out(y, oy, r->y_rows, row);
    if (iy < 0 || iy >= p->in_h) {
      mcg_fill(to, p->value, row);
      continue;
    }
    const int8_t *from = mcg_row(x, iy, r->x_rows, pitch);
    if (p->in_c == p->out_c && p->first == 0) {
      run(from, pitch, p->left * p->in_c, p->value, row, to);
      continue;
    }
    for (int32_t ox = 0; ox < p->out_w; ++ox, to += p->out_c) {
      const int32_t ix = ox + p->left, there = ix >= 0 && ix < p->in_w;
      run(there ? from + ix * p->in_c : from, there ? p->in_c : 0, p->first, p->value, p->out_c, to);
    }
  }
}

/* acc [out_w][out_c] of row r */
static void grad_row(const mcg_place_t *p, const int8_t *g, int32_t r, int32_t *acc) {
  const mcg_taps_t columns = inside(p->left, p->in_w, p->out_w), channels = inside(p->first, p->in_c, p->out_c);
  const int32_t iy = r + p->top;
  mcg_zero(acc, p->out_w * p->out_c);
  if (iy < 0 || iy >= p->in_h) return;
  for (int32_t x = columns.first; x < columns.last; ++x) {
    const int8_t *from = g + (iy * p->in_w + x + p->left) * p->in_c + p->first;
    int32_t *to = acc + x * p->out_c;
    MCG_COMPACT for (int32_t c = channels.first; c < channels.last; ++c) to[c] = from[c];
  }
}

/* g [in_h][in_w][in_c], scratch int32 [out_w][out_c] */
void mcg_grad_place(const mcg_place_t *p, const int8_t *g, const mcg_chain_t *chain, void *scratch) {
  int32_t *acc = (int32_t *)scratch;
  mcg_chain_start(chain);
  for (int32_t r = 0; r < p->out_h; ++r) {
    grad_row(p, g, r, acc);
    mcg_chain_row(chain, r, p->out_w * p->out_c, acc);
  }
}
