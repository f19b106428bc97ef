/* Input gradients of 3x3 depthwise convolutions of stride 2: see depthwise_halves.h. */
#include "depthwise_halves.h"

#include "chain_quad.h"
#include "uses.h"

#define PLACE 4        /* words of a position in the plane */
#define ROUNDING 0x8000u /* of outputs in the high half */

/* A block in the scratch, before its plane, which begins at row `top` of h: that may lie outside. */
typedef struct {
  mcg_halves_weights_t weights;
  mcg_halves_walk_t walk[2]; /* over even and odd rows of outputs */
  int32_t out[2], at[2];     /* of the first of them: elements before it, and words of the plane */
  int32_t top, rows;         /* of the plane */
  uint32_t plane[];
} halves_t;

/* Places the walk over even or odd rows of the block b, of which the first is row `first`. */
static void place_walk(const mcg_conv2d_t *p, const mcg_stage_t *stage, const mcg_block_t *b, int32_t odd, int32_t first,
                       halves_t *s) {
  const int32_t line = p->in_w * p->in_c, pitch = PLACE * p->out_w, at = odd ? 0 : first, bits = stage->p->mask_bits;
  const intptr_t mask = (intptr_t)stage->mask, delta = mask - (intptr_t)stage->out;
  const mcg_halves_walk_t w = {bits ? mask : delta,
                               bits ? p->in_c >> 3 : delta + p->in_c,
                               p->in_c,
                               0,
                               0,
                               s->plane + pitch * (at + 1),
                               0x81818181u,
                               0x02020202u,
                               4 * pitch,
                               line,
                               line >> 3,
                               (b->rows - first + 1) >> 1};
  s->walk[odd] = w, s->at[odd] = pitch * at, s->out[odd] = (b->row + first) * line;
}

static void place(const mcg_conv2d_t *p, const mcg_stage_t *stage, const mcg_block_t *b, int32_t half, halves_t *s) {
  s->rows = ((half + b->rows + 1) >> 1) + 1;
  mcg_clear((int16_t *)(void *)s->plane, 2 * PLACE * s->rows * p->out_w);
  s->weights.even[6] = s->weights.odd[4] = ROUNDING, s->weights.odd[13] = (uint32_t)(uintptr_t)s->weights.odd;
  MCG_ROLLED for (int32_t odd = 0; odd < 2; ++odd) place_walk(p, stage, b, odd, odd ^ half, s);
}

/* The plane of four channels and their weights; 0 where mcg_halves_weigh says so. */
static int32_t open_quad(const mcg_conv2d_t *p, halves_t *s, const int8_t *h, const int8_t *weight,
                         const mcg_lane_t *lane) {
  const int32_t first = mcg_max(s->top, 0), last = mcg_min(s->top + s->rows, p->out_h);
  mcg_halves_plane_t t = {h + first * p->out_w * p->in_c, p->in_c, s->plane + (first - s->top) * PLACE * p->out_w,
                          p->out_w, last - first, 0};
  if (MCG_ASM && t.rows > 0) mcg_halves_widen(&t);
  return MCG_ASM ? mcg_halves_weigh(weight, p->in_c, lane, t.most, &s->weights) : 0;
}

/* The outputs of four channels of a block, from channel c on. */
static void walk_quad(halves_t *s, const mcg_stage_t *stage, int32_t c) {
  const int32_t bytes = MCG_USES_BYTE_MASKS && !stage->p->mask_bits;
  MCG_ROLLED for (int32_t odd = 0; odd < 2; ++odd) {
    mcg_halves_walk_t *const w = &s->walk[odd];
    const uint32_t *plane = s->plane + s->at[odd], *weight = odd ? s->weights.odd : s->weights.even;
    int8_t *const out = stage->out + s->out[odd] + c;
    if (!bytes) w->mask = (intptr_t)stage->mask + ((s->out[odd] + c) >> 3), w->low = (uint32_t)(16 - (c & 4));
    if (!MCG_ASM || w->rows <= 0) continue;
    if (bytes) (odd ? mcg_halves_odd_bytes : mcg_halves_even_bytes)(plane, weight, out, w);
    else (odd ? mcg_halves_odd_bits : mcg_halves_even_bits)(plane, weight, out, w);
  }
}

int32_t mcg_depthwise_halves(const mcg_conv2d_t *p, const int8_t *h, const int8_t *weight, const mcg_chain_t *chain,
                             void *scratch, int32_t bytes, mcg_block_t *b) {
  const int32_t most = (bytes - (int32_t)sizeof(halves_t)) / (4 * PLACE * p->out_w);
  mcg_lane_t lane[MCG_LANES];
  halves_t *const s = (halves_t *)scratch;
  if (most < 2) return b->first < p->in_c; /* all of it */
  for (b->n = MCG_LANES; b->row < p->in_h; b->row += b->rows, b->first = 0) {
    const int32_t row = b->row + p->pad_top - 1, half = row & 1;
    b->rows = mcg_min(2 * (most - 1) - half, p->in_h - b->row);
    s->top = row >> 1;
    place(p, chain->stages, b, half, s);
    for (; b->first < p->in_c; b->first += MCG_LANES) {
      if (!mcg_chain_lanes(chain, b->first, 1, lane)) return 1;
      if (!open_quad(p, s, h + b->first, weight + b->first, lane)) return 1;
      walk_quad(s, chain->stages, b->first);
    }
  }
  return 0;
}
