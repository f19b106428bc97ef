/* Convolution by MVE: VMLADAVA multiplies sixteen int8 inputs of a pixel with sixteen weights of an output.
 *
 * The inputs of neighbouring pixels lie one after the other: where the input itself is like that (1x1) it is read in place,
 * else windows are copied to scratch, a strip of pixels at a time.  The zero point leaves through the bias:
 * sum (x - zero) * w = sum x * w - zero * sum w.  Short sums keep their weights in vector registers while the pixels pass
 * by; long ones multiply two pixels with two outputs.
 */
#include "conv2d_mve.h"

#include "fixed.h"
#include "ops/conv2d_strip.h"
#include "ops/mve.h"
#include "ops/rows.h"

#if MCG_MVE

#define STRIP 16 /* pixels that are gathered together, at most; conv2d.py gives room for 12, or 8 of many inputs */
#define VECTOR 16
#define SHORT (3 * VECTOR) /* inputs whose weights of two outputs stay in registers */

/* A call. */
typedef struct {
  const mcg_conv2d_t *p;
  const mcg_rows_t *r;
  const int8_t *x, *weight, *rest;
  const int32_t *bias;
  int8_t *bytes;         /* [strip][live + resting] */
  int32_t live, resting; /* inputs of an output: taps * channels */
  int32_t strip;
} conv_t;

/* Pixels, whose inputs and outputs are `pitch` and `step` bytes apart. */
typedef struct {
  const int8_t *x;
  int8_t *y;
  int32_t pixels, pitch, step;
} run_t;

/* bias - zero * sum of the weights of output o, which wraps around as the sums of products do. */
static inline int32_t moved_bias(const conv_t *f, int32_t o, int32_t sum) {
  return (int32_t)((uint32_t)f->bias[o] - (uint32_t)f->p->x_zero * (uint32_t)sum);
}

/* 32 - shift of outputs a, b, c, d. */
static inline int32x4_t shifts(const mcg_conv2d_t *p, int32_t a, int32_t b, int32_t c, int32_t d) {
  return vsubq_s32(vdupq_n_s32(32), mcg_words(p->shift[a], p->shift[b], p->shift[c], p->shift[d]));
}

/* Outputs o ... o + 3 from at most 16 inputs; `whole`: more may be read. */
MCG_INLINE void quad(const conv_t *f, const run_t *run, int32_t o, int whole) {
  const mcg_conv2d_t *p = f->p;
  const int32_t n = f->live, zero = p->y_zero, pitch = run->pitch, step = run->step;
  const mve_pred16_t some = mcg_first_bytes(n);
  const int8_t *w = f->weight + o * n, *x = run->x;
  const int8x16_t w0 = vldrbq_z_s8(w, some), w1 = vldrbq_z_s8(w + n, some), w2 = vldrbq_z_s8(w + 2 * n, some);
  const int8x16_t w3 = vldrbq_z_s8(w + 3 * n, some);
  const mcg_lanes_t lanes = {mcg_words(moved_bias(f, o, vaddvq_s8(w0)), moved_bias(f, o + 1, vaddvq_s8(w1)),
                                       moved_bias(f, o + 2, vaddvq_s8(w2)), moved_bias(f, o + 3, vaddvq_s8(w3))),
                             vldrwq_s32(p->multiplier + o), shifts(p, o, o + 1, o + 2, o + 3)};
  int8_t *y = run->y + o;
  for (int32_t i = run->pixels; i > 0; --i, x += pitch, y += step) {
    const int8x16_t v = whole ? vldrbq_s8(x) : vldrbq_z_s8(x, some);
    const int32x4_t acc = mcg_words(vmladavq_s8(v, w0), vmladavq_s8(v, w1), vmladavq_s8(v, w2), vmladavq_s8(v, w3));
    vstrbq_s32(y, mcg_requantize_lanes(acc, &lanes, zero));
  }
}

/* All outputs, by fours; the last four may overlap those before. */
MCG_INLINE void quads(const conv_t *f, const run_t *run, int whole) {
  const int32_t last = f->p->out_c - 4;
  for (int32_t o = 0; o < last; o += 4) quad(f, run, o, whole);
  quad(f, run, last, whole);
}

static MCG_APART void quads_whole(const conv_t *f, const run_t *run) { quads(f, run, 1); }

static MCG_APART void quads_part(const conv_t *f, const run_t *run) { quads(f, run, 0); }

/* Two pixels times outputs o and o2: lanes (o, o2, o, o2), the first two of the first pixel.  The pixels of a run are taken
 * two by two, then an odd one together with the one before it (or twice, where there is no other). */
typedef struct {
  mcg_lanes_t lanes;
  uint32x4_t offsets; /* of the bytes of y */
  const int8_t *x;
  int8_t *y;
  int32_t count, odd, pitch, step; /* pitch, step: from the first pixel to the second */
} pair_t;

/* a, b: sums of the weights of outputs o and o2. */
MCG_INLINE pair_t pair_of(const conv_t *f, const run_t *run, int32_t o, int32_t o2, int32_t a, int32_t b) {
  const mcg_conv2d_t *p = f->p;
  const int32_t m = p->multiplier[o], n = p->multiplier[o2], pixels = run->pixels, step = pixels > 1 ? run->step : 0;
  a = moved_bias(f, o, a), b = moved_bias(f, o2, b);
  const pair_t pair = {{mcg_words(a, b, a, b), mcg_words(m, n, m, n), shifts(p, o, o2, o, o2)},
                       vreinterpretq_u32_s32(mcg_words(o, o2, o + step, o2 + step)),
                       run->x, run->y, pixels >> 1, pixels & 1, pixels > 1 ? run->pitch : 0, step};
  return pair;
}

/* Whether there is another round, that of an odd pixel. */
MCG_INLINE int again(pair_t *pair) {
  if (pair->odd == 0) return 0;
  pair->odd = 0, pair->count = 1;
  pair->x -= pair->pitch, pair->y -= pair->step;
  return 1;
}

/* The weights of output o, live and resting together, to [SHORT]. */
static MCG_APART void join(const conv_t *f, int32_t o, int8_t *to) {
  int8_t *const end = mcg_copy_lanes(to, f->weight + o * f->live, f->live);
  mcg_copy_lanes(end, f->rest + o * f->resting, f->resting);
}

/* Outputs o and o2 from at most SHORT inputs in `vectors` vectors, a constant of each call; `last` masks the last one.
 * `whole`: all of it may be read. */
MCG_INLINE void stay(const conv_t *f, const run_t *run, int32_t o, int32_t o2, int32_t vectors, mve_pred16_t last,
                     int whole) {
  int8_t joined[2 * SHORT];
  const int8_t *v = f->weight + o * f->live, *w = f->weight + o2 * f->live;
  if (f->resting > 0) {
    join(f, o, joined), join(f, o2, joined + SHORT);
    v = joined, w = joined + SHORT;
  }
  const int32_t end = VECTOR * (vectors - 1), zero = f->p->y_zero;
  const int8x16_t a0 = vldrbq_s8(v), b0 = vldrbq_s8(w), az = vldrbq_z_s8(v + end, last), bz = vldrbq_z_s8(w + end, last);
  const int8x16_t a1 = vectors > 2 ? vldrbq_s8(v + VECTOR) : az, b1 = vectors > 2 ? vldrbq_s8(w + VECTOR) : bz;
  int32_t sum = vaddvaq_s8(vaddvq_s8(a0), az), sum2 = vaddvaq_s8(vaddvq_s8(b0), bz);
  if (vectors > 2) sum = vaddvaq_s8(sum, a1), sum2 = vaddvaq_s8(sum2, b1);
  pair_t pair = pair_of(f, run, o, o2, sum, sum2);
  do {
    const int8_t *x = pair.x;
    for (int32_t i = pair.count; i > 0; --i, pair.y += 2 * pair.step) {
      int32_t acc[4];
      for (int j = 0; j < 4; j += 2, x += pair.pitch) {
        int8x16_t u = vldrbq_s8(x);
        acc[j] = vmladavq_s8(u, a0), acc[j + 1] = vmladavq_s8(u, b0);
        if (vectors > 2) {
          u = vldrbq_s8(x + VECTOR);
          acc[j] = vmladavaq_s8(acc[j], u, a1), acc[j + 1] = vmladavaq_s8(acc[j + 1], u, b1);
        }
        u = whole ? vldrbq_s8(x + end) : vldrbq_z_s8(x + end, last);
        acc[j] = vmladavaq_s8(acc[j], u, az), acc[j + 1] = vmladavaq_s8(acc[j + 1], u, bz);
      }
      const int32x4_t sums = mcg_words(acc[0], acc[1], acc[2], acc[3]);
      vstrbq_scatter_offset_s32(pair.y, pair.offsets, mcg_requantize_lanes(sums, &pair.lanes, zero));
    }
    pair.x = x;
  } while (again(&pair));
}

/* All outputs two by two, an odd one twice. */
MCG_INLINE void stays(const conv_t *f, const run_t *run, int32_t vectors, mve_pred16_t last, int whole) {
  const int32_t count = f->p->out_c;
  for (int32_t o = 0; o < count; o += 2) stay(f, run, o, o + 1 < count ? o + 1 : o, vectors, last, whole);
}

static MCG_APART void stay_2(const conv_t *f, const run_t *run, int32_t n) {
  stays(f, run, 2, mcg_first_bytes(n - VECTOR), 0);
}

static MCG_APART void stay_2_whole(const conv_t *f, const run_t *run, int32_t n) {
  stays(f, run, 2, mcg_first_bytes(n - VECTOR), 1);
}

static MCG_APART void stay_3(const conv_t *f, const run_t *run, int32_t n) {
  stays(f, run, 3, mcg_first_bytes(n - 2 * VECTOR), 0);
}

static MCG_APART void stay_3_whole(const conv_t *f, const run_t *run, int32_t n) {
  stays(f, run, 3, mcg_first_bytes(n - 2 * VECTOR), 1);
}

/* Outputs o and o2 from any number of inputs; `parted` says whether some of them rest. */
MCG_INLINE void pass(const conv_t *f, const run_t *run, int32_t o, int32_t o2, int parted) {
  const int32_t live = f->live, resting = parted ? f->resting : 0, zero = f->p->y_zero;
  const int32_t whole = (live + VECTOR - 1) & ~(VECTOR - 1), all = (resting + VECTOR - 1) & ~(VECTOR - 1);
  const int8_t *w[2] = {f->weight + o * live, f->weight + o2 * live};
  const int8_t *rest[2] = {f->rest + o * resting, f->rest + o2 * resting};
  int32_t sum = mcg_sum_lanes(w[0], live), sum2 = mcg_sum_lanes(w[1], live);
  if (parted) sum += mcg_sum_lanes(rest[0], resting), sum2 += mcg_sum_lanes(rest[1], resting);
  pair_t pair = pair_of(f, run, o, o2, sum, sum2);
  const int32_t on = 2 * pair.pitch - (parted ? live + all : whole);
  do {
    const int8_t *x[2] = {pair.x, pair.x + pair.pitch};
    int8_t *y = pair.y;
    for (int32_t i = pair.count; i > 0; --i, y += 2 * pair.step) {
      int32_t acc[4] = {0, 0, 0, 0};
      mcg_multiply_2x2(x, w, live, acc);
      w[0] -= whole, w[1] -= whole;
      if (parted) {
        x[0] += live - whole, x[1] += live - whole;
        mcg_multiply_2x2(x, rest, resting, acc);
        rest[0] -= all, rest[1] -= all;
      }
      x[0] += on, x[1] += on;
      const int32x4_t sums = mcg_words(acc[0], acc[1], acc[2], acc[3]);
      vstrbq_scatter_offset_s32(y, pair.offsets, mcg_requantize_lanes(sums, &pair.lanes, zero));
    }
    pair.x = x[0], pair.y = y;
  } while (again(&pair));
}

MCG_INLINE void passes(const conv_t *f, const run_t *run, int parted) {
  const int32_t count = f->p->out_c;
  for (int32_t o = 0; o < count; o += 2) pass(f, run, o, o + 1 < count ? o + 1 : o, parted);
}

static MCG_APART void pass_whole(const conv_t *f, const run_t *run) { passes(f, run, 0); }

static MCG_APART void pass_parted(const conv_t *f, const run_t *run) { passes(f, run, 1); }

/* All outputs of a run by what suits the number of inputs. */
static void outputs(const conv_t *f, const run_t *run) {
  const int32_t n = f->live + f->resting, whole = n % VECTOR == 0 || run->x == f->bytes; /* scratch has room to read on */
  if (n <= VECTOR && f->resting == 0 && f->p->out_c >= 4) {
    if (whole) quads_whole(f, run);
    else quads_part(f, run);
  } else if (n <= VECTOR || n > SHORT) {
    if (f->resting > 0) pass_parted(f, run);
    else pass_whole(f, run);
  } else if (n <= 2 * VECTOR) {
    if (whole) stay_2_whole(f, run, n);
    else stay_2(f, run, n);
  } else {
    if (whole) stay_3_whole(f, run, n);
    else stay_3(f, run, n);
  }
}

/* to [taps][n] = channels order[0] ... order[n - 1] at so many neighbours */
static int8_t *pick(const mcg_conv2d_t *p, int8_t *to, const int8_t *at, int32_t first, int32_t n, int32_t taps) {
  for (; taps > 0; --taps, at += p->in_c) {
    const uint16_t *order = p->order + first;
    for (int32_t left = n; left > 0; left -= 8, to += 8, order += 8) {
      const mve_pred16_t some = vctp16q((uint32_t)left);
      const uint16x8_t channels = vldrhq_z_u16(order, some);
      vstrbq_p_s16(to, vldrbq_gather_offset_z_s16(at, channels, some), some);
      if (left < 8) to += left - 8;
    }
  }
  return to;
}

/* to [pixels][taps][in_c]: neighbouring windows that lie inside, all channels in order. */
static MCG_APART void inside(const conv_t *f, int32_t top, int32_t left, int32_t pixels, int8_t *to) {
  const mcg_conv2d_t *p = f->p;
  const int32_t n = p->kernel_w * p->in_c, pitch = p->in_w * p->in_c, ring = f->r->x_rows * pitch;
  const int32_t next = f->live, step = p->stride_w * p->in_c;
  const int8_t *at = mcg_row(f->x, top, f->r->x_rows, pitch) + left * p->in_c, *const end = f->x + ring;
  const mve_pred16_t some = mcg_first_bytes(n < VECTOR ? n : VECTOR);
  for (int32_t ky = p->kernel_h; ky > 0; --ky, at += pitch, to += n) {
    if (at >= end) at -= ring;
    const int8_t *from = at;
    int8_t *pixel = to;
    if (n <= VECTOR) {
      for (int32_t i = pixels; i > 0; --i, from += step, pixel += next) vstrbq_p_s8(pixel, vldrbq_z_s8(from, some), some);
    } else {
      for (int32_t i = pixels; i > 0; --i, from += step, pixel += next) mcg_copy_lanes(pixel, from, n);
    }
  }
}

/* to [taps][n] = channels first ... first + n - 1 of the order under the window at (top, left) */
static MCG_APART int8_t *window(const conv_t *f, int32_t top, int32_t left, int32_t first, int32_t n, int8_t *to) {
  const mcg_conv2d_t *p = f->p;
  const mcg_taps_t v = mcg_taps(top, p->kernel_h, p->in_h), h = mcg_taps(left, p->kernel_w, p->in_w);
  for (int32_t ky = 0; ky < p->kernel_h; ++ky) {
    if (ky < v.first || ky >= v.last || h.first >= h.last) {
      to = mcg_fill_lanes(to, p->x_zero, p->kernel_w * n);
      continue;
    }
    const int8_t *at = mcg_row(f->x, top + ky, f->r->x_rows, p->in_w * p->in_c) + (left + h.first) * p->in_c;
    if (h.first > 0) to = mcg_fill_lanes(to, p->x_zero, h.first * n);
    to = p->order == NULL ? mcg_copy_lanes(to, at, (h.last - h.first) * n) : pick(p, to, at, first, n, h.last - h.first);
    if (h.last < p->kernel_w) to = mcg_fill_lanes(to, p->x_zero, (p->kernel_w - h.last) * n);
  }
  return to;
}

/* Inputs of the next pixels, from (oy, ox) on, to `to`: those of one pixel, or of neighbours inside.  Returns how many, at
 * most `most`; last: the last ox whose window lies inside. */
static int32_t gather(const conv_t *f, int32_t oy, int32_t ox, int32_t most, int32_t last, int8_t *to) {
  const mcg_conv2d_t *p = f->p;
  const int32_t top = oy * p->stride_h - p->pad_top, left = ox * p->stride_w - p->pad_left;
  if (p->order == NULL && top >= 0 && top + p->kernel_h <= p->in_h && left >= 0 && ox <= last) {
    const int32_t pixels = most < last + 1 - ox ? most : last + 1 - ox;
    inside(f, top, left, pixels, to);
    return pixels;
  }
  to = window(f, top, left, 0, p->live, to);
  if (f->resting > 0) window(f, top, left, p->live, p->in_c - p->live, to);
  return 1;
}

/* Output rows [oy, oy + rows), which follow each other at y, a strip at a time. */
static void strips(const conv_t *f, int32_t oy, int32_t rows, int8_t *y) {
  const mcg_conv2d_t *p = f->p;
  const int32_t total = rows * p->out_w, inputs = f->live + f->resting, room = p->in_w - p->kernel_w + p->pad_left;
  const int32_t last = room < 0 ? -1 : room / p->stride_w < p->out_w - 1 ? room / p->stride_w : p->out_w - 1;
  run_t run = {f->bytes, y, 0, inputs, p->out_c};
  for (int32_t done = 0, ox = 0; done < total; done += run.pixels, run.y += run.pixels * p->out_c) {
    run.pixels = total - done < f->strip ? total - done : f->strip;
    for (int32_t i = 0, some; i < run.pixels; i += some) {
      some = gather(f, oy, ox, run.pixels - i, last, f->bytes + i * inputs);
      if ((ox += some) == p->out_w) ox = 0, ++oy;
    }
    outputs(f, &run);
  }
}

/* 1x1: whole rows, as many as follow each other in both rings. */
static void in_place(const conv_t *f, int8_t *y) {
  const mcg_conv2d_t *p = f->p;
  const mcg_rows_t *r = f->r;
  for (int32_t oy = r->first, rows; oy < r->last; oy += rows) {
    const int32_t from = mcg_ring_slot(oy, r->x_rows), to = mcg_ring_slot(oy, r->y_rows);
    rows = r->last - oy;
    if (rows > r->x_rows - from) rows = r->x_rows - from;
    if (rows > r->y_rows - to) rows = r->y_rows - to;
    const run_t run = {f->x + from * p->in_w * p->in_c, y + to * p->out_w * p->out_c, rows * p->out_w, p->in_c, p->out_c};
    outputs(f, &run);
  }
}

/* 1x1 over whole maps, where y may lie over x: the pixels whose outputs end before what is still to be read, as long as there
 * are many, else a strip that is copied first. */
static void over_input(const conv_t *f, int8_t *y) {
  const mcg_conv2d_t *p = f->p;
  const int8_t *x = f->x + f->r->first * p->in_w * p->in_c;
  y += f->r->first * p->out_w * p->out_c;
  for (int32_t n, left = (f->r->last - f->r->first) * p->out_w; left > 0; left -= n, x += n * p->in_c, y += n * p->out_c) {
    const int32_t apart = (int32_t)((intptr_t)x - (intptr_t)y) / p->out_c;
    n = apart < left ? apart : left;
    run_t run = {x, y, n, p->in_c, p->out_c};
    if (n < left && n < f->strip) {
      n = run.pixels = left < f->strip ? left : f->strip;
      mcg_copy_lanes(f->bytes, x, n * p->in_c);
      run.x = f->bytes;
    }
    outputs(f, &run);
  }
}

int32_t mcg_conv2d_mve(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight,
                       const int8_t *rest, const int32_t *bias, int8_t *y, void *scratch) {
  const int32_t taps = p->kernel_h * p->kernel_w, live = taps * p->live, resting = taps * p->in_c - live;
  if (mcg_least_lanes(p->shift, p->out_c) < 33) return 0;
  const int pointwise = taps == 1 && p->stride_h == 1 && p->stride_w == 1 && p->in_h == p->out_h && p->in_w == p->out_w &&
                        p->pad_top == 0 && p->pad_left == 0;
  const int32_t inputs = ((live + 3) & ~3) + ((resting + 3) & ~3);
  const int32_t columns = inputs > MCG_MANY_INPUTS ? MCG_PIXELS_OF_MANY : MCG_PIXELS;
  const int32_t more = pointwise && resting == 0 ? 0 : columns * (live > resting ? live : resting);
  const int32_t pixels = (2 * inputs * columns + more - VECTOR) / (live + resting);
  const conv_t f = {p, r, x, weight, rest, bias, (int8_t *)scratch, live, resting, pixels < STRIP ? pixels : STRIP};
  if (pointwise && p->order == NULL && !mcg_overlap(p, r, x, y)) {
    in_place(&f, y);
    return 1;
  }
  if (pointwise && p->order == NULL && r->x_rows >= p->in_h && r->y_rows >= p->out_h) {
    over_input(&f, y);
    return 1;
  }
  for (int32_t oy = r->first, rows; oy < r->last; oy += rows) {
    const int32_t slot = mcg_ring_slot(oy, r->y_rows);
    rows = r->last - oy < r->y_rows - slot ? r->last - oy : r->y_rows - slot;
    strips(&f, oy, rows, y + slot * p->out_w * p->out_c);
  }
  return 1;
}

#endif
