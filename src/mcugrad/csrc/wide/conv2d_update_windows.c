/* Weight gradient of any convolution of one group as a product of matrices: outputs times taps and channels, positions in
 * turns; and its step.
 *
 * A window of x has one more element for each tap, 1 where the tap is inside, so that its products with h are the sums
 * that the zero point and the means are multiplied with.
 */
#include "ops/backward.h"
#include "wide.h"
#include "product.h"

#define SUMS 32768 /* of a whole weight */

typedef struct {
  const mcg_conv2d_t *p;
  int32_t terms;          /* of a window: taps * (live + 1) */
  int32_t positions;      /* at a time, whole words of them */
  int32_t count, groups;  /* those of this turn, and their words */
  mcg_term_t turned[MCG_TOGETHER]; /* h: [outputs / 16][groups][16] words */
  int8_t windows[MCG_TOGETHER];    /* [count][terms] */
  int32_t sums[SUMS];       /* [outputs, in whole tiles][terms] */
} update_t;

static void turn(update_t *u, const int8_t *h) {
  for (int32_t o = 0; o < u->p->out_c; o += MCG_WIDTH) {
    const int32_t n = mcg_at_most(MCG_WIDTH, u->p->out_c - o);
    mcg_pack_terms((int8_t *)u->turned + o * u->groups * 4, 64, h + o, u->p->out_c, n, u->count);
  }
}

/* to [live + 1] = the channels of a pixel and a one */
static int8_t *pick(const mcg_conv2d_t *p, const int8_t *x, int8_t *to) {
  if (p->order == NULL) {
    for (int32_t j = 0; j < p->live; ++j) to[j] = x[j];
  } else {
    for (int32_t j = 0; j < p->live; ++j) to[j] = x[p->order[j]];
  }
  to[p->live] = 1;
  return to + p->live + 1;
}

/* to [terms] = the window of an output */
static int8_t *gather(const mcg_conv2d_t *p, const int8_t *x, int32_t oy, int32_t ox, int8_t *to) {
  for (int32_t ky = 0; ky < p->kernel_h; ++ky) {
    const int32_t iy = oy * p->stride_h + ky * p->dilation_h - p->pad_top;
    for (int32_t kx = 0; kx < p->kernel_w; ++kx) {
      const int32_t ix = ox * p->stride_w + kx * p->dilation_w - p->pad_left;
      if (iy >= 0 && iy < p->in_h && ix >= 0 && ix < p->in_w) {
        to = pick(p, x + (iy * p->in_w + ix) * p->in_c, to);
      } else {
        for (int32_t j = 0; j <= p->live; ++j) *to++ = 0;
      }
    }
  }
  return to;
}

/* sums [rows][terms] += turned . columns at j; vectors is a constant of each call. */
MCG_INLINE void tile(update_t *u, const mcg_panel_t *panel, const mcg_wide_t *start, int32_t o, int vectors, int32_t j) {
  mcg_wide_t acc[MCG_WIDE_ROWS][MCG_WIDE_VECTORS];
  const int8_t *a = (const int8_t *)u->turned + (o & -MCG_WIDTH) * u->groups * 4 + (o & (MCG_WIDTH - 1)) * 4;
  mcg_multiply_tile(a, 4, 64, u->groups, panel, MCG_WIDE_ROWS, vectors, start, acc);
  for (int i = 0; i < MCG_WIDE_ROWS && o + i < u->p->out_c; ++i) {
    for (int v = 0; v < vectors; ++v) {
      const int32_t at = j + v * MCG_WIDTH, n = mcg_at_most(MCG_WIDTH, u->terms - at);
      int32_t *sum = u->sums + (o + i) * u->terms + at;
      mcg_store_some(sum, mcg_load_some(sum, n) + acc[i][v], n);
    }
  }
}

/* The products of this turn's positions. */
static void multiply(update_t *u) {
  mcg_panel_t panel;
  for (int32_t j = 0, vectors; j < u->terms; j += vectors * MCG_WIDTH) {
    mcg_wide_t start[MCG_WIDE_VECTORS];
    vectors = mcg_vectors(u->terms - j);
    for (int32_t v = 0; v < vectors; ++v) {
      const int32_t at = j + v * MCG_WIDTH, n = mcg_at_most(MCG_WIDTH, u->terms - at);
      start[v] = -MCG_FLIP * mcg_pack_terms(panel.bytes + 64 * v, 64 * vectors, u->windows + at, u->terms, n, u->count);
    }
    for (int32_t o = 0; o < u->p->out_c; o += MCG_WIDE_ROWS) {
      if (vectors == 1) tile(u, &panel, start, o, 1, j);
      else tile(u, &panel, start, o, MCG_WIDE_VECTORS, j);
    }
  }
}

/* Moves the weights of an output, sums [taps][live + 1]. */
static void step_output(const mcg_conv2d_t *p, const int16_t *mu, const mcg_weight_step_t *step, int32_t o, int32_t *sums) {
  int64_t shifted = 0;
  for (int32_t tap = 0; tap < p->kernel_h * p->kernel_w; ++tap, sums += p->live + 1) {
    for (int32_t j = 0; j < p->live; ++j) sums[j] -= (p->x_zero + (mu != NULL ? mu[j] : 0)) * sums[p->live];
    shifted += mcg_weight_step(step, o, tap, 0, p->live, sums, mu);
  }
  if (mu != NULL) mcg_centre(step, o, shifted);
}

int32_t mcg_conv2d_update_windows(const mcg_conv2d_t *p, const int8_t *x, const int8_t *h, const int16_t *mu,
                                  const mcg_weight_step_t *step) {
  update_t u;
  const int32_t total = p->out_h * p->out_w, outputs = (p->out_c + MCG_WIDTH - 1) & -MCG_WIDTH;
  u.p = p, u.terms = p->kernel_h * p->kernel_w * (p->live + 1);
  u.positions = MCG_TOGETHER / (outputs > u.terms ? outputs : u.terms) & -4;
  if (p->groups != 1 || u.positions == 0 || outputs * u.terms > SUMS) return 0;
  u.positions = mcg_at_most(u.positions, MCG_DEEPEST);
  for (int32_t i = 0; i < p->out_c * u.terms; ++i) u.sums[i] = 0;
  for (int32_t at = 0; at < total; at += u.positions) {
    u.count = mcg_at_most(u.positions, total - at), u.groups = mcg_groups(u.count);
    turn(&u, h + at * p->out_c);
    int8_t *to = u.windows;
    for (int32_t i = at; i < at + u.count; ++i) to = gather(p, x, i / p->out_w, i % p->out_w, to);
    multiply(&u);
  }
  for (int32_t o = 0; o < p->out_c; ++o) step_output(p, mu, step, o, u.sums + o * u.terms);
  return 1;
}
