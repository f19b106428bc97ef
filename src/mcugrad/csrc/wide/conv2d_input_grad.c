/* Input gradient of a 1x1 convolution as a product of matrices: positions times input channels. */
#include "wide.h"
#include "product.h"

#define SUMS 32768    /* of a block */
#define ORDERED 32768 /* words of weights that are put in order */

typedef struct {
  const mcg_conv2d_t *p;
  const int8_t *h; /* [positions][groups] of a block */
  int32_t groups, positions;
  int32_t *acc;    /* [positions][in_c] */
} block_t;

MCG_INLINE void tile(const block_t *b, const mcg_panel_t *panel, const mcg_wide_t *start, int32_t i, int rows,
                     int vectors, int32_t n, int32_t *to) {
  mcg_wide_t acc[MCG_WIDE_ROWS][MCG_WIDE_VECTORS];
  mcg_multiply_tile(b->h + 4 * i * b->groups, 4 * b->groups, 4, b->groups, panel, rows, vectors, start, acc);
  for (int j = 0; j < rows; ++j) {
    for (int v = 0; v < vectors; ++v) {
      mcg_store_some(to + (i + j) * b->p->in_c + v * MCG_WIDTH, acc[j][v], mcg_at_most(MCG_WIDTH, n - v * MCG_WIDTH));
    }
  }
}

/* Positions i ... i + 2 * MCG_WIDE_ROWS - 1 at n <= 8 channels. */
static void tile_of_pairs(const block_t *b, const mcg_panel_t *panel, mcg_wide_t start, int32_t i, int32_t n, int32_t *to) {
  const int32_t pitch = b->p->in_c;
  mcg_wide_t acc[MCG_WIDE_ROWS];
  mcg_multiply_pairs(b->h + 4 * i * b->groups, 4 * b->groups, 4, b->groups, panel, MCG_WIDE_ROWS, start, acc);
  to += i * pitch;
  for (int j = 0; j < MCG_WIDE_ROWS; ++j, to += 2 * pitch) {
    mcg_store_some(to, acc[j], n);
    mcg_store_some(to + pitch, mcg_second(acc[j]), n);
  }
}

static void tiles_of_pairs(const block_t *b, const mcg_panel_t *panel, mcg_wide_t start, int32_t n, int32_t *to) {
  for (int32_t i = 0; i < b->positions; i += MCG_PAIRS) {
    tile_of_pairs(b, panel, start, mcg_at_most(i, b->positions - MCG_PAIRS), n, to);
  }
}

/* The last tile steps back and computes some rows again where rows are lacking. */
MCG_INLINE void tiles(const block_t *b, const mcg_panel_t *panel, const mcg_wide_t *start, int vectors, int32_t n,
                      int32_t *to) {
  for (int32_t i = 0; i < b->positions;) {
    const int32_t rows = b->positions < MCG_WIDE_ROWS ? 1 : MCG_WIDE_ROWS;
    if (i + rows > b->positions) i = b->positions - rows;
    if (rows == 1) tile(b, panel, start, i, 1, vectors, n, to);
    else tile(b, panel, start, i, MCG_WIDE_ROWS, vectors, n, to);
    i += rows;
  }
}

/* Columns of a panel from [groups][in_c] words.  Returns the sum of each column. */
static mcg_wide_t pack_words(const block_t *b, int8_t *to, int32_t step, const int32_t *words, int32_t columns) {
  mcg_wide_t sum = {0};
  for (int32_t g = 0; g < b->groups; ++g, to += step, words += b->p->in_c) {
    const mcg_wide_t some = mcg_load_some(words, columns), v = columns > MCG_HALF ? some : mcg_twice(some);
    mcg_store_wide(to, v);
    sum = mcg_dot(sum, mcg_splat(MCG_ONES), v);
  }
  return sum;
}

/* acc [positions][kept] from channel `first` on = h . w [O][kept], rows of w `pitch` apart; or of `words` where w is null. */
static void segment(const block_t *b, const int8_t *w, const int32_t *words, int32_t kept, int32_t pitch, int32_t first) {
  mcg_panel_t panel;
  for (int32_t j = 0, n; j < kept; j += n) {
    const int32_t vectors = mcg_vectors(kept - j), step = 64 * vectors;
    mcg_wide_t start[MCG_WIDE_VECTORS];
    n = mcg_at_most(vectors * MCG_WIDTH, kept - j);
    for (int32_t v = 0; v < vectors; ++v) {
      const int32_t at = j + v * MCG_WIDTH, columns = mcg_at_most(MCG_WIDTH, kept - at);
      int8_t *const to = panel.bytes + 64 * v;
      start[v] = -MCG_FLIP * (w != NULL ? mcg_pack_terms(to, step, w + at, pitch, columns, b->p->out_c)
                                        : pack_words(b, to, step, words + at, columns));
    }
    if (n <= MCG_HALF && b->positions >= MCG_PAIRS) tiles_of_pairs(b, &panel, start[0], n, b->acc + first + j);
    else if (vectors == 1) tiles(b, &panel, start, 1, n, b->acc + first + j);
    else tiles(b, &panel, start, MCG_WIDE_VECTORS, n, b->acc + first + j);
  }
}

/* to [n] = words of so many rows of w [n] */
static void word_row(const int8_t *w, int32_t n, int32_t terms, int32_t *to) {
  int32_t j = 0;
  for (; j + MCG_WIDTH <= n; j += MCG_WIDTH) mcg_store_wide(to + j, mcg_word(w + j, n, MCG_WIDTH, terms));
  if (j < n) mcg_store_wide(to + j, mcg_word(w + j, n, n - j, terms));
}

/* words [groups][in_c] of all channels in their order */
static void order_words(const block_t *b, const int8_t *weight, const int8_t *rest, int32_t *words) {
  const mcg_conv2d_t *p = b->p;
  int32_t row[MCG_DEEPEST + 2 * MCG_WIDTH];
  for (int32_t o = 0; o < p->out_c; o += MCG_TERMS, words += p->in_c) {
    const int32_t terms = mcg_at_most(MCG_TERMS, p->out_c - o), resting = p->in_c - p->live;
    word_row(weight + o * p->live, p->live, terms, row);
    word_row(rest + o * resting, resting, terms, row + p->live);
    for (int32_t j = 0; j < p->in_c; ++j) words[p->order[j]] = row[j];
  }
}

/* acc [positions][in_c] from segment order (live, then resting channels) to channel order; spare [in_c]. */
static void reorder(const block_t *b, int32_t *spare) {
  const uint16_t *order = b->p->order;
  const int32_t channels = b->p->in_c;
  int32_t *acc = b->acc;
  for (int32_t i = 0; i < b->positions; ++i, acc += channels) {
    for (int32_t j = 0; j < channels; ++j) spare[j] = acc[j];
    for (int32_t j = 0; j < channels; ++j) acc[order[j]] = spare[j];
  }
}

int32_t mcg_conv2d_input_grad_wide(const mcg_conv2d_t *p, const int8_t *h, const int8_t *weight, const int8_t *rest,
                                   const mcg_chain_t *chain) {
  int32_t acc[SUMS], spare[MCG_DEEPEST], ordered[ORDERED];
  mcg_term_t words[MCG_TOGETHER];
  const int32_t groups = mcg_groups(p->out_c), sums = p->in_w * p->in_c, terms = p->in_w * groups * MCG_TERMS;
  if (!mcg_is_pointwise(p) || p->out_c > MCG_DEEPEST || p->in_c > MCG_DEEPEST) return 0;
  if (sums > SUMS || terms > MCG_TOGETHER) return 0;
  const int32_t rows = mcg_min(p->in_h, mcg_min(SUMS / sums, MCG_TOGETHER / terms));
  mcg_block_t block = {acc, p->in_c, 0, 0, p->in_w, p->in_c, p->in_c, 0};
  const int in_order = MCG_TERMS == 4 && p->order != NULL && rest != NULL && groups * p->in_c <= ORDERED;
  mcg_chain_start(chain);
  for (; block.row < p->in_h; block.row += rows) {
    block.rows = mcg_min(rows, p->in_h - block.row);
    const int32_t positions = block.rows * p->in_w;
    const int8_t *const a = mcg_word_rows(h + block.row * p->in_w * p->out_c, p->out_c, positions, words);
    const block_t b = {p, a, groups, positions, acc};
    if (in_order) {
      if (block.row == 0) order_words(&b, weight, rest, ordered);
      segment(&b, NULL, ordered, p->in_c, 0, 0);
    } else {
      segment(&b, weight, NULL, mcg_min(p->live, p->in_c), p->live, 0);
      if (rest != NULL) segment(&b, rest, NULL, p->in_c - p->live, p->in_c - p->live, p->live);
      if (p->order != NULL) reorder(&b, spare);
    }
    mcg_chain_block(chain, &block);
  }
  return 1;
}
