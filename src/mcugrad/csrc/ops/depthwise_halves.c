/* Input gradients of 3x3 depthwise convolutions of stride 2: see depthwise_halves.h. */
#include "depthwise_halves.h"

#include "chain_quad.h"
#include "uses.h"

#define PLACE 4        /* words of a position in the plane */
#define ROUNDING 0x8000u /* of outputs in the high half */

/* A block in the scratch, before its plane. */
typedef struct {
  mcg_halves_weights_t weights;
  mcg_halves_walk_t walk[2]; /* over even and odd rows of outputs */
  int32_t out[2], at[2];     /* of the first of them: elements before it, and words of the plane */
  mcg_halves_plane_t from;   /* what is filled: other rows lie outside of h */
  int32_t h, tap;            /* elements before its first position and the first tap */
  uint32_t plane[];
} halves_t;

/* Places the walk over even or odd rows of the block b, of which the first is row `first`. */
static void place_walk(const mcg_conv2d_t *p, const mcg_stage_t *stage, const mcg_block_t *b, int32_t odd, int32_t first,
                       halves_t *s) {
  const int32_t next = s->from.step, line = p->in_w * p->in_c, back = next < 0 ? 3 * line : line;
  const int32_t pitch = PLACE * p->out_w, at = odd ? 0 : pitch * first, bits = stage->p->mask_bits;
  const intptr_t mask = (intptr_t)stage->mask, delta = mask - (intptr_t)stage->out;
  const mcg_halves_walk_t w = {bits ? mask : delta,
                               bits ? next >> 3 : delta + next,
                               next,
                               0,
                               0,
                               s->plane + at + pitch,
                               0x81818181u,
                               0x02020202u,
                               4 * pitch,
                               back,
                               back >> 3,
                               (b->rows - first + 1) >> 1};
  s->walk[odd] = w, s->at[odd] = at, s->out[odd] = (b->row + first) * line + (next < 0 ? line + next : 0);
}

/* Places the block, whose plane begins at row `top` of h and has `rows` rows. */
static void place(const mcg_conv2d_t *p, const mcg_stage_t *stage, const mcg_block_t *b, int32_t top, int32_t rows, halves_t *s) {
  const int32_t first = mcg_max(top, 0), last = mcg_min(top + rows, p->out_h), c = p->in_c, line = p->out_w * c;
  const int32_t right = p->pad_left == 0, half = (b->row + p->pad_top - 1) & 1;
  const mcg_halves_plane_t from = {right ? -c : c, s->plane + (first - top) * PLACE * p->out_w, p->out_w, last - first,
                                   right ? 2 * line : 0};
  s->from = from, s->h = first * line + (right ? line - c : 0), s->tap = right ? 2 * c : 0;
  s->weights.even[6] = s->weights.odd[4] = ROUNDING, s->weights.odd[13] = (uint32_t)(uintptr_t)s->weights.odd;
  mcg_clear((int16_t *)(void *)s->plane, 2 * PLACE * rows * p->out_w);
  MCG_ROLLED for (int32_t odd = 0; odd < 2; ++odd) place_walk(p, stage, b, odd, odd ^ half, s);
}

/* The outputs of four channels of a block, from channel c on, whose plane and weights are there. */
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

/* Four channels of a block from c on; 0, having stored nothing, where they must go another way. */
static int32_t quad(const mcg_conv2d_t *p, const int8_t *h, const int8_t *weight, const mcg_chain_t *chain, int32_t c, halves_t *s) {
  mcg_lane_t lane[MCG_LANES];
  if (!MCG_ASM || !mcg_chain_lanes(chain, c, 1, lane)) return 0;
  const uint32_t most = mcg_halves_widen(&s->from, h + s->h + c);
  if (!mcg_halves_weigh(weight + s->tap + c, s->from.step, lane, most, &s->weights, 3 * p->in_c)) return 0;
  walk_quad(s, chain->stages, c);
  return 1;
}

int32_t mcg_depthwise_halves(const mcg_conv2d_t *p, const int8_t *h, const int8_t *weight, const mcg_chain_t *chain,
                             void *scratch, int32_t bytes, mcg_block_t *b) {
  const int32_t most = (bytes - (int32_t)sizeof(halves_t)) / (4 * PLACE * p->out_w);
  halves_t *const s = (halves_t *)scratch;
  if (most < 2) return b->first < p->in_c; /* all of it */
  for (b->n = MCG_LANES; b->row < p->in_h; b->row += b->rows, b->first = 0) {
    const int32_t row = b->row + p->pad_top - 1, half = row & 1;
    b->rows = mcg_min(2 * (most - 1) - half, p->in_h - b->row);
    place(p, chain->stages, b, row >> 1, ((half + b->rows + 1) >> 1) + 1, s);
    for (; b->first < p->in_c; b->first += MCG_LANES) {
      if (!quad(p, h, weight, chain, b->first, s)) return 1;
    }
  }
  return 0;
}
