/* Depthwise sums from whole planes: see depthwise_plane.h. */
#include "depthwise_plane.h"

#include "fixed.h"
#include "ops/rows.h"
#include "uses.h"

#define SQUARE_ROW 6 /* elements of a row under a quad of 3x3 windows */
#define FOUR 4       /* height and width of a small map */

static int32_t round4(int32_t n) { return (n + 3) & ~3; }

int32_t mcg_plane_fits(const mcg_plane_t *g) {
  const int32_t steps = g->kernel_w / 2 + 1;
  return g->stride_w <= 2 && g->pad_top >= 0 && g->pad_left >= 0 && (!MCG_ASM || (steps >= 2 && steps <= 4));
}

static mcg_plane_kind_t kind_of(const mcg_plane_t *g) {
  const int32_t kernel = g->kernel_w;
  const int around = g->kernel_h == kernel && g->stride_h == 1 && g->stride_w == 1 && g->pad_left == kernel / 2;
  const int four = MCG_ASM && g->in_h == FOUR && g->in_w == FOUR && g->rows == FOUR && g->in_rows >= FOUR;
  if (!g->scaled || !around || g->in_w != g->out_w) return MCG_BY_ROWS;
  if (four && g->pad_top == kernel / 2 && (kernel == 3 || kernel == 5)) return MCG_FOUR;
  return kernel == 3 && g->out_w % MCG_QUAD == 0 ? MCG_SQUARE : MCG_BY_ROWS;
}

static int32_t steps_of(const mcg_plane_t *g) { return g->kernel_w / 2 + 1; }

/* Columns under all windows of a row. */
static int32_t width_of(const mcg_plane_t *g) { return round4(g->out_w) * g->stride_w + 2 * steps_of(g) - 2; }

/* Input row of tap 0 of output row `row`. */
static int32_t top_of(const mcg_plane_t *g, int32_t row) { return row * g->stride_h - g->pad_top; }

void mcg_plane_begin(mcg_plane_t *g) {
  const int32_t first = top_of(g, g->first), last = top_of(g, g->first + g->rows - 1) + g->kernel_h;
  g->top = first < 0 ? 0 : first;
  g->bottom = last > g->in_h ? g->in_h : last;
  g->kind = kind_of(g);
  g->plane = g->kind == MCG_FOUR     ? FOUR * FOUR
             : g->kind == MCG_SQUARE ? g->out_w / MCG_QUAD * (g->rows + 2) * SQUARE_ROW
                                     : (g->bottom - g->top) * width_of(g);
  if (g->kind != MCG_FOUR) mcg_clear(g->planes, MCG_LANES * g->plane);
}

/* to [3] of each channel, `plane` elements apart: the pairs w0 w1 of the three rows or, from another tap on, w1 w2. */
static void square_weights(const int8_t *w, int32_t row, int32_t next, int16_t *to, int32_t plane) {
  MCG_ROLLED for (int32_t ky = 0; ky < 3; ++ky, w += row, to += 2) {
    const uint32_t v0 = mcg_load4(w), v1 = mcg_load4(w + next), v2 = mcg_load4(w + 2 * next);
    const uint32_t e0 = mcg_sxtb16(v0), e1 = mcg_sxtb16(v1), e2 = mcg_sxtb16(v2);
    const uint32_t o0 = mcg_sxtb16_odd(v0), o1 = mcg_sxtb16_odd(v1), o2 = mcg_sxtb16_odd(v2);
    mcg_store4_aligned(to, mcg_pkhbt(e0, e1)), mcg_store4_aligned(to + 6, mcg_pkhbt(e1, e2));
    mcg_store4_aligned(to + plane, mcg_pkhbt(o0, o1)), mcg_store4_aligned(to + plane + 6, mcg_pkhbt(o1, o2));
    mcg_store4_aligned(to + 2 * plane, mcg_pkhtb(e1, e0)), mcg_store4_aligned(to + 2 * plane + 6, mcg_pkhtb(e2, e1));
    mcg_store4_aligned(to + 3 * plane, mcg_pkhtb(o1, o0)), mcg_store4_aligned(to + 3 * plane + 6, mcg_pkhtb(o2, o1));
  }
}

/* mcg_depthwise_square_rows in the simplest way. */
static void rows_in_c(const mcg_square_rows_t *t) {
  const int32_t width = t->quads * MCG_QUAD, plane = t->plane / 2, next = t->next / 2;
  for (int32_t i = 0; i < t->rows * width; ++i) {
    const int32_t column = i % width + 1, strip = column / MCG_QUAD, at = column % MCG_QUAD;
    const int8_t *x = t->x + i * t->pixel;
    int16_t *to = t->to + i / width * SQUARE_ROW;
    for (int32_t c = 0; c < MCG_LANES; ++c, to += plane) {
      const int16_t v = (int16_t)(x[c] + (int16_t)t->minus);
      if (strip < t->quads) to[strip * next + at] = v;
      if (strip > 0 && at < SQUARE_ROW - MCG_QUAD) to[(strip - 1) * next + MCG_QUAD + at] = v;
    }
  }
}

/* The columns under the block: the rows of x that a ring holds in one piece at a time. */
static void square_columns(const mcg_plane_t *g, const int8_t *x, int32_t strip) {
  int16_t *const to = g->planes + (g->top - top_of(g, g->first)) * SQUARE_ROW;
  mcg_square_rows_t t = {x, g->channels, mcg_pair(-g->zero, -g->zero), g->out_w / MCG_QUAD, to, 2 * g->plane, 2 * strip, 0};
  for (int32_t row = g->top; row < g->bottom; row += t.rows, t.to += t.rows * SQUARE_ROW) {
    const int32_t slot = mcg_ring_slot(row, g->in_rows), kept = g->in_rows - slot, left = g->bottom - row;
    t.x = x + slot * g->in_w * g->channels, t.rows = left < kept ? left : kept;
    if (MCG_ASM) mcg_depthwise_square_rows(&t);
    else rows_in_c(&t);
  }
}

/* mcg_depthwise_square in the simplest way. */
static void square_in_c(const mcg_depthwise_row_t *s) {
  const int32_t strip = (s->rows + 2) * SQUARE_ROW;
  for (int32_t i = 0; i < MCG_LANES * s->rows * s->quads * MCG_QUAD; ++i) {
    const int32_t c = i & 3, ox = (i >> 2) % (s->quads * MCG_QUAD), oy = (i >> 2) / (s->quads * MCG_QUAD);
    const int16_t *x = s->columns + (c * s->quads + ox / MCG_QUAD) * strip + oy * SQUARE_ROW + ox % MCG_QUAD;
    const int16_t *w = s->weight + c * 12;
    const mcg_lane_t *l = &s->lane[c];
    int8_t *y = s->y + oy * s->pitch + ox * s->pixel;
    int32_t acc = l->bias;
    for (int32_t ky = 0; ky < 3; ++ky, x += SQUARE_ROW, w += 2) acc += x[0] * w[0] + x[1] * w[1] + x[2] * w[7];
    y[c] = mcg_clamp8((mcg_mulhi(acc, l->multiplier) + l->offset) >> l->shift);
  }
}

/* The weights of mcg_depthwise_square behind the planes. */
static void widen_square(const mcg_plane_t *g, const int8_t *weight, int16_t *to) {
  const int32_t row = g->channels * g->kernel_w;
  square_weights(weight + (g->turned ? 3 * row - g->channels : 0), g->turned ? -row : row,
                 g->turned ? -g->channels : g->channels, to, 12);
}

/* Those of mcg_depthwise_line, `plane` elements a channel. */
static void widen_rows(const mcg_plane_t *g, const int8_t *weight, int16_t *to, int32_t plane) {
  const int32_t row = g->channels * g->kernel_w, next = g->turned ? -g->channels : g->channels;
  const int8_t *from = weight + (g->turned ? g->kernel_h * row - g->channels : 0);
  MCG_ROLLED for (int32_t ky = g->kernel_h; ky > 0; --ky, from += g->turned ? -row : row, to += 4 * steps_of(g)) {
    mcg_depthwise_widen_weights(to, plane, from, g->kernel_w, next);
  }
}

/* The columns of all but MCG_BY_ROWS. */
static void fill_columns(const mcg_plane_t *g, const int8_t *x) {
  if (g->kind == MCG_FOUR) mcg_depthwise_widen_pixels(x, g->channels, g->zero, 0, FOUR * FOUR, g->planes, g->plane, 2);
  else square_columns(g, x, (g->rows + 2) * SQUARE_ROW);
}

/* Their windows, of which `rows` rows, the last ones, have weights. */
static void sum_windows(const mcg_plane_t *g, mcg_depthwise_row_t *s, int32_t rows) {
  s->pitch = g->line;
  if (MCG_ASM && g->kind == MCG_FOUR) {
    if (g->kernel_w == 3) mcg_depthwise_four_3(s);
    else mcg_depthwise_four_5(s);
    return;
  }
  s->quads = g->out_w / MCG_QUAD, s->rows = g->rows;
  if (!MCG_ASM) square_in_c(s);
  else if (rows == 2) mcg_depthwise_square_2(s);
  else mcg_depthwise_square(s);
}

/* What a row has left after its whole quads, of which s names columns and weights. */
static MCG_APART void last_pixels(const mcg_plane_t *g, mcg_depthwise_row_t *s, int32_t whole, int8_t *y) {
  int8_t last[MCG_QUAD * MCG_LANES];
  s->columns += whole * MCG_QUAD * g->stride_w, s->quads = 1, s->y = last, s->pixel = MCG_LANES;
  mcg_depthwise_line(s, g->stride_w, steps_of(g));
  y += whole * MCG_QUAD * g->pixel;
  for (int32_t i = 0; i < g->out_w - whole * MCG_QUAD; ++i, y += g->pixel) mcg_store4(y, mcg_load4(last + MCG_LANES * i));
}

static MCG_APART void rows_block(const mcg_plane_t *g, const int8_t *x, mcg_depthwise_row_t *s) {
  const int32_t steps = steps_of(g), stride = g->stride_w, quads = g->out_w / MCG_QUAD, more = quads * MCG_QUAD < g->out_w;
  const int32_t plane = g->plane, width = width_of(g), step = 4 * steps, line = g->line;
  const int32_t odd = g->pad_left & 1, most = width - g->pad_left, pixels = most < g->in_w ? most : g->in_w;
  const int16_t *const widened = s->weight;
  int16_t *to = g->planes + g->pad_left - odd;
  int8_t *y = s->y;
  s->pitch = width, s->plane = plane;
  for (int32_t iy = g->top; iy < g->bottom && pixels > 0; ++iy, to += width) {
    mcg_depthwise_widen_pixels(mcg_row(x, iy, g->in_rows, g->in_w * g->channels), g->channels, g->zero, odd, pixels, to,
                               plane, 2);
  }
  for (int32_t oy = g->first; oy < g->first + g->rows; ++oy, y += line) {
    const int32_t top = top_of(g, oy);
    const mcg_taps_t v = mcg_taps(top, g->kernel_h, g->in_h);
    s->rows = v.last - v.first, s->columns = g->planes + (top + v.first - g->top) * width;
    s->weight = widened + v.first * step;
    s->y = y, s->quads = quads, s->pixel = g->pixel;
    if (quads > 0) mcg_depthwise_line(s, stride, steps);
    if (more) last_pixels(g, s, quads, y);
  }
}

void mcg_plane_block(const mcg_plane_t *g, const int8_t *x, const int8_t *weight, mcg_depthwise_row_t *s, int8_t *y) {
  int16_t *const widened = g->planes + MCG_LANES * g->plane;
  s->columns = g->planes, s->weight = widened, s->y = y, s->pixel = g->pixel;
  s->weight_plane = 4 * g->kernel_h * steps_of(g);
  if (g->kind == MCG_SQUARE || (g->kind == MCG_FOUR && g->kernel_w == 3)) widen_square(g, weight, widened);
  else widen_rows(g, weight, widened, s->weight_plane);
  if (g->kind == MCG_BY_ROWS) rows_block(g, x, s);
  else fill_columns(g, x), sum_windows(g, s, 3);
}

void mcg_plane_quarters(const mcg_plane_t *g, const int8_t *x, const int8_t *taps, mcg_depthwise_row_t *s, int8_t *y) {
  const int32_t row = 6 * MCG_LANES;
  int16_t *const widened = g->planes + MCG_LANES * g->plane;
  if (!MCG_USES_DEPTHWISE_QUARTERS) return;
  s->columns = g->planes, s->weight = widened, s->pixel = g->pixel;
  fill_columns(g, x);
  for (int32_t i = 0; i < 4; ++i) {
    const int32_t down = i >> 1, right = i & 1;
    square_weights(taps + (4 + down) * row + (4 + right) * MCG_LANES, -2 * row, -2 * MCG_LANES, widened, 12);
    s->y = y + down * (g->line >> 1) + right * (g->pixel >> 1);
    sum_windows(g, s, g->five ? 3 - down : 3);
  }
}
