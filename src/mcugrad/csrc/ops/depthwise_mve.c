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

/* What the outputs of one channel need. */
typedef struct {
  int8_t weight[MOST * VECTOR]; /* [rows][vectors][16]: the window in columns, with zeros where a row does not reach */
  int32_t bias, multiplier, shift;
} channel_t;

/* `count` outputs in a row, at `rows` rows, from windows that begin `pitch` bytes apart; offsets: of four outputs in y. */
typedef struct {
  const int8_t *x;
  int8_t *y;
  int32_t count, pitch, step, zero;
  uint32x4_t offsets;
} line_t;

/* Groups of four outputs of a channel; vectors and rows are constants of each call. */
MCG_INLINE void groups(const line_t *l, const channel_t *c, int32_t vectors, int32_t rows, const int8_t *x, int8_t *y,
                       int32_t count) {
  const int32_t pixels = 4 / rows, pitch = l->pitch, zero = l->zero, next = pixels * l->step;
  const mcg_lanes_t lanes = {vdupq_n_s32(c->bias), vdupq_n_s32(c->multiplier), vdupq_n_s32(c->shift)};
  const uint32x4_t offsets = l->offsets;
  int8x16_t w[MOST];
  for (int32_t i = 0; i < vectors * rows; ++i) w[i] = vldrbq_s8(c->weight + VECTOR * i);
  for (; count > 0; --count, y += next) {
    int32_t acc[4] = {0, 0, 0, 0};
    for (int32_t j = 0; j < pixels; ++j, x += pitch) {
      if (rows == 1) MCG_STEPPED(x);
      for (int32_t i = 0; i < vectors; ++i) {
        const int8x16_t v = vldrbq_s8(x + VECTOR * i);
        for (int32_t k = 0; k < rows; ++k) {
          int32_t *to = &acc[j * rows + k];
          *to = i == 0 ? vmladavq_s8(v, w[k * vectors]) : vmladavaq_s8(*to, v, w[k * vectors + i]);
        }
      }
    }
    const int32x4_t sums = mcg_words(acc[0], acc[1], acc[2], acc[3]);
    vstrbq_scatter_offset_s32(y, offsets, mcg_requantize_lanes(sums, &lanes, zero));
  }
}

/* The line of each channel, whose planes are `plane` bytes apart; the last group may overlap the one before. */
MCG_INLINE void line(const line_t *l, const channel_t *c, int32_t plane, int32_t vectors, int32_t rows) {
  const int32_t pixels = 4 / rows, whole = l->count / pixels, last = l->count - pixels;
  const int32_t over = last * l->pitch, under = last * l->step;
  const int8_t *x = l->x;
  int8_t *y = l->y;
  for (const channel_t *const end = c + CHANNELS; c < end; ++c, x += plane, ++y) {
    groups(l, c, vectors, rows, x, y, whole);
    if (whole * pixels < l->count) groups(l, c, vectors, rows, x + over, y + under, 1);
  }
}

static MCG_APART void line_11(const line_t *l, const channel_t *c, int32_t plane) { line(l, c, plane, 1, 1); }
static MCG_APART void line_12(const line_t *l, const channel_t *c, int32_t plane) { line(l, c, plane, 1, 2); }
static MCG_APART void line_21(const line_t *l, const channel_t *c, int32_t plane) { line(l, c, plane, 2, 1); }
static MCG_APART void line_22(const line_t *l, const channel_t *c, int32_t plane) { line(l, c, plane, 2, 2); }
static MCG_APART void line_41(const line_t *l, const channel_t *c, int32_t plane) { line(l, c, plane, 4, 1); }

static void line_of(const block_t *b, const line_t *l, const channel_t *c) {
  if (b->vectors == 1 && b->rows == 1) line_11(l, c, b->plane);
  else if (b->vectors == 1) line_12(l, c, b->plane);
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
  for (int32_t i = last - first; i > 0; --i, to += deep) vstrbq_scatter_offset_s16(to, offsets, value);
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
  for (int32_t i = b->last - b->first; i > 0; --i, from += channels, to += deep) {
    vstrbq_scatter_offset_s16(to, offsets, vldrbq_s16(from));
  }
  if (b->first > 0) blank(b, at, 0, b->first);
  if (b->last < b->width) blank(b, at, b->last, b->width);
}

/* Output rows oy ... oy + rows - 1 from row `at` of the planes on. */
static void compute(const block_t *b, const channel_t channel[CHANNELS], int32_t oy, int32_t at) {
  const mcg_conv2d_t *p = b->p;
  const int32_t row = p->out_w * p->out_c, two = b->rows > 1;
  int8_t *const y = mcg_row_out(b->y, oy, b->r->y_rows, row);
  const int32_t below = two ? (int32_t)(mcg_row_out(b->y, oy + 1, b->r->y_rows, row) - y) : p->out_c;
  const int32_t next = two ? p->out_c : 2 * p->out_c, pitch = p->stride_w * b->deep;
  line_t l = {b->planes + at, y, p->out_w, pitch, p->out_c, p->y_zero,
              vreinterpretq_u32_s32(mcg_words(0, below, next, next + below))};
  if (p->out_w * b->rows >= 4) {
    line_of(b, &l, channel);
    return;
  }
  l.count = 4 / b->rows, l.pitch = 0, l.step = 0; /* the same output in all lanes */
  l.offsets = vreinterpretq_u32_s32(two ? mcg_words(0, below, 0, below) : vdupq_n_s32(0));
  for (int32_t i = 0; i < p->out_w; ++i, l.x += pitch, l.y += p->out_c) line_of(b, &l, channel);
}

/* Bytes of a plane before anything slides: its columns, and what the vectors of the last window read beyond them. */
static inline int32_t planes_end(const block_t *b) {
  return (b->width - b->p->kernel_w) * b->deep + b->vectors * VECTOR;
}

/* The planes from row `at` on move to their beginning. */
static MCG_APART void begin_again(const block_t *b, int32_t at) {
  int8_t *plane = b->planes;
  for (int32_t c = 0; c < CHANNELS; ++c, plane += b->plane) mcg_copy_lanes(plane, plane + at, b->width * b->deep);
}

/* All rows of the range, each input row fetched once; where the planes are full, they begin again. */
static void all_rows(const block_t *b, const channel_t channel[CHANNELS]) {
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
    compute(b, channel, oy, at);
  }
}

/* The weights of eight channels in columns, and what requantizes their sums. */
static MCG_APART void load_channels(const block_t *b, const int8_t *weight, const int32_t *bias, int32_t c,
                                    channel_t channel[CHANNELS]) {
  const mcg_conv2d_t *p = b->p;
  const int32_t row = b->vectors * VECTOR, deep = b->deep, columns = p->kernel_w, channels = p->in_c;
  const int32_t below = row + p->stride_h, both = b->rows > 1;
  const uint16x8_t offsets = vmulq_n_u16(vidupq_n_u16(0u, 1), sizeof(channel_t));
  const int8x16_t none = vdupq_n_s8(0);
  int16x8_t sums = vdupq_n_s16(0); /* of at most 64 weights */
  int16_t sum[CHANNELS];
  for (int32_t i = 0; i < CHANNELS; ++i) {
    for (int32_t k = 0; k < b->rows * row; k += VECTOR) vstrbq_s8(channel[i].weight + k, none);
  }
  for (int32_t ky = 0; ky < p->kernel_h; ++ky) {
    int8_t *to = channel[0].weight + ky;
    for (int32_t kx = columns; kx > 0; --kx, weight += channels, to += deep) {
      const int16x8_t w = vldrbq_s16(weight);
      sums = vaddq_s16(sums, w);
      vstrbq_scatter_offset_s16(to, offsets, w);
      if (both) vstrbq_scatter_offset_s16(to + below, offsets, w);
    }
  }
  vstrhq_s16(sum, sums);
  for (int32_t i = 0; i < CHANNELS; i += 4) {
    const uint32x4_t apart = vmulq_n_u32(vidupq_n_u32(0u, 1), sizeof(channel_t));
    const int32x4_t shift = vreinterpretq_s32_u32(vldrbq_u32(p->shift + c + i));
    const int32x4_t moved = vmlaq_n_s32(vldrwq_s32(bias + c + i), vldrhq_s32(sum + i), -p->x_zero);
    vstrwq_scatter_offset_s32(&channel[i].bias, apart, moved);
    vstrwq_scatter_offset_s32(&channel[i].multiplier, apart, vldrwq_s32(p->multiplier + c + i));
    vstrwq_scatter_offset_s32(&channel[i].shift, apart, vsubq_s32(vdupq_n_s32(32), shift));
  }
}

/* Two rows share a load where the planes have room for one row more and the weights stay in registers. */
static void choose_rows(block_t *b, int32_t rows) {
  const mcg_conv2d_t *p = b->p;
  b->rows = rows, b->deep = p->kernel_h + (rows - 1) * p->stride_h;
  b->vectors = (p->kernel_w * b->deep + VECTOR - 1) / VECTOR;
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
  choose_rows(&b, r->last - r->first > 1 ? 2 : 1);
  if (b.rows > 1 && (b.vectors > 2 || planes_end(&b) > b.plane)) choose_rows(&b, 1);
  if (b.vectors == 3) b.vectors = 4;
  if (b.vectors > MOST || planes_end(&b) > b.plane) return 0;
  if (x == y && p->in_c % CHANNELS != 0) return 0; /* no channels may be computed twice */
  for (int32_t c = 0; c < p->in_c; ++c) {
    if (p->shift[c] < 33) return 0;
  }
  b.offsets = vmulq_n_u16(vidupq_n_u16(0u, 1), (uint16_t)b.plane);
  for (int32_t next = 0; next < p->in_c; next += CHANNELS) {
    const int32_t c = next + CHANNELS > p->in_c ? p->in_c - CHANNELS : next; /* the last may overlap those before */
    channel_t channel[CHANNELS];
    load_channels(&b, weight + c, bias, c, channel);
    b.x = x + c, b.y = y + c;
    all_rows(&b, channel);
  }
  return 1;
}

#endif
