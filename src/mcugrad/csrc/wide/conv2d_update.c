/* Weight gradient of a 1x1 convolution as a product of matrices, outputs times input channels, and its step at once. */
#include "wide.h"
#include "product.h"

#define TURNED 65536 /* terms of h and of x that are put in order at a time */
#define OUTPUTS 1024 /* computed together */

/* A few outputs. */
typedef struct {
  const mcg_conv2d_t *p;
  const int16_t *mu;
  const mcg_weight_step_t *step;
  int32_t positions, groups;
  int32_t first, outputs;
  mcg_term_t turned[TURNED]; /* [outputs / 16][groups][16] words */
  int32_t sums[OUTPUTS];    /* of h */
  int64_t shifted[OUTPUTS]; /* what centring takes off the bias */
} update_t;

/* Puts a word of positions of each of 16 outputs together. */
static void turn(update_t *u, const int8_t *h) {
  for (int32_t o = 0; o < u->outputs; o += MCG_WIDTH) {
    const int32_t n = mcg_at_most(MCG_WIDTH, u->outputs - o);
    int8_t *to = (int8_t *)u->turned + o * u->groups * 4;
    mcg_store_wide(u->sums + o, mcg_pack_terms(to, 64, h + u->first + o, u->p->out_c, n, u->positions));
  }
  for (int32_t o = 0; o < u->outputs; ++o) u->shifted[o] = 0;
}

/* to [positions][n] = channels j ... j + n - 1 of the order */
static void pick(const update_t *u, const int8_t *x, int32_t j, int32_t n, int8_t *to) {
  const uint16_t *order = u->p->order + j;
  for (int32_t i = 0; i < u->positions; ++i, x += u->p->in_c) {
    for (int32_t k = 0; k < n; ++k) *to++ = x[order[k]];
  }
}

/* The columns of channels j ... j + n - 1, and where their sums start. */
static void pack(const update_t *u, const int8_t *x, int32_t j, int32_t n, mcg_panel_t *panel, mcg_wide_t *start) {
  int8_t picked[TURNED];
  const int32_t vectors = mcg_vectors(n), pitch = u->p->order != NULL ? n : u->p->in_c;
  if (u->p->order != NULL) pick(u, x, j, n, picked);
  const int8_t *from = u->p->order != NULL ? picked : x + j;
  for (int32_t v = 0; v < vectors; ++v) {
    const int32_t columns = mcg_at_most(MCG_WIDTH, n - v * MCG_WIDTH);
    int8_t *to = panel->bytes + 64 * v;
    start[v] = -MCG_FLIP * mcg_pack_terms(to, 64 * vectors, from + v * MCG_WIDTH, pitch, columns, u->positions);
  }
}

/* The step of outputs o ... by rows of gradients; rows and vectors are constants of each call. */
MCG_INLINE void tile(update_t *u, const mcg_panel_t *panel, const mcg_wide_t *start, int32_t o, int rows, int vectors,
                     int32_t j, int32_t n, const int32_t *middle) {
  mcg_wide_t acc[MCG_WIDE_ROWS][MCG_WIDE_VECTORS];
  const int8_t *a = (const int8_t *)u->turned + (o & -MCG_WIDTH) * u->groups * 4 + (o & (MCG_WIDTH - 1)) * 4;
  mcg_multiply_tile(a, 4, 64, u->groups, panel, rows, vectors, start, acc);
  for (int i = 0; i < rows && o + i < u->outputs; ++i) {
    int32_t grad[MCG_WIDE_VECTORS * MCG_WIDTH];
    for (int v = 0; v < vectors; ++v) {
      mcg_store_wide(grad + v * MCG_WIDTH, acc[i][v] - mcg_load_wide(middle + v * MCG_WIDTH) * u->sums[o + i]);
    }
    u->shifted[o + i] += mcg_weight_step(u->step, u->first + o + i, 0, j, n, grad, u->mu != NULL ? u->mu + j : NULL);
  }
}

/* The same of MCG_PAIRS outputs for n <= 8 channels. */
static void tile_of_pairs(update_t *u, const mcg_panel_t *panel, mcg_wide_t start, int32_t o, int32_t j, int32_t n,
                          const int32_t *middle) {
  const int8_t *a = (const int8_t *)u->turned + (o & -MCG_WIDTH) * u->groups * 4 + (o & (MCG_WIDTH - 1)) * 4;
  const mcg_wide_t off = mcg_twice(mcg_load_wide(middle));
  mcg_wide_t acc[MCG_WIDE_ROWS];
  int32_t grad[MCG_PAIRS][MCG_HALF];
  mcg_multiply_pairs(a, 4, 64, u->groups, panel, MCG_WIDE_ROWS, start, acc);
  for (int i = 0; i < MCG_WIDE_ROWS; ++i) {
    const int32_t *sum = u->sums + o + 2 * i;
    mcg_store_wide(grad[2 * i], acc[i] - off * mcg_halves(sum[0], sum[1]));
  }
  for (int i = 0; i < MCG_PAIRS && o + i < u->outputs; ++i) {
    u->shifted[o + i] += mcg_weight_step(u->step, u->first + o + i, 0, j, n, grad[i], u->mu != NULL ? u->mu + j : NULL);
  }
}

/* Channels j ... j + n - 1 of all outputs. */
static void channels(update_t *u, const int8_t *x, int32_t j, int32_t n) {
  mcg_panel_t panel;
  mcg_wide_t start[MCG_WIDE_VECTORS];
  int32_t middle[MCG_WIDE_VECTORS * MCG_WIDTH] = {0};
  for (int32_t k = 0; k < n; ++k) middle[k] = u->p->x_zero + (u->mu != NULL ? u->mu[j + k] : 0);
  pack(u, x, j, n, &panel, start);
  for (int32_t o = 0; n <= MCG_HALF && o < u->outputs; o += MCG_PAIRS) tile_of_pairs(u, &panel, start[0], o, j, n, middle);
  if (n <= MCG_HALF) return;
  for (int32_t o = 0; o < u->outputs; o += MCG_WIDE_ROWS) {
    if (mcg_vectors(n) == 1) tile(u, &panel, start, o, MCG_WIDE_ROWS, 1, j, n, middle);
    else tile(u, &panel, start, o, MCG_WIDE_ROWS, MCG_WIDE_VECTORS, j, n, middle);
  }
}

int32_t mcg_conv2d_update_wide(const mcg_conv2d_t *p, const int8_t *x, const int8_t *h, const int16_t *mu,
                               const mcg_weight_step_t *step) {
  update_t u;
  u.p = p, u.mu = mu, u.step = step;
  u.positions = p->in_h * p->in_w, u.groups = mcg_groups(u.positions);
  const int32_t most = mcg_at_most(OUTPUTS, TURNED / (MCG_TERMS * MCG_WIDTH * u.groups) * MCG_WIDTH);
  if (!mcg_is_pointwise(p) || most == 0 || u.positions * MCG_WIDE_VECTORS * MCG_WIDTH > TURNED) {
    return mcg_conv2d_update_windows(p, x, h, mu, step);
  }
  for (u.first = 0; u.first < p->out_c; u.first += most) {
    u.outputs = mcg_at_most(most, p->out_c - u.first);
    turn(&u, h);
    for (int32_t j = 0, n; j < p->live; j += n) {
      n = mcg_at_most(mcg_vectors(p->live - j) * MCG_WIDTH, p->live - j);
      channels(&u, x, j, n);
    }
    for (int32_t o = 0; mu != NULL && o < u.outputs; ++o) mcg_centre(step, u.first + o, u.shifted[o]);
  }
  return 1;
}
