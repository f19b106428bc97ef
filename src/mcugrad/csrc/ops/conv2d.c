/* Convolution, int8 in and out.
 *
 * The fast path widens the inputs of some output pixels to int16 and multiplies them with one row of weights after the
 * other, so that each weight is loaded and widened once for all of them.
 */
#include "fixed.h"
#include "kernels.h"
#include "ops/conv2d_colour_mve.h"
#include "ops/conv2d_columns.h"
#include "ops/conv2d_groups.h"
#include "ops/conv2d_mve.h"
#include "ops/conv2d_strip.h"
#include "ops/rows.h"
#include "uses.h"
#include "wide.h"

/* A call of the fast path. */
typedef struct {
  const mcg_conv2d_t *p;
  const mcg_rows_t *r;
  const int8_t *x, *weight, *rest;
  const int32_t *bias;
  int16_t *columns;
  int32_t pixels;        /* of the largest strip */
  int8_t *bytes;         /* [pixels][most4] of the pixels of a strip */
  int32_t live, resting; /* inputs of an output: taps * channels */
  int32_t most4;         /* of both, in whole groups */
  int32_t in_place;      /* whether the columns of neighbours are the widened input, group by group */
  int32_t colour;        /* whether widen_colour knows the windows */
  int32_t tail;          /* outputs at the end that have a strip of their own, because of their weights' end */
  int32_t strips;
  mcg_strip_t strip[2];  /* of the others, and of these */
} conv_t;

/* The place of the next pixel of a strip. */
typedef struct {
  int32_t pixels, oy, ox;
} place_t;

/* Whether the window has no gaps. */
static inline int is_dense(const mcg_conv2d_t *p) { return p->dilation_h == 1 && p->dilation_w == 1; }

static inline int32_t round4(int32_t n) { return (n + 3) & ~3; }

/* to [n] = from [n]; returns the end.  The last word may overlap the one before. */
static inline int8_t *copy(int8_t *to, const int8_t *from, int32_t n) {
  if (n < 4) {
    MCG_ROLLED for (int32_t i = 0; i < n; ++i) to[i] = from[i];
    return to + n;
  }
  MCG_ROLLED for (int32_t i = 0; i < n - 4; i += 4) mcg_store4(to + i, mcg_load4(from + i));
  mcg_store4(to + n - 4, mcg_load4(from + n - 4));
  return to + n;
}

static inline int8_t *fill(int8_t *to, int32_t value, int32_t n) {
  int8_t *const end = to + n;
  MCG_ROLLED while (to < end) *to++ = (int8_t)value;
  return end;
}

/* to [taps][n] = channels [first, first + n) of the order at so many pixels */
static int8_t *pick(int8_t *to, const int8_t *at, const mcg_conv2d_t *p, int32_t first, int32_t n, int32_t taps) {
  const uint16_t *order = p->order + first;
  for (; taps > 0; --taps, at += p->in_c) {
    MCG_ROLLED for (int32_t i = 0; i < n; ++i) *to++ = at[order[i]];
  }
  return to;
}

/* to [taps][n] = channels [first, first + n) of the order at the taps of the window at (top, left) */
static MCG_APART void gather(const conv_t *f, int32_t top, int32_t left, int32_t first, int32_t n, int8_t *to) {
  const mcg_conv2d_t *p = f->p;
  const mcg_taps_t v = mcg_taps(top, p->kernel_h, p->in_h), h = mcg_taps(left, p->kernel_w, p->in_w);
  for (int32_t ky = 0; ky < p->kernel_h; ++ky) {
    if (ky < v.first || ky >= v.last || h.first >= h.last) {
      to = fill(to, p->x_zero, p->kernel_w * n);
      continue;
    }
    const int8_t *at = mcg_row(f->x, top + ky, f->r->x_rows, p->in_w * p->in_c) + (left + h.first) * p->in_c;
    to = fill(to, p->x_zero, h.first * n);
    to = p->order == NULL ? copy(to, at, (h.last - h.first) * n) : pick(to, at, p, first, n, h.last - h.first);
    to = fill(to, p->x_zero, (p->kernel_w - h.last) * n);
  }
}

/* The same for a window with gaps. */
static MCG_APART void gather_dilated(const conv_t *f, int32_t top, int32_t left, int32_t first, int32_t n, int8_t *to) {
  const mcg_conv2d_t *p = f->p;
  for (int32_t ky = 0, iy = top; ky < p->kernel_h; ++ky, iy += p->dilation_h) {
    for (int32_t kx = 0, ix = left; kx < p->kernel_w; ++kx, ix += p->dilation_w) {
      if (iy < 0 || iy >= p->in_h || ix < 0 || ix >= p->in_w) {
        to = fill(to, p->x_zero, n);
        continue;
      }
      const int8_t *at = mcg_row(f->x, iy, f->r->x_rows, p->in_w * p->in_c) + ix * p->in_c;
      to = p->order == NULL ? copy(to, at, n) : pick(to, at, p, first, n, 1);
    }
  }
}

/* bytes [pixels][live4] = the windows of neighbours, the first of them at `first`, all taps inside and all channels in
 * order; what fills up the last group is there already. */
static MCG_APART void gather_inside(const conv_t *f, const int8_t *first, int32_t pixels) {
  const mcg_conv2d_t *p = f->p;
  const int32_t n = p->kernel_w * p->in_c, pitch = p->in_w * p->in_c, ring = f->r->x_rows * pitch;
  const int32_t step = p->stride_w * p->in_c, pad = -f->live & 3;
  const int8_t *const end = f->x + ring;
  int8_t *to = f->bytes;
  for (; pixels > 0; --pixels, first += step, to += pad) {
    const int8_t *at = first;
    for (int32_t ky = p->kernel_h; ky > 0; --ky, at += pitch) {
      if (at >= end) at -= ring;
      to = copy(to, at, n);
    }
  }
}

static void advance(const conv_t *f, place_t *at, int32_t pixels) {
  for (at->ox += pixels; at->ox >= f->p->out_w; at->ox -= f->p->out_w) ++at->oy;
}

/* bytes [pixels][n4] = channels [first, first + n) of the order at all taps of the next `count` pixels; the others repeat
 * the last one. */
static MCG_APART void gather_strip(const conv_t *f, place_t at, int32_t count, int32_t first, int32_t n) {
  const mcg_conv2d_t *p = f->p;
  const int32_t taps = p->kernel_h * p->kernel_w * n, pad = -taps & 3;
  const int32_t top = at.oy * p->stride_h - p->pad_top, left = at.ox * p->stride_w - p->pad_left;
  const int32_t right = left + (at.pixels - 1) * p->stride_w + p->kernel_w;
  const int dense = is_dense(p);
  if (dense && p->order == NULL && top >= 0 && top + p->kernel_h <= p->in_h && left >= 0 && right <= p->in_w &&
      at.ox + at.pixels <= p->out_w) {
    gather_inside(f, mcg_row(f->x, top, f->r->x_rows, p->in_w * p->in_c) + left * p->in_c, at.pixels);
    return;
  }
  int8_t *to = f->bytes;
  for (int32_t j = 1; j <= at.pixels; ++j, to += taps + pad) {
    const int32_t row = at.oy * p->stride_h - p->pad_top, column = at.ox * p->stride_w - p->pad_left;
    if (!MCG_USES_GAPS || dense) gather(f, row, column, first, n, to);
    else gather_dilated(f, row, column, first, n, to);
    fill(to + taps, p->x_zero, pad);
    if (j < count) advance(f, &at, 1);
  }
}

/* The columns of the next `count` pixels from the input itself. */
static MCG_APART void fetch_in_place(const conv_t *f, place_t at, int32_t count) {
  const int32_t channels = f->p->in_c, width = f->p->in_w, rows = f->r->x_rows, zero = f->p->x_zero;
  const int32_t first = mcg_ring_slot(at.oy, rows) * width + at.ox;
  if (count == at.pixels && first + count <= rows * width) {
    widen_all(f->columns, at.pixels, f->x + first * channels, channels, zero);
    return;
  }
  for (int32_t j = 0; j < at.pixels; ++j) {
    const int8_t *from = f->x + (mcg_ring_slot(at.oy, rows) * width + at.ox) * channels;
    widen_1(f->columns + 4 * j, 4 * at.pixels, from, channels, zero);
    if (j + 1 < count) advance(f, &at, 1);
  }
}

/* How many of the next `most` windows, their first row at `top`, follow each other inside the input. */
static inline int32_t run_inside(const mcg_conv2d_t *p, int32_t top, int32_t left, int32_t most) {
  if (top < 0 || top + p->kernel_h > p->in_h || left < 0 || left + p->kernel_w > p->in_w) return 0;
  return left + (most - 1) * p->stride_w + p->kernel_w > p->in_w ? 1 : most;
}

/* The columns of a strip of six windows of mcg_is_colour; those that reach outside go the common way. */
static MCG_APART void fetch_colour(const conv_t *f, place_t at) {
  const mcg_conv2d_t *p = f->p;
  const int32_t pitch = p->in_w * 3, ring = f->r->x_rows * pitch;
  const int8_t *const last = f->x + ring - pitch;
  int16_t *to = f->columns;
  MCG_ROLLED for (int32_t n, left = 6; left > 0; left -= n, to += 4 * n) {
    const int32_t iy = at.oy * p->stride_h - p->pad_top, ix = at.ox * p->stride_w - p->pad_left;
    n = run_inside(p, iy, ix, left < p->out_w - at.ox ? left : p->out_w - at.ox);
    if (n > 0) {
      const int8_t *a = mcg_row(f->x, iy, f->r->x_rows, pitch) + ix * 3;
      const int8_t *b = a + (a < last ? pitch : pitch - ring);
      widen_colour(to, n, p, a, b, b + (b < last ? pitch : pitch - ring));
    } else {
      n = 1;
      gather(f, iy, ix, 0, 3, f->bytes);
      widen_1(to, 24, f->bytes, 28, p->x_zero);
    }
    at.ox += n;
    if (at.ox == p->out_w) at.ox = 0, ++at.oy;
  }
}

/* The same of any windows. */
static MCG_APART void fetch_windows(const conv_t *f, place_t at, int32_t count) {
  const mcg_conv2d_t *p = f->p;
  gather_strip(f, at, count, 0, p->live);
  widen_all(f->columns, at.pixels, f->bytes, round4(f->live), p->x_zero);
  if (f->resting == 0) return;
  gather_strip(f, at, count, p->live, p->in_c - p->live);
  widen_all(f->columns + at.pixels * round4(f->live), at.pixels, f->bytes, round4(f->resting), p->x_zero);
}

/* The columns of the next `count` pixels. */
static void fetch(const conv_t *f, const place_t *at, int32_t count) {
  if (f->in_place) fetch_in_place(f, *at, count);
  else if (MCG_ASM && f->colour && at->pixels == 6) fetch_colour(f, *at);
  else fetch_windows(f, *at, count);
}

/* mcg_dot_groups for whole groups and the last one. */
static void dot_groups(const int16_t *columns, const int8_t *w, int32_t groups, int32_t acc[4]) {
  mcg_dot_groups(columns, w, groups, acc);
}

/* acc [4] += columns [(n + 3) / 4][4][4] . w [n]. */
static void dot(const int16_t *columns, const int8_t *w, int32_t n, int32_t acc[4]) {
  const int32_t whole = n & ~3;
  dot_groups(columns, w, whole >> 2, acc);
  if (whole < n) {
    int8_t last[4] = {0, 0, 0, 0};
    for (int32_t i = whole; i < n; ++i) last[i - whole] = w[i];
    dot_groups(columns + 4 * whole, last, 1, acc);
  }
}

/* The outputs of a strip of four pixels, of which `count` are wanted. */
static void strip_in_c(const conv_t *f, int32_t count, int8_t *y) {
  const mcg_conv2d_t *p = f->p;
  for (int32_t o = 0; o < p->out_c; ++o) {
    int32_t acc[4] = {f->bias[o], f->bias[o], f->bias[o], f->bias[o]};
    dot(f->columns, f->weight + o * f->live, f->live, acc);
    if (f->resting > 0) dot(f->columns + 4 * round4(f->live), f->rest + o * f->resting, f->resting, acc);
    for (int32_t j = 0; j < count; ++j) {
      y[j * p->out_c + o] = mcg_requantize(acc[j], p->multiplier[o], p->shift[o], p->y_zero);
    }
  }
}

/* columns [(n + 3) / 4][4] of one pixel . w [n] */
static int32_t dot_pixel(const int16_t *columns, const int8_t *w, int32_t n) {
  int32_t acc = 0;
  for (int32_t i = 0; i < n; ++i) acc += columns[MCG_DUAL_MAC && ((i ^ i >> 1) & 1) ? i ^ 3 : i] * w[i];
  return acc;
}

/* The outputs of one pixel. */
static void pixel_in_c(const conv_t *f, int8_t *y) {
  const mcg_conv2d_t *p = f->p;
  for (int32_t o = 0; o < p->out_c; ++o) {
    int32_t acc = f->bias[o] + dot_pixel(f->columns, f->weight + o * f->live, f->live);
    if (f->resting > 0) acc += dot_pixel(f->columns + round4(f->live), f->rest + o * f->resting, f->resting);
    *y++ = mcg_requantize(acc, p->multiplier[o], p->shift[o], p->y_zero);
  }
}

static void run_strip(mcg_strip_t *s, int32_t pixels, int8_t *y) {
  s->y = y, s->y3 = y + 3 * s->pitch;
  if (pixels == 6) mcg_conv2d_strip_6(s);
  else if (pixels == 4) mcg_conv2d_strip_4(s);
  else mcg_conv2d_strip_1(s);
}

/* The outputs of a strip. */
static void strip_in_asm(conv_t *f, int32_t pixels, int8_t *y) {
  run_strip(f->strip, pixels, y);
  if (f->strips > 1) run_strip(f->strip + 1, pixels, y - f->strip->output);
}

/* How many pixels to compute together when `left` of `total` remain: a pixel of a strip of 6 costs least, then of 4. */
static int32_t strip_pixels(int32_t most, int32_t left, int32_t total) {
  if (most == 1) return 1;
  if (!MCG_ASM) return 4;
  if (most >= 6 && left > 4 && left != 8 && total >= 6) return 6;
  return left > 1 && total >= 4 ? 4 : 1;
}

/* The columns of so many pixels. */
static void set_pixels(conv_t *f, int32_t pixels) {
  MCG_ROLLED for (int32_t i = 0; i < f->strips; ++i) {
    f->strip[i].end = f->strip[i].live_end = f->columns + pixels * round4(f->live);
    f->strip[i].rest_end = f->strip[i].live_end + pixels * round4(f->resting);
  }
}

/* Output rows [oy, oy + rows), which follow each other at y.  Where pixels are lacking, the last strip steps back and
 * computes some again. */
static void strips(conv_t *f, int32_t oy, int32_t rows, int8_t *y) {
  const mcg_conv2d_t *p = f->p;
  const int32_t total = rows * p->out_w;
  place_t at = {0, oy, 0};
  for (int32_t done = 0; done < total;) {
    const int32_t pixels = strip_pixels(f->pixels, total - done, total), count = pixels < total ? pixels : total;
    for (; done + count > total; --done) {
      if (--at.ox < 0) at.ox = p->out_w - 1, --at.oy;
    }
    if (MCG_ASM && pixels != at.pixels) set_pixels(f, pixels);
    at.pixels = pixels;
    fetch(f, &at, count);
    if (MCG_ASM) strip_in_asm(f, pixels, y + done * p->out_c);
    else if (pixels == 1) pixel_in_c(f, y + done * p->out_c);
    else strip_in_c(f, count, y + done * p->out_c);
    advance(f, &at, count);
    done += count;
  }
}

static inline int32_t entry(int32_t groups) { return groups == 0 ? MCG_STRIP_UNROLLED : -groups & (MCG_STRIP_UNROLLED - 1); }

/* Adds what all strips of outputs [first, last) have in common. */
static MCG_APART void add_strip(conv_t *f, int32_t first, int32_t last, const int8_t *weight, const int8_t *rest) {
  const mcg_conv2d_t *p = f->p;
  const int32_t live4 = round4(f->live), rest4 = round4(f->resting);
  mcg_strip_t *s = &f->strip[f->strips++];
  s->output = first - last, s->bias = f->bias + last, s->multiplier = p->multiplier + last, s->shift = p->shift + last;
  s->columns = f->columns, s->weight = weight, s->rest = rest;
  s->offset = 2 * p->y_zero + 1, s->pitch = p->out_c;
  s->live_pad = live4 - f->live, s->rest_pad = rest4 - f->resting;
  s->live_entry = entry((live4 >> 2) - 1), s->rest_entry = entry(rest4 >> 2);
  s->tail = s->live_pad > 0 ? MCG_TAIL_PADDED : (live4 >> 2) - 1 > MCG_STRIP_UNROLLED ? MCG_TAIL_WHOLE : MCG_TAIL_FEW;
  if (f->resting > 0) s->tail = MCG_TAIL_ANY;
  MCG_ROLLED for (int32_t o = first; o < last; ++o) s->tail = mcg_usual_shift(p->shift[o]) ? s->tail : MCG_TAIL_ANY;
}

/* to [.] = weights of the outputs of the tail, then three zeros; returns what follows, aligned. */
static MCG_APART int8_t *keep_tail(const conv_t *f, const int8_t *weight, int32_t n, int8_t *to) {
  fill(copy(to, weight + (f->p->out_c - f->tail) * n, f->tail * n), 0, 3);
  return to + round4(f->tail * n + 3);
}

/* Outputs at the end that would have conv2d_strip.S read beyond the weights. */
static int32_t tail_outputs(const conv_t *f) {
  if (((f->live | f->resting) & 3) == 0) return 0;
  const int32_t n = f->live == 1 || f->resting == 1 ? 3 : 1;
  return n < f->p->out_c ? n : f->p->out_c;
}

static void prepare(conv_t *f) {
  const int32_t most = f->p->out_c - f->tail;
  if (most > 0) add_strip(f, 0, most, f->weight, f->rest);
  if (f->tail > 0) {
    int8_t *last = f->bytes + f->pixels * f->most4, *last_rest = keep_tail(f, f->weight, f->live, last);
    if (f->resting > 0) keep_tail(f, f->rest, f->resting, last_rest);
    add_strip(f, most, f->p->out_c, last, last_rest);
  }
}

/* Strips of at most so many pixels. */
MCG_INLINE void by_strips(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight, const int8_t *rest,
                          const int32_t *bias, int8_t *y, void *scratch, int32_t pixels) {
  conv_t f;
  f.p = p, f.r = r, f.x = x, f.weight = weight, f.rest = rest, f.bias = bias, f.columns = (int16_t *)scratch;
  f.live = p->kernel_h * p->kernel_w * p->live, f.resting = p->kernel_h * p->kernel_w * p->in_c - f.live;
  f.most4 = round4(f.live > f.resting ? f.live : f.resting);
  f.pixels = pixels;
  f.bytes = (int8_t *)(f.columns + f.pixels * (round4(f.live) + round4(f.resting)));
  f.in_place = f.live == p->in_c && p->order == NULL && (p->in_c & 3) == 0 && p->stride_h == 1 && p->stride_w == 1 &&
               p->in_h == p->out_h && p->in_w == p->out_w && p->pad_top == 0 && p->pad_left == 0;
  f.colour = is_dense(p) && mcg_is_colour(p);
  f.tail = MCG_ASM ? tail_outputs(&f) : 0;
  f.strips = 0;
  if (MCG_ASM) prepare(&f);
  MCG_ROLLED for (int32_t j = 0; j < f.pixels && p->order == NULL && (f.live & 3) != 0; ++j) {
    fill(f.bytes + j * f.most4 + f.live, p->x_zero, f.most4 - f.live);
  }
  for (int32_t oy = r->first, rows; oy < r->last; oy += rows) {
    const int32_t slot = mcg_ring_slot(oy, r->y_rows);
    rows = r->last - oy < r->y_rows - slot ? r->last - oy : r->y_rows - slot;
    strips(&f, oy, rows, y + slot * p->out_w * p->out_c);
  }
}

void mcg_conv2d(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight, const int8_t *rest,
                const int32_t *bias, int8_t *y, void *scratch) {
  const int32_t taps = p->kernel_h * p->kernel_w, live = taps * p->live;
  if (MCG_WIDE && is_dense(p) && mcg_conv2d_wide(p, r, x, weight, rest, bias, y)) return;
  if (MCG_MVE && is_dense(p) && mcg_conv2d_colour_mve(p, r, x, weight, bias, y, scratch)) return;
  if (MCG_MVE && is_dense(p) && mcg_conv2d_mve(p, r, x, weight, rest, bias, y, scratch)) return;
  by_strips(p, r, x, weight, rest, bias, y, scratch,
            round4(live) + round4(taps * p->in_c - live) > MCG_MANY_INPUTS ? MCG_PIXELS_OF_MANY : MCG_PIXELS);
}

void mcg_conv2d_narrow(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight, const int8_t *rest,
                       const int32_t *bias, int8_t *y, void *scratch) {
  if (MCG_WIDE && is_dense(p) && mcg_conv2d_wide(p, r, x, weight, rest, bias, y)) return;
  by_strips(p, r, x, weight, rest, bias, y, scratch, 1);
}
