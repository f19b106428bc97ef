/* Input gradient of a depthwise convolution, a few channels of a few rows at a time: a[c] = sum over taps of w * h. */
#include "backward.h"
#include "chain_quad.h"
#include "depthwise_halves.h"
#include "depthwise_input_grad_mve.h"
#include "depthwise_plane.h"
#include "depthwise_span.h"
#include "depthwise_tile_mve.h"
#include "uses.h"
#include "wide.h"

#define CHANNELS 4    /* of a block */
#define POSITIONS 128 /* that a block aims at; ops/depthwise.py sizes the scratch by it */
#define MOST_STRIDE 2 /* by pairs */
#define SPREAD 6      /* rows and columns of taps for mcg_plane_quarters */
#define TAPS (CHANNELS * SPREAD * SPREAD)

/* acc [in_w][n] += the products of one tap in one row of the output; from and w at the first of n channels. */
static void add_tap(const mcg_conv2d_t *p, const int8_t *from, const int8_t *w, int32_t kx, int32_t n, int32_t *acc) {
  kx *= p->dilation_w;
  const mcg_span_t x = mcg_span(kx, p->stride_w, p->pad_left, p->in_w, p->out_w);
  const int32_t step = p->stride_w * n;
  acc += (x.first * p->stride_w + kx - p->pad_left) * n;
  from += x.first * p->in_c;
  MCG_COMPACT for (int32_t i = x.first; i < x.last; ++i, from += p->in_c, acc += step) {
    if (n == CHANNELS) {
      for (int32_t c = 0; c < CHANNELS; ++c) acc[c] += w[c] * from[c];
    } else {
      MCG_COMPACT for (int32_t c = 0; c < n; ++c) acc[c] += w[c] * from[c];
    }
  }
}

/* acc [rows][in_w][n] of the block's rows and channels. */
static MCG_APART void block_plain(const mcg_conv2d_t *p, const int8_t *h, const int8_t *weight, const mcg_block_t *b) {
  for (int32_t r = 0; r < b->rows; ++r) {
    int32_t *acc = b->acc + r * p->in_w * b->n;
    mcg_zero(acc, p->in_w * b->n);
    for (int32_t ky = 0; ky < p->kernel_h; ++ky) {
      const int32_t oy = mcg_reader(b->row + r, ky * p->dilation_h, p->stride_h, p->pad_top, p->out_h);
      for (int32_t kx = 0; oy >= 0 && kx < p->kernel_w; ++kx) {
        const int8_t *w = weight + (ky * p->kernel_w + kx) * p->in_c + b->first;
        add_tap(p, h + oy * p->out_w * p->in_c + b->first, w, kx, b->n, acc);
      }
    }
  }
}

/* Taps of one axis that can meet the same input position: `tap`, tap + stride, ...; `count` of them. */
typedef struct {
  int16_t count;
  int16_t position; /* of the input: the first that they meet, every stride-th after it, `positions` in all */
  int16_t positions;
  int16_t output; /* that tap `tap` reads there */
} phase_t;

/* What blocks by pairs share, and their scratch, four channels wide as the pairs (0, 2), (1, 3). */
typedef struct {
  phase_t x[MOST_STRIDE], y[MOST_STRIDE];
  int32_t top, left, rows, columns; /* of h in the plane */
  uint32_t *wide;                   /* the taps; see widen_weight */
  uint32_t *plane;                  /* [rows][columns][2]: h from (top, left) on, 0 outside the output */
  int32_t spans;
  mcg_depthwise_span_t span[MOST_STRIDE * MOST_STRIDE]; /* of a block */
} stage_t;

static MCG_APART phase_t phase(int32_t tap, int32_t kernel, int32_t stride, int32_t pad, int32_t size) {
  const int32_t output = (pad + stride - 1 - tap) / stride, position = output * stride + tap - pad;
  const phase_t f = {(int16_t)(tap < kernel ? (kernel - 1 - tap) / stride + 1 : 0), (int16_t)position,
                     (int16_t)(position < size ? (size - 1 - position) / stride + 1 : 0), (int16_t)output};
  return f;
}

/* to [n][2] from four channels of n positions, `step` apart; n > 0. */
static inline uint32_t *widen(const int8_t *from, int32_t step, int32_t n, uint32_t *to) {
  if (MCG_ASM) return mcg_depthwise_span_widen(from, step, n, to);
  for (; n > 0; --n, from += step, to += 2) {
    const uint32_t v = mcg_load4(from);
    to[0] = mcg_sxtb16(v);
    to[1] = mcg_sxtb16_odd(v);
  }
  return to;
}

/* wide [first ky][first kx][ky][kx][2]: the taps that can meet one input position, those a stride apart, lie together,
 * last tap first, which is the order of the outputs that they belong to. */
static MCG_APART void widen_weight(const mcg_conv2d_t *p, const int8_t *weight, const stage_t *s) {
  const int32_t stride = p->stride_w, row = p->kernel_w * p->in_c, down = p->stride_h * row, step = stride * p->in_c;
  uint32_t *to = s->wide;
  for (int32_t y = 0; y < p->stride_h; ++y) {
    for (int32_t x = 0; x < stride; ++x) {
      const int32_t rows = s->y[y].count, count = s->x[x].count;
      const int8_t *at = weight + (y + p->stride_h * (rows - 1)) * row + x * p->in_c + step * (count - 1);
      MCG_ROLLED for (int32_t k = count > 0 ? rows : 0; k > 0; --k, at -= down) to = widen(at, -step, count, to);
    }
  }
}

/* Places the part of h that the rows of the block depend on, all 0. */
static void clear_plane(const mcg_conv2d_t *p, const mcg_block_t *b, stage_t *s) {
  s->top = (b->row + p->pad_top) / p->stride_h - (p->kernel_h - 1) / p->stride_h;
  s->left = p->pad_left / p->stride_w - (p->kernel_w - 1) / p->stride_w;
  s->rows = (b->row + b->rows - 1 + p->pad_top) / p->stride_h + 1 - s->top;
  s->columns = (p->in_w - 1 + p->pad_left) / p->stride_w + 1 - s->left;
  MCG_ROLLED for (int32_t i = 0; i < 2 * s->rows * s->columns; ++i) s->plane[i] = 0;
}

/* Fills it from h [out_h][out_w][C], at the first of four channels. */
static MCG_APART void fill_plane(const mcg_conv2d_t *p, const int8_t *h, const stage_t *s) {
  const int32_t first = mcg_max(s->left, 0), n = mcg_min(s->left + s->columns, p->out_w) - first, row = p->out_w * p->in_c;
  const int32_t top = mcg_max(s->top, 0), bottom = n > 0 ? mcg_min(s->top + s->rows, p->out_h) : top;
  uint32_t *to = s->plane + 2 * ((top - s->top) * s->columns + first - s->left);
  h += top * row + first * p->in_c;
  MCG_ROLLED for (int32_t y = top; y < bottom; ++y, h += row, to += 2 * s->columns) widen(h, p->in_c, n, to);
}

/* mcg_depthwise_span in the simplest way, for any numbers. */
static MCG_APART void span(const mcg_depthwise_span_t *s) {
  const int32_t pitch = s->pitch / 4, step = s->step / 4;
  for (int32_t i = 0; i < s->lines * s->count; ++i) {
    const int32_t line = i / s->count, at = i % s->count;
    int32_t *acc = s->acc + line * (s->line / 4) + at * step;
    mcg_zero(acc, CHANNELS);
    for (int32_t r = 0; r < s->rows; ++r) {
      const uint32_t *h = s->h + (line + r) * pitch + 2 * at, *w = s->wide + 2 * r * s->taps;
      MCG_COMPACT for (int32_t k = 0; k < 2 * s->taps; k += 2) {
        acc[0] = mcg_smlabb(h[k], w[k], acc[0]);
        acc[1] = mcg_smlabb(h[k + 1], w[k + 1], acc[1]);
        acc[2] = mcg_smlatt(h[k], w[k], acc[2]);
        acc[3] = mcg_smlatt(h[k + 1], w[k + 1], acc[3]);
      }
    }
  }
}

/* The spans of a block, whose plane was placed: positions that the same taps meet, a stride apart, together. */
static MCG_APART void place_spans(const mcg_conv2d_t *p, const mcg_block_t *b, stage_t *s) {
  const int32_t pitch = 2 * s->columns, start = b->row + p->pad_top;
  const uint32_t *wide = s->wide;
  s->spans = 0;
  for (int32_t k = 0; k < p->stride_h; ++k) {
    const int32_t rows = s->y[k].count, r = start % p->stride_h == k ? 0 : (k + start) % p->stride_h;
    const uint32_t *h = s->plane + pitch * (mcg_over(start + r, p->stride_h) - rows + 1 - s->top);
    for (int32_t j = 0; j < p->stride_w; ++j) {
      const phase_t *x = &s->x[j];
      const mcg_depthwise_span_t part = {h + 2 * (x->output - x->count + 1 - s->left),
                                         wide,
                                         rows,
                                         x->count,
                                         b->acc + (r * p->in_w + x->position) * CHANNELS,
                                         4 * CHANNELS * p->stride_w,
                                         x->positions,
                                         4 * pitch,
                                         4 * CHANNELS * p->in_w * p->stride_h,
                                         mcg_over(b->rows - r + p->stride_h - 1, p->stride_h)};
      wide += 2 * rows * x->count;
      if (part.lines > 0 && part.count > 0) s->span[s->spans++] = part;
    }
  }
}

/* The same as block_plain for four channels by pairs. */
static MCG_APART void block_packed(const stage_t *s) {
  for (const mcg_depthwise_span_t *part = s->span; part < s->span + s->spans; ++part) {
    if (MCG_ASM) mcg_depthwise_span(part);
    else span(part);
  }
}

/* Bytes of the scratch beyond the gradients of a block of so many rows. */
static int32_t room(const mcg_conv2d_t *p, int32_t rows) {
  const int32_t sh = p->stride_h, sw = p->stride_w;
  const int32_t high = (rows + sh - 2) / sh + (p->kernel_h + sh - 1) / sh;
  const int32_t wide = (p->in_w + sw - 2) / sw + (p->kernel_w + sw - 1) / sw;
  return 8 * (p->kernel_h * p->kernel_w + high * wide);
}

/* Whether blocks of four channels can go by pairs: each position meets a tap, and not too many. */
static int has_spans(const mcg_conv2d_t *p) {
  const int32_t sh = p->stride_h, sw = p->stride_w;
  return MCG_DUAL_MAC && sh <= MOST_STRIDE && sw <= MOST_STRIDE && p->dilation_h == 1 && p->dilation_w == 1 &&
         p->kernel_h >= sh && p->kernel_w >= sw && p->kernel_w <= MCG_MOST_TAPS * sw;
}

/* Any stride; the rows and channels of `b`, whose `first` goes past them.  scratch: int32 [positions of a block][4],
 * uint32 [taps][2], uint32 [rows of h that a block depends on, and as many more as taps reach][likewise columns][2] */
static MCG_APART void by_spans(const mcg_conv2d_t *p, const int8_t *h, const int8_t *weight, const mcg_chain_t *chain,
                               void *scratch, mcg_block_t *b) {
  const int32_t rows = mcg_block_rows(p, POSITIONS), packed = has_spans(p);
  const int32_t top = b->row, bottom = top + b->rows, first = b->first, last = first + b->n;
  stage_t s;
  mcg_grad_planes_t f;
  s.wide = (uint32_t *)scratch + CHANNELS * rows * p->in_w;
  s.plane = s.wide + 2 * p->kernel_h * p->kernel_w;
  for (int32_t k = 0; packed && k < MOST_STRIDE; ++k) {
    s.x[k] = phase(k, p->kernel_w, p->stride_w, p->pad_left, p->in_w);
    s.y[k] = phase(k, p->kernel_h, p->stride_h, p->pad_top, p->in_h);
  }
  for (b->acc = (int32_t *)scratch; b->row < bottom; b->row += rows) {
    b->rows = mcg_min(rows, bottom - b->row);
    const int vectors = MCG_MVE && mcg_depthwise_input_grad_open(&f, p, s.wide, room(p, rows), b->rows);
    const int tile = MCG_MVE && b->rows == p->in_h && mcg_tile_grad_open((mcg_tile_t *)(void *)s.wide, p);
    if (packed && !vectors) clear_plane(p, b, &s), place_spans(p, b, &s);
    for (b->first = first; b->first < last; b->first += CHANNELS) {
      b->n = b->pitch = mcg_min(CHANNELS, last - b->first);
      if (tile && b->n == CHANNELS) {
        mcg_tile_grad((mcg_tile_t *)(void *)s.wide, p, h + b->first, weight + b->first, b->acc);
      } else if (vectors && b->n == CHANNELS) {
        mcg_depthwise_input_grad_mve(&f, h, weight, b);
      } else if ((MCG_DUAL_MAC && !MCG_USES_DEPTHWISE_TAPS) || (packed && b->n == CHANNELS)) {
        widen_weight(p, weight + b->first, &s);
        fill_plane(p, h + b->first, &s);
        block_packed(&s);
      } else {
        block_plain(p, h, weight, b);
      }
      mcg_chain_block(chain, b);
    }
  }
  b->row = top;
}

/* to int8 [6][6][4], 0 where no tap comes: the taps of four channels for mcg_plane_quarters. */
static MCG_APART void spread_taps(const mcg_conv2d_t *p, const int8_t *weight, int8_t *to) {
  const int32_t gap = SPREAD - p->kernel_w;
  uint32_t *at = (uint32_t *)(void *)to + (2 - p->pad_top) * SPREAD + 2 - p->pad_left;
  for (int32_t ky = p->kernel_h; ky > 0; --ky, at += gap) {
    MCG_ROLLED for (int32_t kx = p->kernel_w; kx > 0; --kx, weight += p->in_c) *at++ = mcg_load4(weight);
  }
}

/* Whether mcg_depthwise_halves may take it. */
static int has_halves(const mcg_conv2d_t *p) {
  const int32_t taps = p->kernel_h == 3 && p->kernel_w == 3 && p->dilation_h == 1 && p->dilation_w == 1;
  return taps && p->stride_h == 2 && p->stride_w == 2 && p->pad_left <= 1 && p->in_w == 2 * p->out_w;
}

/* Whether the gradient is that of 2x2 at every position of h, the last row perhaps of 1x2, and every other tap is at most a 3x3
 * window. */
static int has_quarters(const mcg_conv2d_t *p) {
  const int32_t kh = p->kernel_h, kw = p->kernel_w;
  const int wide = kh > 4 && kw > 4 && p->pad_top <= 2 && p->pad_left <= 2 && kh <= p->pad_top + 4 && kw <= p->pad_left + 4;
  const int high = p->in_h > 1 && (p->in_h + 1) >> 1 == p->out_h;
  const int broad = p->in_w == 2 * p->out_w && p->out_w % 4 == 0 && 2 * p->in_w <= POSITIONS;
  return high && broad && p->stride_h == 2 && p->stride_w == 2 && p->dilation_h == 1 && p->dilation_w == 1 && wide;
}

/* Four channels of a block of `g`, as words of int8; 0, having stored nothing, where their sums are needed themselves: a
 * shift is too small, or the clamp changed some. */
static MCG_APART int quad_in_planes(const mcg_conv2d_t *p, const mcg_plane_t *g, const int8_t *h, const int8_t *weight,
                                    const mcg_chain_t *chain, const mcg_block_t *b, int8_t *words) {
  mcg_depthwise_row_t s;
  if (!mcg_chain_lanes(chain, b->first, g->kind != MCG_BY_ROWS, s.lane)) return 0;
  if (MCG_USES_DEPTHWISE_QUARTERS && p->stride_h == 2) {
    int8_t *taps = (int8_t *)g->planes - TAPS;
    spread_taps(p, weight + b->first, taps);
    mcg_plane_quarters(g, h + b->first, taps, &s, words);
  } else {
    mcg_plane_block(g, h + b->first, weight + b->first, &s, words);
  }
  return mcg_chain_words(chain, b, words);
}

/* By planes, a convolution of h by the turned kernel (of stride 2, by every other tap) that is requantized as forward ones are:
 * from block b on up to one that by_spans must do, or all; returns whether there is such a block.  scratch: words [positions of
 * a block], of stride 2 the taps for mcg_plane_quarters, then that of mcg_plane_block */
static MCG_APART int in_planes(const mcg_conv2d_t *p, const int8_t *h, const int8_t *weight, const mcg_chain_t *chain,
                               void *scratch, mcg_block_t *b) {
  const int32_t halves = MCG_USES_DEPTHWISE_QUARTERS ? p->stride_h - 1 : 0;
  const int32_t most = mcg_block_rows(p, POSITIONS) >> halves << halves, line = CHANNELS * p->in_w;
  const int32_t kernel_h = halves ? 3 : p->kernel_h, kernel_w = halves ? 3 : p->kernel_w;
  const int32_t pad_top = halves ? 1 : kernel_h - 1 - p->pad_top, pad_left = halves ? 1 : kernel_w - 1 - p->pad_left;
  int16_t *const planes = (int16_t *)scratch + (most * line + halves * TAPS) / 2;
  const uint8_t five = halves && p->kernel_h < p->pad_top + 4;
  mcg_plane_t g = {kernel_h, kernel_w, 1, 1, pad_top, pad_left, p->out_h, p->out_w, p->in_w >> halves, p->in_c, p->out_h,
                   0, 1, 1, five, CHANNELS << halves, line << halves, 0, 0, planes, 0, 0, 0, MCG_BY_ROWS};
  if (!mcg_plane_fits(&g)) return b->first < p->in_c; /* all of it */
  if (MCG_ASM) mcg_chain_clear_q();
  if (halves) mcg_clear(planes - TAPS / 2, TAPS / 2);
  for (b->n = CHANNELS; b->row < p->in_h; b->row += most, b->first = 0) {
    b->rows = mcg_min(most, p->in_h - b->row);
    g.first = b->row >> halves, g.rows = (b->rows + halves) >> halves;
    mcg_plane_begin(&g);
    for (; b->first < p->in_c; b->first += CHANNELS) {
      if (!quad_in_planes(p, &g, h, weight, chain, b, (int8_t *)scratch)) return 1;
    }
  }
  return 0;
}

/* The same for 3x3 windows of stride 2. */
static int in_halves(const mcg_conv2d_t *p, const int8_t *h, const int8_t *weight, const mcg_chain_t *chain, void *scratch,
                     mcg_block_t *b) {
  const int32_t rows = mcg_block_rows(p, POSITIONS);
  return mcg_depthwise_halves(p, h, weight, chain, scratch, 4 * CHANNELS * rows * p->in_w + room(p, rows), b);
}

/* h [out_h][out_w][C], weight [kh][kw][C] */
void mcg_depthwise_input_grad(const mcg_conv2d_t *p, const int8_t *h, const int8_t *weight, const mcg_chain_t *chain,
                              void *scratch) {
  if (MCG_WIDE && mcg_depthwise_input_grad_wide(p, h, weight, chain)) return;
  mcg_chain_start(chain);
  const int plain = MCG_ASM && !MCG_MVE && mcg_chain_is_plain(chain, p->in_c);
  const int unit = p->stride_h == 1 && p->stride_w == 1 && p->dilation_h == 1 && p->dilation_w == 1;
  const int planes = plain && (unit || (MCG_USES_DEPTHWISE_QUARTERS && has_quarters(p)));
  const int halves = MCG_USES_DEPTHWISE_HALVES && plain && has_halves(p);
  mcg_block_t b = {NULL, 0, 0, p->in_h, p->in_w, p->in_c, p->in_c, 0};
  if (!planes && !halves) by_spans(p, h, weight, chain, scratch, &b);
  while (planes && in_planes(p, h, weight, chain, scratch, &b)) by_spans(p, h, weight, chain, scratch, &b);
  while (halves && in_halves(p, h, weight, chain, scratch, &b)) by_spans(p, h, weight, chain, scratch, &b);
}
