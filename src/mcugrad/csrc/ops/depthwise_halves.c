/* Input gradients of 3x3 depthwise convolutions of stride 2: see depthwise_halves.h. */
#include "depthwise_halves.h"

#include "chain_quad.h"
#include "uses.h"

#define PLACE 4        /* words of a position in the plane */
#define ROUNDING 0x8000u /* of outputs in the high half */

/* A block in the scratch, before its plane. */
typedef struct {
  mcg_halves_weights_t weights;
  mcg_halves_walk_t even, odd; /* rows of outputs */
  mcg_halves_plane_t from;     /* what is filled: other rows lie outside of h */
  uint32_t plane[];
} halves_t;

/* Places a walk over every other row of the block b from row `row` on; plane: words before its first row there. */
static MCG_APART void place_walk(const mcg_conv2d_t *p, const mcg_stage_t *s, const mcg_block_t *b, int32_t row,
                                 const uint32_t *plane, mcg_halves_walk_t *w) {
  const int32_t line = p->in_w * p->in_c, left = p->pad_left == 0, bits = s->p->mask_bits, pitch = PLACE * p->out_w;
  const int32_t at = (b->row + row) * line + (left ? line - p->in_c : 0);
  w->next = left ? -p->in_c : p->in_c;
  w->out_back = left ? 3 * line : line;
  w->mask_back = w->out_back >> 3;
  w->mask = (intptr_t)s->mask + (bits ? at >> 3 : -(intptr_t)s->out);
  w->mask_next = bits ? w->next >> 3 : w->mask + w->next;
  w->out = s->out + at;
  w->zero = 0;
  w->low = 0x81818181u, w->high = 0x02020202u;
  w->pitch = 4 * pitch;
  w->end = plane + pitch;
  w->rows = (b->rows - row + 1) >> 1;
}

/* Places what is filled of a plane of `rows` rows from row `top` of h on; the rest is 0. */
static MCG_APART void place_plane(const mcg_conv2d_t *p, const int8_t *h, int32_t top, int32_t rows, halves_t *s) {
  const int32_t first = mcg_max(top, 0), line = p->out_w * p->in_c, left = p->pad_left == 0;
  s->from.h = h + first * line + (left ? line - p->in_c : 0);
  s->from.step = left ? -p->in_c : p->in_c;
  s->from.back = left ? 2 * line : 0;
  s->from.plane = s->plane + (first - top) * PLACE * p->out_w;
  s->from.width = p->out_w;
  s->from.rows = mcg_min(top + rows, p->out_h) - first;
  s->weights.even[6] = s->weights.odd[4] = ROUNDING, s->weights.odd[13] = (uint32_t)(uintptr_t)s->weights.odd;
  mcg_clear((int16_t *)(void *)s->plane, 2 * PLACE * rows * p->out_w);
}

/* Four channels of a block from c on; 0, having stored nothing, where they must go another way. */
static MCG_APART int32_t quad(const mcg_conv2d_t *p, const int8_t *weight, const mcg_chain_t *chain, int32_t c, halves_t *s) {
  mcg_lane_t lane[MCG_LANES];
  if (!MCG_ASM || !mcg_chain_lanes(chain, c, 1, lane)) return 0;
  const uint32_t most = mcg_halves_widen(&s->from, c);
  const int8_t *first = weight + (p->pad_left ? 0 : 2 * p->in_c) + c;
  if (!mcg_halves_weigh(first, s->from.step, lane, most, &s->weights, 3 * p->in_c)) return 0;
  if (MCG_USES_BYTE_MASKS && !chain->stages->p->mask_bits) {
    mcg_halves_even_bytes(&s->even, s->weights.even, c);
    mcg_halves_odd_bytes(&s->odd, s->weights.odd, c);
  } else {
    mcg_halves_even_bits(&s->even, s->weights.even, c);
    mcg_halves_odd_bits(&s->odd, s->weights.odd, c);
  }
  return 1;
}

int32_t mcg_depthwise_halves(const mcg_conv2d_t *p, const int8_t *h, const int8_t *weight, const mcg_chain_t *chain,
                             void *scratch, int32_t bytes, mcg_block_t *b) {
  const int32_t most = (bytes - (int32_t)sizeof(halves_t)) / (4 * PLACE * p->out_w);
  halves_t *const s = (halves_t *)scratch;
  if (most < 2) return b->first < p->in_c; /* all of it */
  for (b->n = MCG_LANES; b->row < p->in_h; b->row += b->rows, b->first = 0) {
    const int32_t row = b->row + p->pad_top - 1, odd = row & 1;
    b->rows = mcg_min(2 * (most - 1) - odd, p->in_h - b->row);
    place_plane(p, h, row >> 1, ((odd + b->rows + 1) >> 1) + 1, s);
    place_walk(p, chain->stages, b, odd, s->plane + (odd ? PLACE * p->out_w : 0), &s->even);
    place_walk(p, chain->stages, b, odd ^ 1, s->plane, &s->odd);
    for (; b->first < p->in_c; b->first += MCG_LANES) {
      if (!quad(p, weight, chain, b->first, s)) return 1;
    }
  }
  return 0;
}
