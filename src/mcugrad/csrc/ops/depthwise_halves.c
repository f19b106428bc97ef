/* Input gradients of 3x3 depthwise convolutions of stride 2: see depthwise_halves.h. */
#include "depthwise_halves.h"

#include "chain_quad.h"
#include "uses.h"

#define PLACE 4 /* words of a position in the plane */

/* How a map is walked: bytes to where it begins, from one position to the next and from one row to the next. */
typedef struct {
  int32_t at, step, line;
} way_t;

/* Where a block begins with an upper row, to the right and down.  Without padding on the left it is walked to the left; an even
 * number of rows that begin with a lower one, up. */
typedef struct {
  int left, up;
} turn_t;

/* A block in the scratch, before its plane. */
typedef struct {
  mcg_halves_weights_t weights;
  mcg_halves_walk_t first, both, last; /* a lower row alone, pairs of rows, an upper row alone */
  mcg_halves_plane_t from;
  int32_t rows; /* of h that it depends on */
  turn_t turn;
  uint32_t plane[];
} halves_t;

static way_t way(turn_t turn, int32_t height, int32_t width, int32_t channels) {
  const int32_t line = width * channels, at = (turn.left ? line - channels : 0) + (turn.up ? (height - 1) * line : 0);
  const way_t w = {at, turn.left ? -channels : channels, turn.up ? -line : line};
  return w;
}

/* Places a walk over `pairs` pairs of output rows, the first of which has its upper one at row `row`, as they are walked; plane:
 * its row there. */
static MCG_APART void place_walk(const mcg_conv2d_t *p, const mcg_stage_t *s, turn_t turn, int32_t row, int32_t pairs,
                                 halves_t *to, const uint32_t *plane, mcg_halves_walk_t *w) {
  const way_t y = way(turn, p->in_h, p->in_w, p->in_c);
  const int32_t at = y.at + row * y.line, bits = s->p->mask_bits;
  w->next = y.step, w->zero = 0;
  w->upper = s->out + at, w->lower = s->out + at + y.line;
  if (bits) {
    w->mask = (intptr_t)s->mask + (at >> 3), w->lower_mask = w->mask + (y.line >> 3), w->low = (uint32_t)(y.step >> 3);
  } else {
    w->mask = (intptr_t)s->mask - (intptr_t)s->out, w->lower_mask = w->mask + y.step;
    w->low = 0x81818181u, w->high = 0x02020202u;
  }
  w->pitch = 4 * PLACE * (p->out_w + 1), w->end = plane + PLACE * p->out_w;
  w->weights = to->weights.of[0], w->rounding = 0x8000u;
  w->other_weights = to->weights.of[2], w->other_rounding = 0xA0080u;
  w->back = 2 * y.line - p->in_w * y.step, w->mask_back = w->back >> 3;
  w->rows = pairs;
}

/* Places what is filled of the plane, n rows from row `top` of h on, and zeros in the rest of it: behind each row, and rows below
 * h.  open: nobody asks for the second halves of the last row. */
static MCG_APART void place_plane(const mcg_conv2d_t *p, const int8_t *h, turn_t turn, int32_t top, int32_t n, int32_t open,
                                  halves_t *s) {
  const way_t x = way(turn, p->out_h, p->out_w, p->in_c);
  const int32_t above = top < 0, first = top + above, rows = mcg_min(n - above, p->out_h - first);
  const int32_t last = open || first + rows == p->out_h, twos = rows > 0 ? (rows - 1) >> 1 : 0;
  const int32_t below = last && rows > 2 * twos + 1;
  const mcg_halves_plane_t from = {h + x.at + first * x.line, x.step, x.line, p->out_w, x.line - p->out_w * x.step, s->plane,
                                   above, twos, below, rows - 2 * (twos + below), (uint32_t)last - 1u};
  uint32_t *row = s->plane;
  s->from = from;
  s->rows = rows + 1 - last;
  for (int32_t i = 0; i < n; ++i, row += PLACE * (p->out_w + 1)) {
    const int32_t filled = i < above + rows ? p->out_w : 0;
    mcg_clear((int16_t *)(void *)(row + PLACE * filled), 2 * PLACE * (p->out_w + 1 - filled));
  }
}

/* Places the rows of block b. */
static MCG_APART void place(const mcg_conv2d_t *p, const int8_t *h, const mcg_stage_t *stage, const mcg_block_t *b, halves_t *s) {
  const int32_t lower = (b->row + p->pad_top - 1) & 1, single = b->rows & 1, pairs = b->rows >> 1;
  const turn_t turn = {p->pad_left == 0, lower && !single};
  const int32_t row = turn.up ? p->in_h - b->row - b->rows : b->row;
  const int32_t top = turn.up ? p->out_h - 1 - ((b->row + b->rows + p->pad_top - 2) >> 1) : (b->row + p->pad_top - 1) >> 1;
  const int32_t first = lower && single, last = single - first, pitch = PLACE * (p->out_w + 1);
  s->turn = turn;
  place_plane(p, h, turn, top, pairs + single, last, s);
  place_walk(p, stage, turn, row - 1, first, s, s->plane, &s->first);
  place_walk(p, stage, turn, row + first, pairs, s, s->plane + first * pitch, &s->both);
  place_walk(p, stage, turn, row + 2 * pairs, last, s, s->plane + pairs * pitch, &s->last);
}

/* Weighs four channels of a block from c on, whose |h| are at most `most`; 0 where they must go another way. */
static int32_t weigh(const mcg_conv2d_t *p, const int8_t *weight, const mcg_lane_t lane[MCG_LANES], int32_t c, uint32_t most,
                     halves_t *s) {
  const way_t w = way(s->turn, 3, 3, p->in_c);
  return mcg_halves_weigh(weight + w.at + c, w.step, lane, most, &s->weights, w.line);
}

/* Four channels of a block from c on; 0, having stored nothing, where they must go another way. */
static MCG_APART int32_t quad(const mcg_conv2d_t *p, const int8_t *weight, const mcg_chain_t *chain, int32_t c, halves_t *s) {
  mcg_lane_t lane[MCG_LANES];
  if (!MCG_ASM || !mcg_chain_lanes(chain, c, 1, lane)) return 0;
  const uint32_t most = mcg_halves_widen(&s->from, c);
  if (!weigh(p, weight, lane, c, most, s) && !weigh(p, weight, lane, c, mcg_halves_most(&s->from, c, s->rows), s)) return 0;
  if (MCG_USES_BYTE_MASKS && !chain->stages->p->mask_bits) {
    if (MCG_USES_SINGLE_ROWS && s->first.rows > 0) mcg_halves_lower_bytes(&s->first, c);
    mcg_halves_both_bytes(&s->both, c);
    if (MCG_USES_SINGLE_ROWS && s->last.rows > 0) mcg_halves_upper_bytes(&s->last, c);
  } else {
    if (MCG_USES_SINGLE_ROWS && s->first.rows > 0) mcg_halves_lower_bits(&s->first, c);
    mcg_halves_both_bits(&s->both, c);
    if (MCG_USES_SINGLE_ROWS && s->last.rows > 0) mcg_halves_upper_bits(&s->last, c);
  }
  return 1;
}

int32_t mcg_depthwise_halves(const mcg_conv2d_t *p, const int8_t *h, const int8_t *weight, const mcg_chain_t *chain,
                             void *scratch, int32_t bytes, mcg_block_t *b) {
  const int32_t most = (bytes - (int32_t)sizeof(halves_t)) / (4 * PLACE * (p->out_w + 1));
  halves_t *const s = (halves_t *)scratch;
  if (most < 2) return b->first < p->in_c; /* all of it */
  for (b->n = MCG_LANES; b->row < p->in_h; b->row += b->rows, b->first = 0) {
    b->rows = mcg_min(2 * most, p->in_h - b->row);
    place(p, h, chain->stages, b, s);
    for (; b->first < p->in_c; b->first += MCG_LANES) {
      if (!quad(p, weight, chain, b->first, s)) return 1;
    }
  }
  return 0;
}
