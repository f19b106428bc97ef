/* Input gradients of 3x3 depthwise convolutions of stride 2: see depthwise_halves.h. */
#include "depthwise_halves.h"

#include "chain_quad.h"
#include "uses.h"

#define PLACE 4        /* words of a position in the plane */
#define UP 8           /* h is widened times 2^8, */
#define MOST_SHIFT 22  /* and weights times 2^(UP - shift), or the multiplier is divided */

/* What the rows of a block share. */
typedef struct {
  mcg_halves_even_t even;
  mcg_halves_odd_t odd;
} tables_t;

/* A block: its plane begins at row `top` of h, which may lie outside. */
typedef struct {
  tables_t *tables;
  uint32_t *plane;
  int32_t top, rows; /* of the plane */
  int32_t half;      /* whether the first row of outputs is an odd one */
} halves_t;

static int32_t magnitude(int32_t v) { return v < 0 ? -v : v; }

/* Weights of channel c, w[0] the first tap, of outputs that stay within +-127 where h is at most `most`; 0 where that is not
 * sure or a multiplier would lose bits. */
static int32_t put_channel(const int8_t *w, int32_t next, int32_t c, const mcg_lane_t *lane, int32_t most, tables_t *to) {
  const int32_t up = UP - lane->shift, down = up < 0 ? -up : 0, factor = 1 << (up + down), row = 3 * next;
  const int32_t w00 = w[0], w01 = w[next], w02 = w[2 * next], w20 = w[2 * row], w21 = w[2 * row + next];
  const int32_t w22 = w[2 * row + 2 * next], w10 = w[row], w11 = w[row + next], w12 = w[row + 2 * next];
  const int32_t four = magnitude(w00) + magnitude(w02) + magnitude(w20) + magnitude(w22);
  const int32_t two = mcg_max(magnitude(w10) + magnitude(w12), magnitude(w01) + magnitude(w21));
  const int32_t sum = mcg_max(mcg_max(four, two), magnitude(w11)) * most, high = mcg_mulhi(sum << UP, lane->multiplier);
  if (lane->shift > MOST_SHIFT || high >> (lane->shift + UP) >= 127 || (lane->multiplier & ((1 << down) - 1)) != 0) return 0;
  uint32_t *even = to->even.weight + 6 * (c & 1), *odd = to->odd.weight + 8 * (c & 1) + 2 * (c & 2);
  even[4 + (c >> 1)] = odd[3] = (uint32_t)(lane->multiplier >> down);
  even += c & 2;
  even[0] = mcg_pair(w11 * factor, 0), even[1] = mcg_pair(w12 * factor, w10 * factor);
  odd[0] = mcg_pair(w22 * factor, w20 * factor), odd[1] = mcg_pair(w02 * factor, w00 * factor);
  odd[2] = mcg_pair(w21 * factor, w01 * factor);
  return 1;
}

/* The plane of four channels and their weights; 0 where put_channel says so. */
static MCG_APART int32_t open_quad(const mcg_conv2d_t *p, const halves_t *s, const int8_t *h, const int8_t *weight,
                                   const mcg_lane_t *lane) {
  const int32_t first = mcg_max(s->top, 0), last = mcg_min(s->top + s->rows, p->out_h);
  mcg_halves_plane_t t = {h + first * p->out_w * p->in_c, p->in_c, s->plane + (first - s->top) * PLACE, 4 * PLACE * s->rows,
                          p->out_w, last - first, 0, 0};
  if (MCG_ASM && t.rows > 0) mcg_halves_widen(&t);
  MCG_ROLLED for (int32_t c = 0; c < MCG_LANES; ++c) {
    const int32_t most = mcg_max((int8_t)(t.largest >> 8 * c), -(int8_t)(t.smallest >> 8 * c));
    if (!put_channel(weight + c, p->in_c, c, &lane[c], most, s->tables)) return 0;
  }
  return 1;
}

/* The walk over every other row of the block's outputs, which begins at `out` and the plane's row `at`. */
static mcg_halves_walk_t walk(const mcg_conv2d_t *p, const halves_t *s, const mcg_stage_t *stage, int32_t out, int32_t at,
                              int32_t rows) {
  const int32_t line = p->in_w * p->in_c, pitch = 4 * PLACE * s->rows, up = 16 - (out & 4);
  const intptr_t mask = (intptr_t)stage->mask, delta = mask - (intptr_t)stage->out;
  const int32_t bits = stage->p->mask_bits;
  const mcg_halves_walk_t w = {bits ? mask + (out >> 3) : delta,
                               bits ? p->in_c >> 3 : delta + p->in_c,
                               p->in_c,
                               pitch,
                               0,
                               s->plane + PLACE * (at + p->out_w * s->rows),
                               bits ? (uint32_t)up : 0x81818181u,
                               0x02020202u,
                               4 * PLACE - p->out_w * pitch,
                               line,
                               line >> 3,
                               rows};
  return w;
}

/* Four channels of a block; 0, having stored nothing, where they must go another way. */
static MCG_APART int32_t quad(const mcg_conv2d_t *p, const halves_t *s, const int8_t *h, const int8_t *weight,
                              const mcg_chain_t *chain, const mcg_block_t *b) {
  mcg_lane_t lane[MCG_LANES];
  const mcg_stage_t *stage = chain->stages;
  const int32_t line = p->in_w * p->in_c, out = b->row * line + b->first, bytes = MCG_USES_BYTE_MASKS && !stage->p->mask_bits;
  const int32_t even = (b->rows + 1 - s->half) >> 1, odd = b->rows - even, first = s->half, second = 1 - s->half;
  mcg_halves_even_t *e = &s->tables->even;
  mcg_halves_odd_t *o = &s->tables->odd;
  if (!mcg_chain_lanes(chain, b->first, 1, lane)) return 0;
  if (!open_quad(p, s, h + b->first, weight + b->first, lane)) return 0;
  e->walk = walk(p, s, stage, out + first * line, first, even);
  o->walk = walk(p, s, stage, out + second * line, 0, odd);
  o->walk.pitch -= 4 * PLACE;
  if (MCG_ASM && even > 0) {
    (bytes ? mcg_halves_even_bytes : mcg_halves_even_bits)(s->plane + PLACE * first, e, stage->out + out + first * line);
  }
  if (MCG_ASM && odd > 0) (bytes ? mcg_halves_odd_bytes : mcg_halves_odd_bits)(s->plane, o, stage->out + out + second * line);
  return 1;
}

int32_t mcg_depthwise_halves(const mcg_conv2d_t *p, const int8_t *h, const int8_t *weight, const mcg_chain_t *chain,
                             void *scratch, int32_t bytes, mcg_block_t *b) {
  const int32_t most = (bytes - (int32_t)sizeof(tables_t)) / (4 * PLACE * p->out_w);
  halves_t s = {(tables_t *)scratch, (uint32_t *)(void *)((tables_t *)scratch + 1), 0, 0, 0};
  if (most < 2) return b->first < p->in_c; /* all of it */
  for (b->n = MCG_LANES; b->row < p->in_h; b->row += b->rows, b->first = 0) {
    const int32_t row = b->row + p->pad_top - 1;
    s.half = row & 1, s.top = row >> 1;
    b->rows = mcg_min(2 * (most - 1) - s.half, p->in_h - b->row);
    s.rows = ((s.half + b->rows + 1) >> 1) + 1;
    mcg_clear((int16_t *)(void *)s.plane, 2 * PLACE * s.rows * p->out_w);
    for (; b->first < p->in_c; b->first += MCG_LANES) {
      if (!quad(p, &s, h, weight, chain, b)) return 1;
    }
  }
  return 0;
}
