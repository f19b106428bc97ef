/* Depthwise convolution by MVE: the taps of a window are the lanes of VMLADAVA.
 *
 * Eight channels at a time are taken apart into planes.  A plane holds columns of `deep` rows, so that the whole window of
 * an output lies in one piece.  The next rows are not moved up: everything slides by as many bytes as rows are done, and a
 * new row takes the place of the oldest of the column to its right.
 */
#include "depthwise_mve.h"

#include "fixed.h"
#include "ops/mve.h"
#include "ops/rows.h"

#if MCG_MVE

#define CHANNELS 8
#define VECTOR 16
#define MOST 4 /* vectors of a window */

/* Eight channels of a call. */
typedef struct {
  const mcg_conv2d_t *p;
  const mcg_rows_t *r;
  const int8_t *x; /* at the channels, as y */
  int8_t *y;
  int8_t *planes;     /* [8][plane] */
  int32_t plane;      /* bytes */
  int32_t width;      /* columns under all windows of a row, padding included */
  int32_t first, last; /* those that are not padding */
  int32_t rows, deep; /* output rows that are computed together, and the input rows under them */
  int32_t vectors;
  uint16x8_t offsets; /* of the planes */
} block_t;

/* What the outputs of eight channels need. */
typedef struct {
  int8_t weight[CHANNELS * MOST * VECTOR]; /* [8][rows][vectors][16]: windows in columns, zeros where a row does not reach */
  int32_t bias[CHANNELS], multiplier[CHANNELS];
  int8_t shift[CHANNELS];
} channels_t;

/* Eight outputs at a time, as lanes in pairs: four pixels of two rows, or of one row and the four pixels `gap` on. */
typedef struct {
  const int8_t *x;
  int8_t *y;
  int32_t count;            /* groups */
  int32_t gap, pitch, next; /* pitch: bytes from a window to the next one; next: of y from group to group */
  int32_t zero;
  uint16x8_t offsets; /* of the lanes in y */
} line_t;

/* Windows of one vector, `pitch` bytes apart, times weights; x goes on by `step` (constants).  In assembly, because of the even
 * registers that VMLADAV needs: clang (22) moves everything else out of their way, and back, again and again. */
MCG_INLINE int32x4_t quad_of_ones(const int8_t **x, int8x16_t w, int32_t pitch, int32_t step) {
  int32x4_t sums;
  int8x16_t v;
  int32_t a, b;
  __asm__("vldrb.8 %q1, [%4], %6\n\tvmladav.s8 %2, %q1, %q5\n\t"
          "vldrb.8 %q1, [%4, %8]\n\tvmladav.s8 %3, %q1, %q5\n\tvmov %q0[2], %q0[0], %2, %3\n\t"
          "vldrb.8 %q1, [%4, %7]\n\tvmladav.s8 %2, %q1, %q5\n\t"
          "vldrb.8 %q1, [%4, %9]\n\tvmladav.s8 %3, %q1, %q5\n\tvmov %q0[3], %q0[1], %2, %3"
          : "=&w"(sums), "=&w"(v), "=&Te"(a), "=&Te"(b), "+&r"(*x)
          : "w"(w), "i"(step), "i"(pitch - step), "i"(2 * pitch - step), "i"(3 * pitch - step)
          : "memory");
  return sums;
}

/* The same of two rows. */
MCG_INLINE void quads_of_ones(const int8_t **x, int8x16_t w, int8x16_t w2, int32_t pitch, int32x4_t *low, int32x4_t *high) {
  int8x16_t v;
  int32_t a, b, c, d;
  __asm__("vldrb.8 %q2, [%7], %10\n\tvmladav.s8 %3, %q2, %q8\n\tvmladav.s8 %5, %q2, %q9\n\t"
          "vldrb.8 %q2, [%7, %12]\n\tvmladav.s8 %4, %q2, %q8\n\tvmladav.s8 %6, %q2, %q9\n\t"
          "vmov %q0[2], %q0[0], %3, %4\n\tvmov %q1[2], %q1[0], %5, %6\n\t"
          "vldrb.8 %q2, [%7, %11]\n\tvmladav.s8 %3, %q2, %q8\n\tvmladav.s8 %5, %q2, %q9\n\t"
          "vldrb.8 %q2, [%7, %13]\n\tvmladav.s8 %4, %q2, %q8\n\tvmladav.s8 %6, %q2, %q9\n\t"
          "vmov %q0[3], %q0[1], %3, %4\n\tvmov %q1[3], %q1[1], %5, %6"
          : "=&w"(*low), "=&w"(*high), "=&w"(v), "=&Te"(a), "=&Te"(b), "=&Te"(c), "=&Te"(d), "+&r"(*x)
          : "w"(w), "w"(w2), "i"(4 * pitch), "i"(-3 * pitch), "i"(-2 * pitch), "i"(-pitch)
          : "memory");
}

/* Windows of some vectors, a constant of each call, times weights of `rows` rows. */
MCG_INLINE const int8_t *quads(const int8_t *x, const int8x16_t *w, int32_t vectors, int32_t rows, int32_t pitch,
                               int32x4_t *low, int32x4_t *high) {
  int32_t a[4], b[4] = {0, 0, 0, 0};
  for (int32_t j = 0; j < 4; ++j, x += pitch) {
    MCG_STEPPED(x);
    for (int32_t i = 0; i < vectors; ++i) {
      const int8x16_t v = vldrbq_s8(x + VECTOR * i);
      a[j] = i == 0 ? vmladavq_s8(v, w[0]) : vmladavaq_s8(a[j], v, w[i]);
      if (rows > 1) b[j] = i == 0 ? vmladavq_s8(v, w[vectors]) : vmladavaq_s8(b[j], v, w[vectors + i]);
    }
  }
  *low = mcg_words(a[0], a[1], a[2], a[3]);
  if (rows > 1) *high = mcg_words(b[0], b[1], b[2], b[3]);
  return x;
}

/* VQDMULH doubles the product, so that the shift is 31 - that of MBQM. */
MCG_INLINE int32x4_t moved(int32x4_t sum, int32_t bias, int32_t multiplier, int32_t shift) {
  return vrshlq_n_s32(vqdmulhq_n_s32(vaddq_n_s32(sum, bias), multiplier), shift);
}

/* The line of each channel, whose planes are `plane` bytes apart; vectors and rows are constants of each call, and so is the
 * pitch unless it is 0. */
MCG_INLINE void line(const line_t *l, const channels_t *c, int32_t plane, int32_t vectors, int32_t rows, int32_t fixed) {
  const int32_t pitch = fixed > 0 ? fixed : l->pitch, next = l->next, zero = l->zero, gap = l->gap;
  const uint16x8_t offsets = l->offsets;
  const int8_t *x = l->x, *weight = c->weight;
  int8_t *y = l->y;
  for (int32_t k = 0; k < CHANNELS; ++k, x += plane, ++y) {
    const int32_t bias = c->bias[k], multiplier = c->multiplier[k], shift = c->shift[k];
    const int8_t *at = x, *second = x + gap;
    int8_t *to = y;
    int8x16_t w[MOST];
    for (int32_t i = 0; i < vectors * rows; ++i, weight += VECTOR) w[i] = vldrbq_s8(weight);
    int32_t i = l->count;
    do {
      int32x4_t low, high;
      if (fixed > 0 && rows > 1) {
        quads_of_ones(&at, w[0], w[1], fixed, &low, &high);
      } else if (fixed > 0) {
        low = quad_of_ones(&at, w[0], fixed, 8 * fixed), high = quad_of_ones(&second, w[0], fixed, 8 * fixed);
      } else {
        if (rows == 1) quads(at + gap, w, vectors, 1, pitch, &high, NULL);
        at = quads(at, w, vectors, rows, pitch, &low, &high) + (rows == 1 ? 4 * pitch : 0);
      }
      low = moved(low, bias, multiplier, shift), high = moved(high, bias, multiplier, shift);
      mcg_store_pairs(to, offsets, low, high, zero);
      to += next;
    } while (--i != 0);
  }
}

static MCG_APART void line_3(const line_t *l, const channels_t *c, int32_t plane) { line(l, c, plane, 1, 1, 3); }
static MCG_APART void line_6(const line_t *l, const channels_t *c, int32_t plane) { line(l, c, plane, 1, 1, 6); }
static MCG_APART void lines_4(const line_t *l, const channels_t *c, int32_t plane) { line(l, c, plane, 1, 2, 4); }
static MCG_APART void lines_10(const line_t *l, const channels_t *c, int32_t plane) { line(l, c, plane, 1, 2, 10); }
static MCG_APART void line_21(const line_t *l, const channels_t *c, int32_t plane) { line(l, c, plane, 2, 1, 0); }
static MCG_APART void line_22(const line_t *l, const channels_t *c, int32_t plane) { line(l, c, plane, 2, 2, 0); }
static MCG_APART void line_41(const line_t *l, const channels_t *c, int32_t plane) { line(l, c, plane, 4, 1, 0); }

/* Of one vector there are only the pitches of 3x3 windows: see choose_rows. */
static void line_of(const block_t *b, const line_t *l, const channels_t *c) {
  if (b->vectors == 1 && b->rows == 1 && l->pitch == 3) line_3(l, c, b->plane);
  else if (b->vectors == 1 && b->rows == 1) line_6(l, c, b->plane);
  else if (b->vectors == 1 && l->pitch == 4) lines_4(l, c, b->plane);
  else if (b->vectors == 1) lines_10(l, c, b->plane);
  else if (b->vectors == 2 && b->rows == 1) line_21(l, c, b->plane);
  else if (b->vectors == 2) line_22(l, c, b->plane);
  else line_41(l, c, b->plane);
}

/* Row `at` of columns [first, last) of the planes = value */
static void blank(const block_t *b, int32_t at, int32_t first, int32_t last) {
  const int16x8_t value = vdupq_n_s16(b->p->x_zero);
  const int32_t deep = b->deep;
  const uint16x8_t offsets = b->offsets;
  int8_t *to = b->planes + first * deep + at;
  MCG_ROLLED for (int32_t i = last - first; i > 0; --i, to += deep) vstrbq_scatter_offset_s16(to, offsets, value);
}

/* Input row iy becomes row `at` of the planes. */
static MCG_APART void fetch(const block_t *b, int32_t iy, int32_t at) {
  const mcg_conv2d_t *p = b->p;
  if (iy < 0 || iy >= p->in_h) {
    blank(b, at, 0, b->width);
    return;
  }
  const int32_t deep = b->deep, channels = p->in_c;
  const uint16x8_t offsets = b->offsets;
  const int8_t *from = mcg_row(b->x, iy, b->r->x_rows, p->in_w * channels);
  int8_t *to = b->planes + b->first * deep + at;
  MCG_ROLLED for (int32_t i = b->last - b->first; i > 0; --i, from += channels, to += deep) {
    vstrbq_scatter_offset_s16(to, offsets, vldrbq_s16(from));
  }
  if (b->first > 0) blank(b, at, 0, b->first);
  if (b->last < b->width) blank(b, at, b->last, b->width);
}

/* Offsets of lanes in y: pixels `step` apart, those in odd lanes `second` on from `up`. */
static inline uint16x8_t lanes(int32_t step, int32_t up, int32_t second) {
  const uint16x8_t lane = vidupq_n_u16(0u, 1), odd = vandq_u16(lane, vdupq_n_u16(1u));
  const uint16x8_t even = vmlaq_n_u16(vdupq_n_u16((uint16_t)up), vshrq_n_u16(lane, 1), (uint16_t)step);
  return vmlaq_n_u16(even, odd, (uint16_t)second);
}

/* What all lines of a call have in common; of fewer than four pixels each is a line of its own, the same in all lanes. */
static line_t line_in(const block_t *b) {
  const mcg_conv2d_t *p = b->p;
  const int32_t width = p->out_w, pitch = p->stride_w * b->deep, pixels = b->rows > 1 ? 4 : 8;
  line_t l = {NULL, NULL, 1, 0, 0, 0, p->y_zero, vdupq_n_u16(0u)};
  if (width < 4) return l;
  const int32_t apart = width < 8 ? width - 4 : 4; /* pixels of two quads of a row */
  l.gap = apart * pitch, l.pitch = pitch, l.offsets = lanes(p->out_c, 0, apart * p->out_c);
  if (width >= pixels) l.count = width >> (b->rows > 1 ? 2 : 3), l.next = pixels * p->out_c;
  return l;
}

/* Output rows oy ... oy + rows - 1 from x of the line on. */
static MCG_APART void compute(const block_t *b, line_t *l, const channels_t *c, int32_t oy) {
  const mcg_conv2d_t *p = b->p;
  const int32_t step = p->out_c, row = p->out_w * step;
  l->y = mcg_row_out(b->y, oy, b->r->y_rows, row);
  if (b->rows > 1) {
    const int32_t below = (int32_t)(mcg_row_out(b->y, oy + 1, b->r->y_rows, row) - l->y), up = below < 0 ? -below : 0;
    l->y -= up, l->offsets = lanes(l->pitch > 0 ? step : 0, up, below);
  }
  const int32_t pitch = p->stride_w * b->deep, count = l->count;
  if (p->out_w < 4) {
    MCG_ROLLED for (int32_t i = p->out_w; i > 0; --i, l->x += pitch, l->y += step) line_of(b, l, c);
    return;
  }
  line_of(b, l, c);
  const int32_t pixels = l->next > 0 ? b->rows > 1 ? 4 : 8 : p->out_w, last = p->out_w - pixels;
  if (count * pixels == p->out_w) return;
  l->x += last * pitch, l->y += last * step, l->count = 1; /* the last group overlaps the one before */
  line_of(b, l, c);
  l->count = count;
}

/* Bytes of a plane before anything slides: its columns, and what the vectors of the last window read beyond them. */
static inline int32_t planes_end(const block_t *b) {
  return (b->width - b->p->kernel_w) * b->deep + b->vectors * VECTOR;
}

/* The planes from row `at` on move to their beginning. */
static MCG_APART void begin_again(const block_t *b, int32_t at) {
  int8_t *plane = b->planes;
  MCG_ROLLED for (int32_t c = 0; c < CHANNELS; ++c, plane += b->plane) mcg_copy_lanes(plane, plane + at, b->width * b->deep);
}

/* All rows of the range, each input row fetched once; where the planes are full, they begin again. */
static void all_rows(const block_t *b, line_t *l, const channels_t *c) {
  const mcg_conv2d_t *p = b->p;
  const int32_t room = b->plane - planes_end(b);
  int32_t start = b->r->first, next = 0; /* row 0 of the planes belongs to output row `start`; rows up to `next` are there */
  for (int32_t oy = b->r->first; oy < b->r->last; oy += b->rows) {
    if (oy + b->rows > b->r->last) oy = b->r->last - b->rows;
    const int32_t by = (oy - start) * p->stride_h;
    if (by > room) {
      if (next > by) begin_again(b, by);
      next = next > by ? next - by : 0, start = oy;
    }
    const int32_t at = (oy - start) * p->stride_h, top = start * p->stride_h - p->pad_top;
    for (; next < at + b->deep; ++next) fetch(b, top + next, next);
    l->x = b->planes + at;
    compute(b, l, c, oy);
  }
}

/* The weights of eight channels in columns, and what requantizes their sums. */
static MCG_APART void load_channels(const block_t *b, const int8_t *weight, const int32_t *bias, int32_t first, channels_t *c) {
  const mcg_conv2d_t *p = b->p;
  const int32_t row = b->vectors * VECTOR, deep = b->deep, columns = p->kernel_w, channels = p->in_c;
  const int32_t part = b->rows * row, below = row + p->stride_h;
  const uint16x8_t offsets = vmulq_n_u16(vidupq_n_u16(0u, 1), (uint16_t)part);
  int16x8_t sums = vdupq_n_s16(0); /* of at most 64 weights */
  int16_t sum[CHANNELS];
  mcg_fill_lanes(c->weight, 0, CHANNELS * part);
  MCG_ROLLED for (int32_t ky = 0; ky < p->kernel_h; ++ky) {
    int8_t *to = c->weight + ky;
    if (b->rows > 1) {
      for (int32_t kx = columns; kx > 0; --kx, weight += channels, to += deep) {
        const int16x8_t w = vldrbq_s16(weight);
        sums = vaddq_s16(sums, w);
        vstrbq_scatter_offset_s16(to, offsets, w), vstrbq_scatter_offset_s16(to + below, offsets, w);
      }
    } else {
      for (int32_t kx = columns; kx > 0; --kx, weight += channels, to += deep) {
        const int16x8_t w = vldrbq_s16(weight);
        sums = vaddq_s16(sums, w);
        vstrbq_scatter_offset_s16(to, offsets, w);
      }
    }
  }
  vstrhq_s16(sum, sums);
  MCG_ROLLED for (int32_t i = 0; i < CHANNELS; i += 4, first += 4) {
    const int32x4_t shift = vreinterpretq_s32_u32(vldrbq_u32(p->shift + first));
    vstrwq_s32(c->bias + i, vmlaq_n_s32(vldrwq_s32(bias + first), vldrhq_s32(sum + i), -p->x_zero));
    vstrwq_s32(c->multiplier + i, vldrwq_s32(p->multiplier + first));
    vstrbq_s32(c->shift + i, vsubq_s32(vdupq_n_s32(31), shift));
  }
}

/* Two rows share a load where the planes have room for one row more and the weights stay in registers.  One vector is for the
 * pitches that its lines are made for; a second one of zeros serves the others. */
static void choose_rows(block_t *b, int32_t rows) {
  const mcg_conv2d_t *p = b->p;
  b->rows = rows, b->deep = p->kernel_h + (rows - 1) * p->stride_h;
  const int32_t pitch = p->stride_w * b->deep, fixed = rows > 1 ? pitch == 4 || pitch == 10 : pitch == 3 || pitch == 6;
  b->vectors = (p->kernel_w * b->deep + VECTOR - 1) / VECTOR;
  if (b->vectors == 1 && (!fixed || p->out_w < 4)) b->vectors = 2;
}

/* Whether the lanes of two rows, or of one, are near enough for offsets of 16 bits. */
static int is_near(const mcg_conv2d_t *p, const mcg_rows_t *r, int32_t rows) {
  const int32_t apart = r->y_rows < p->out_h ? r->y_rows - 1 : 1;
  return 7 * p->out_c + (rows > 1 ? apart * p->out_w * p->out_c : 0) <= UINT16_MAX;
}

int32_t mcg_depthwise_mve(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight,
                          const int32_t *bias, int8_t *y, void *scratch) {
  const int32_t steps = p->kernel_w / 2 + 1, ring = p->in_h < p->kernel_h ? p->in_h : p->kernel_h;
  const int32_t columns = ((p->out_w + 3) & ~3) * p->stride_w + 2 * steps - 2;
  block_t b = {p, r, NULL, NULL, (int8_t *)scratch, 0, 0, 0, 0, 0, 0, 0, vdupq_n_u16(0u)};
  if (p->in_c < CHANNELS || p->stride_w > 2) return 0;
  b.plane = ring * columns + 8 * p->kernel_h * steps; /* an eighth of the scratch */
  b.width = (p->out_w - 1) * p->stride_w + p->kernel_w;
  b.first = p->pad_left < b.width ? p->pad_left : b.width;
  b.last = b.first + p->in_w < b.width ? b.first + p->in_w : b.width;
  if (!is_near(p, r, 1)) return 0;
  choose_rows(&b, r->last - r->first > 1 && is_near(p, r, 2) ? 2 : 1);
  if (b.rows > 1 && (b.vectors > 2 || planes_end(&b) > b.plane)) choose_rows(&b, 1);
  if (b.vectors == 3) b.vectors = 4;
  if (b.vectors > MOST || planes_end(&b) > b.plane) return 0;
  if (x == y && p->in_c % CHANNELS != 0) return 0; /* no channels may be computed twice */
  if (mcg_least_lanes(p->shift, p->in_c) < 33) return 0;
  line_t l = line_in(&b);
  channels_t channels;
  b.offsets = vmulq_n_u16(vidupq_n_u16(0u, 1), (uint16_t)b.plane);
  for (int32_t next = 0; next < p->in_c; next += CHANNELS) {
    const int32_t c = next + CHANNELS > p->in_c ? p->in_c - CHANNELS : next; /* the last may overlap those before */
    load_channels(&b, weight + c, bias, c, &channels);
    b.x = x + c, b.y = y + c;
    all_rows(&b, &l, &channels);
  }
  return 1;
}

#endif
