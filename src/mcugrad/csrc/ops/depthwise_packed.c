/* Depthwise convolution by dual MACs.
 *
 * Four channels at a time go through all rows of the range.  The input rows under the window are widened to int16 and
 * taken apart into one plane per channel, padding included, so that a pair of neighbouring columns meets a pair of
 * weights in one instruction; four neighbouring output pixels share the weights.
 */
#include "fixed.h"
#include "kernels.h"
#include "ops/depthwise_plane.h"
#include "ops/depthwise_row.h"
#include "ops/rows.h"
#include "uses.h"

#define SMALL 64 /* positions of a map that is kept as a whole; ops/depthwise.py sizes the scratch by it */

/* Four channels of a call.  The columns hold `ring` input rows. */
typedef struct {
  const mcg_conv2d_t *p;
  const mcg_rows_t *r;
  const int8_t *x;  /* at the channels, as y */
  int8_t *y;
  int16_t *columns; /* [4][ring][width]; what is padding stays zero */
  int16_t *weight;  /* [4][2 kh][steps][4]: the rows twice, so that they can start anywhere in the ring */
  int32_t width, steps, ring;
  int32_t square;              /* whether mcg_depthwise_row_3x3_* do it */
  int32_t row_step, pair_step; /* elements between rows and between pairs of columns: 2 and 6 for it, width and 2 */
  int32_t first, odd, pixels;  /* of a row: elements before its first pair, whether the pixel is at an odd place, how many */
} block_t;

/* Pairs of neighbouring columns, one for each channel, from the pixels' words (lanes a c, b d). */
MCG_INLINE void store_pairs(int16_t *to, int32_t plane, uint32_t even0, uint32_t odd0, uint32_t even1, uint32_t odd1) {
  mcg_store4_aligned(to, mcg_pkhbt(even0, even1));
  mcg_store4_aligned(to + plane, mcg_pkhbt(odd0, odd1));
  mcg_store4_aligned(to + 2 * plane, mcg_pkhtb(even1, even0));
  mcg_store4_aligned(to + 3 * plane, mcg_pkhtb(odd1, odd0));
}

/* mcg_depthwise_widen_taps in the simplest way. */
static void taps_in_c(int16_t *to, int32_t plane, const int8_t *row, int32_t kw, int32_t next) {
  for (int32_t k = 0; k < 2 * (kw / 2 + 1); ++k) {
    for (int32_t c = 0; c < MCG_LANES; ++c) {
      const int16_t v = k < kw ? row[k * next + c] : 0;
      int16_t *at = to + c * plane + 2 * k;
      if (k % 2 == 0) at[0] = v, at[2] = k > 0 ? row[(k - 1) * next + c] : 0, at[3] = v;
      else at[-1] = v;
    }
  }
}

void mcg_depthwise_widen_weights(int16_t *to, int32_t plane, const int8_t *row, int32_t kw, int32_t next) {
  if (MCG_ASM) mcg_depthwise_widen_taps(to, plane, row, kw, next);
  else taps_in_c(to, plane, row, kw, next);
}

/* All rows, and again where the ring turns. */
static void widen_all_weights(const block_t *b, const int8_t *weight) {
  const mcg_conv2d_t *p = b->p;
  const int32_t row = 4 * b->steps, half = p->kernel_h * row, pitch = p->kernel_w * p->in_c;
  for (int32_t ky = 0; ky < p->kernel_h; ++ky) {
    mcg_depthwise_widen_weights(b->weight + ky * row, 2 * half, weight + ky * pitch, p->kernel_w, p->in_c);
  }
  for (int32_t c = 0; c < MCG_LANES && b->r->last - b->r->first > 1; ++c) {
    int16_t *to = b->weight + 2 * half * c;
    MCG_ROLLED for (int32_t i = 0; i < half; i += 4, to += 4) {
      const uint32_t v = mcg_load4_aligned(to), w = mcg_load4_aligned(to + 2);
      mcg_store4_aligned(to + half, v), mcg_store4_aligned(to + half + 2, w);
    }
  }
}

/* to [n / 2] pairs, `step` elements apart, = 0 */
static MCG_APART void blank(int16_t *to, int32_t n, int32_t step) {
  MCG_ROLLED for (; n > 0; n -= 2, to += step) mcg_store4_aligned(to, 0u);
}

void mcg_depthwise_widen_pixels(const int8_t *at, int32_t pixel, int32_t zero, int32_t odd_place, int32_t n, int16_t *to,
                                int32_t plane, int32_t step) {
  if (MCG_ASM) {
    mcg_depthwise_widen_columns(at, pixel, zero, odd_place, n, to, plane, step);
    return;
  }
  const uint32_t minus = mcg_pair(-zero, -zero);
  if (odd_place) {
    const uint32_t v = mcg_load4(at);
    store_pairs(to, plane, 0u, 0u, mcg_sxtab16(minus, v), mcg_sxtab16_odd(minus, v));
    --n, to += step, at += pixel;
  }
  MCG_ROLLED for (; n > 1; n -= 2, to += step, at += 2 * pixel) {
    const uint32_t v0 = mcg_load4(at), v1 = mcg_load4(at + pixel);
    store_pairs(to, plane, mcg_sxtab16(minus, v0), mcg_sxtab16_odd(minus, v0), mcg_sxtab16(minus, v1),
                mcg_sxtab16_odd(minus, v1));
  }
  if (n > 0) {
    const uint32_t v = mcg_load4(at);
    store_pairs(to, plane, mcg_sxtab16(minus, v), mcg_sxtab16_odd(minus, v), 0u, 0u);
  }
}

/* Input row iy into slot `slot` of the ring. */
static void fetch(const block_t *b, int32_t iy, int32_t slot) {
  const mcg_conv2d_t *p = b->p;
  const int32_t plane = b->ring * b->width;
  int16_t *const to = b->columns + slot * b->row_step;
  if (iy >= 0 && iy < p->in_h) {
    const int8_t *row = mcg_row(b->x, iy, b->r->x_rows, p->in_w * p->in_c);
    mcg_depthwise_widen_pixels(row, p->in_c, p->x_zero, b->odd, b->pixels, to + b->first, plane, b->pair_step);
  } else {
    for (int c = 0; c < MCG_LANES; ++c) blank(to + c * plane, b->width, b->pair_step);
  }
}

/* acc [4] += columns under four neighbouring windows . weight, stride 1, `steps` steps a row. */
MCG_INLINE void quad_1(const mcg_depthwise_row_t *s, const int16_t *x, const int16_t *w, int32_t steps,
                       int32_t acc[MCG_QUAD]) {
  for (int32_t i = 0; i < s->rows; ++i, x += s->pitch) {
    uint32_t v0 = mcg_load4_aligned(x);
    for (int32_t j = 0; j < steps; ++j, w += 4) {
      const uint32_t v1 = mcg_load4_aligned(x + 2 * j + 2), even = mcg_load4_aligned(w), odd = mcg_load4_aligned(w + 2);
      acc[0] = mcg_smlad(v0, even, acc[0]);
      acc[1] = mcg_smlad(v0, odd, acc[1]);
      acc[2] = mcg_smlad(v1, even, acc[2]);
      acc[3] = mcg_smlad(v1, odd, acc[3]);
      v0 = v1;
    }
  }
}

/* The same for stride 2, where every window starts at an even column. */
MCG_INLINE void quad_2(const mcg_depthwise_row_t *s, const int16_t *x, const int16_t *w, int32_t steps,
                       int32_t acc[MCG_QUAD]) {
  for (int32_t i = 0; i < s->rows; ++i, x += s->pitch) {
    uint32_t v0 = mcg_load4_aligned(x), v1 = mcg_load4_aligned(x + 2), v2 = mcg_load4_aligned(x + 4);
    for (int32_t j = 0; j < steps; ++j, w += 4) {
      const uint32_t v3 = mcg_load4_aligned(x + 2 * j + 6), even = mcg_load4_aligned(w);
      acc[0] = mcg_smlad(v0, even, acc[0]);
      acc[1] = mcg_smlad(v1, even, acc[1]);
      acc[2] = mcg_smlad(v2, even, acc[2]);
      acc[3] = mcg_smlad(v3, even, acc[3]);
      v0 = v1, v1 = v2, v2 = v3;
    }
  }
}

MCG_INLINE void row_of(const mcg_depthwise_row_t *s, int32_t stride, int32_t steps) {
  for (int c = 0; c < MCG_LANES; ++c) {
    const int16_t *x = s->columns + c * s->plane, *w = s->weight + c * s->weight_plane;
    const mcg_lane_t lane = s->lane[c];
    int8_t *y = s->y + c;
    for (int32_t i = 0; i < s->quads; ++i, x += MCG_QUAD * stride) {
      int32_t acc[MCG_QUAD] = {lane.bias, lane.bias, lane.bias, lane.bias};
      if (stride == 1) quad_1(s, x, w, steps, acc);
      else quad_2(s, x, w, steps, acc);
      for (int j = 0; j < MCG_QUAD; ++j, y += s->pixel) {
        *y = mcg_clamp8(((mcg_mulhi(acc[j], lane.multiplier) >> lane.shift) + lane.offset) >> 1);
      }
    }
  }
}

static void row_in_c(const mcg_depthwise_row_t *s, int32_t stride, int32_t steps) {
  if (stride == 1) row_of(s, 1, steps);
  else row_of(s, 2, steps);
}

void mcg_depthwise_line(const mcg_depthwise_row_t *s, int32_t stride, int32_t steps) {
  if (!MCG_ASM) row_in_c(s, stride, steps);
  else if (MCG_USES_ROWS_12 && stride == 1 && steps == 2) mcg_depthwise_row_12(s);
  else if (MCG_USES_ROWS_13 && stride == 1 && steps == 3) mcg_depthwise_row_13(s);
  else if (MCG_USES_ROWS_14 && stride == 1 && steps == 4) mcg_depthwise_row_14(s);
  else if (MCG_USES_ROWS_22 && stride == 2 && steps == 2) mcg_depthwise_row_22(s);
  else if (MCG_USES_ROWS_23 && stride == 2 && steps == 3) mcg_depthwise_row_23(s);
  else if (MCG_USES_ROWS_24) mcg_depthwise_row_24(s);
}

static void row(const block_t *b, const mcg_depthwise_row_t *s) {
  if (MCG_ASM && b->square && b->p->stride_w == 1) mcg_depthwise_row_3x3_1(s);
  else if (MCG_ASM && b->square) mcg_depthwise_row_3x3_2(s);
  else mcg_depthwise_line(s, b->p->stride_w, b->steps);
}

/* Output row oy from rows and weights that s names already. */
static void output_row(const block_t *b, mcg_depthwise_row_t *s, int32_t oy) {
  const mcg_conv2d_t *p = b->p;
  const int32_t whole = p->out_w / MCG_QUAD, rest = p->out_w - whole * MCG_QUAD;
  s->quads = whole, s->pixel = p->out_c;
  s->y = mcg_row_out(b->y, oy, b->r->y_rows, p->out_w * p->out_c);
  if (whole > 0) row(b, s);
  if (rest > 0) {
    int8_t last[MCG_QUAD * MCG_LANES], *to = s->y + whole * MCG_QUAD * p->out_c;
    s->columns += whole * (MCG_QUAD / 2 * p->stride_w) * b->pair_step, s->quads = 1, s->y = last, s->pixel = MCG_LANES;
    row(b, s);
    for (int32_t i = 0; i < rest; ++i, to += p->out_c) mcg_store4(to, mcg_load4(last + MCG_LANES * i));
  }
}

/* All rows of the range through the ring: row `top + i` lies in slot (slot + i) % kernel_h, rows outside are zeros. */
static void through_ring(const block_t *b, mcg_depthwise_row_t *s) {
  const mcg_conv2d_t *p = b->p;
  int32_t top = b->r->first * p->stride_h - p->pad_top, slot = 0, next = top, next_slot = 0;
  for (int32_t oy = b->r->first; oy < b->r->last; ++oy) {
    for (; next < top + p->kernel_h; ++next) {
      if (next >= top) fetch(b, next, next_slot);
      next_slot = next_slot + 1 < p->kernel_h ? next_slot + 1 : 0;
    }
    s->columns = b->columns;
    s->weight = b->weight + (slot > 0 ? p->kernel_h - slot : 0) * 4 * b->steps;
    output_row(b, s, oy);
    top += p->stride_h;
    slot = mcg_ring_slot(slot + p->stride_h, p->kernel_h);
  }
}

void mcg_depthwise_lanes(const mcg_conv2d_t *p, const int32_t *bias, int32_t c, int scaled, mcg_lane_t lane[MCG_LANES]) {
  MCG_ROLLED for (int i = 0; i < MCG_LANES; ++i) {
    lane[i].multiplier = p->multiplier[c + i];
    lane[i].shift = p->shift[c + i] - 33;
    lane[i].offset = 2 * p->y_zero + 1;
    if (scaled) lane[i].offset *= 1 << lane[i].shift, ++lane[i].shift;
    lane[i].bias = bias[c + i];
  }
}

/* Small maps: all input rows of a block are kept. */
static MCG_APART void in_planes(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight,
                      const int32_t *bias, int8_t *y, mcg_plane_t *g) {
  const int32_t row = p->out_w * p->out_c;
  mcg_depthwise_row_t s;
  for (g->first = r->first; g->first < r->last; g->first += g->rows) {
    const int32_t slot = mcg_ring_slot(g->first, r->y_rows);
    g->rows = r->last - g->first < r->y_rows - slot ? r->last - g->first : r->y_rows - slot;
    mcg_plane_begin(g);
    for (int32_t next = 0; next < p->in_c; next += MCG_LANES) {
      const int32_t c = next + MCG_LANES > p->in_c ? p->in_c - MCG_LANES : next; /* the last may overlap the one before */
      mcg_depthwise_lanes(p, bias, c, g->kind != MCG_BY_ROWS, s.lane);
      mcg_plane_block(g, x + c, weight + c, &s, y + slot * row + c);
    }
  }
}

/* Large ones, a ring of rows at a time. */
static MCG_APART void in_rings(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight,
                     const int32_t *bias, int8_t *y, int square, int16_t *columns) {
  const int32_t steps = p->kernel_w / 2 + 1, ring = p->kernel_h;
  const int32_t width = (p->out_w + MCG_QUAD - 1) / MCG_QUAD * MCG_QUAD * p->stride_w + 2 * steps - 2;
  int16_t *const widened = columns + MCG_LANES * ring * width;
  const int32_t odd = p->pad_left & 1, pixels = mcg_between(width - p->pad_left, 0, p->in_w);
  const int32_t pair = square ? 2 * ring : 2;
  if (p->pad_left > 1 || odd + pixels < width - 1) mcg_clear(columns, MCG_LANES * ring * width); /* not all are written */
  for (int32_t next = 0; next < p->in_c; next += MCG_LANES) {
    const int32_t c = next + MCG_LANES > p->in_c ? p->in_c - MCG_LANES : next; /* the last may overlap the one before */
    const block_t b = {p, r, x + c, y + c, columns, widened, width, steps, ring, square,
                       square ? 2 : width, pair, ((p->pad_left - odd) >> 1) * pair, odd, pixels};
    mcg_depthwise_row_t s;
    s.rows = ring, s.pitch = width, s.plane = ring * width, s.weight_plane = 8 * p->kernel_h * steps;
    mcg_depthwise_lanes(p, bias, c, square, s.lane);
    widen_all_weights(&b, weight + c);
    through_ring(&b, &s);
  }
}

int32_t mcg_depthwise_packed(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight,
                             const int32_t *bias, int8_t *y, void *scratch) {
  const int small = p->in_h <= p->kernel_h || p->in_h * p->in_w <= SMALL;
  const int within = p->pad_top < p->kernel_h && (p->out_h - 1) * p->stride_h - p->pad_top < p->in_h; /* every window */
  uint8_t scaled = 1; /* whether the shifts suit mcg_depthwise_row_3x3_* */
  mcg_plane_t g = {p->kernel_h, p->kernel_w, p->stride_h, p->stride_w, p->pad_top, p->pad_left, p->in_h, p->in_w, p->out_w,
                   p->in_c, r->x_rows, p->x_zero, 0, 0, 0, p->out_c, p->out_w * p->out_c, 0, 0, (int16_t *)scratch, 0, 0, 0,
                   MCG_BY_ROWS};
  if (p->in_c < MCG_LANES || !mcg_plane_fits(&g) || (small && !within)) return 0;
  MCG_ROLLED for (int32_t c = 0; c < p->in_c; ++c) {
    if (p->shift[c] < 33) return 0;
    if (p->shift[c] > 54) scaled = 0;
  }
  g.scaled = scaled;
  if (small) in_planes(p, r, x, weight, bias, y, &g);
  else in_rings(p, r, x, weight, bias, y, MCG_ASM && scaled && p->kernel_h == 3 && p->kernel_w == 3, g.planes);
  return 1;
}
