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
  int8x16_t w[MOST];
  for (int32_t i = 0; i < vectors * rows; ++i) w[i] = vldrbq_s8(c->weight + VECTOR * i);
  for (; count > 0; --count, y += next) {
    int32_t acc[4] = {0, 0, 0, 0};
    for (int32_t j = 0; j < pixels; ++j, x += pitch) {
      for (int32_t i = 0; i < vectors; ++i) {
        const int8x16_t v = vldrbq_s8(x + VECTOR * i);
        for (int32_t k = 0; k < rows; ++k) {
          int32_t *to = &acc[j * rows + k];
          *to = i == 0 ? vmladavq_s8(v, w[k * vectors]) : vmladavaq_s8(*to, v, w[k * vectors + i]);
        }
      }
    }
    const int32x4_t sums = mcg_words(acc[0], acc[1], acc[2], acc[3]);
    vstrbq_scatter_offset_s32(y, l->offsets, mcg_requantize_lanes(sums, &lanes, zero));
  }
}

/* All outputs of the line; the last group may overlap the one before. */
MCG_INLINE void line(const line_t *l, const channel_t *c, int32_t vectors, int32_t rows) {
  const int32_t pixels = 4 / rows, whole = l->count / pixels, rest = l->count - whole * pixels;
  groups(l, c, vectors, rows, l->x, l->y, whole);
  if (rest > 0) {
    const int32_t first = l->count - pixels;
    groups(l, c, vectors, rows, l->x + first * l->pitch, l->y + first * l->step, 1);
  }
}

static MCG_APART void line_11(const line_t *l, const channel_t *c) { line(l, c, 1, 1); }
static MCG_APART void line_12(const line_t *l, const channel_t *c) { line(l, c, 1, 2); }
static MCG_APART void line_21(const line_t *l, const channel_t *c) { line(l, c, 2, 1); }
static MCG_APART void line_22(const line_t *l, const channel_t *c) { line(l, c, 2, 2); }
static MCG_APART void line_41(const line_t *l, const channel_t *c) { line(l, c, 4, 1); }

static void line_of(const block_t *b, const line_t *l, const channel_t *c) {
  if (b->vectors == 1 && b->rows == 1) line_11(l, c);
  else if (b->vectors == 1) line_12(l, c);
  else if (b->vectors == 2 && b->rows == 1) line_21(l, c);
  else if (b->vectors == 2) line_22(l, c);
  else line_41(l, c);
}

/* Row `at` of columns [first, last) of the planes = value */
static void blank(const block_t *b, int32_t at, int32_t first, int32_t last) {
  const int16x8_t value = vdupq_n_s16(b->p->x_zero);
  int8_t *to = b->planes + first * b->deep + at;
  for (; first < last; ++first, to += b->deep) vstrbq_scatter_offset_s16(to, b->offsets, value);
}

/* Input row iy becomes row `at` of the planes. */
static MCG_APART void fetch(const block_t *b, int32_t iy, int32_t at) {
  const mcg_conv2d_t *p = b->p;
  if (iy < 0 || iy >= p->in_h) {
    blank(b, at, 0, b->width);
    return;
  }
  const int32_t left = p->pad_left < b->width ? p->pad_left : b->width, deep = b->deep, channels = p->in_c;
  const int32_t right = left + p->in_w < b->width ? left + p->in_w : b->width;
  const int8_t *from = mcg_row(b->x, iy, b->r->x_rows, p->in_w * channels);
  int8_t *to = b->planes + left * deep + at;
  blank(b, at, 0, left);
  for (int32_t i = right - left; i > 0; --i, from += channels, to += deep) {
    vstrbq_scatter_offset_s16(to, b->offsets, vldrbq_s16(from));
  }
  blank(b, at, right, b->width);
}

/* Output rows oy ... oy + rows - 1 from row `at` of the planes on. */
static void compute(const block_t *b, const channel_t channel[CHANNELS], int32_t oy, int32_t at) {
  const mcg_conv2d_t *p = b->p;
  const int32_t row = p->out_w * p->out_c, few = p->out_w * b->rows < 4;
  int8_t *const y = mcg_row_out(b->y, oy, b->r->y_rows, row);
  const int32_t below = b->rows > 1 ? (int32_t)(mcg_row_out(b->y, oy + 1, b->r->y_rows, row) - y) : p->out_c;
  const int32_t next = b->rows > 1 ? p->out_c : 2 * p->out_c;
  line_t l = {b->planes + at, y, p->out_w, p->stride_w * b->deep, p->out_c, p->y_zero,
              vreinterpretq_u32_s32(mcg_words(0, below, next, next + below))};
  for (const channel_t *c = channel; c < channel + CHANNELS; ++c, l.x += b->plane, ++l.y) {
    if (!few) {
      line_of(b, &l, c);
      continue;
    }
    line_t one = l; /* the same output in all lanes */
    one.count = 4 / b->rows, one.pitch = 0, one.step = 0;
    one.offsets = vreinterpretq_u32_s32(b->rows > 1 ? mcg_words(0, below, 0, below) : vdupq_n_s32(0));
    for (int32_t i = 0; i < p->out_w; ++i, one.x += l.pitch, one.y += l.step) line_of(b, &one, c);
  }
}

/* All rows of the range; where the planes are full, they begin again. */
static void all_rows(const block_t *b, const channel_t channel[CHANNELS]) {
  const mcg_conv2d_t *p = b->p;
  const int32_t room = b->plane - VECTOR - b->width * b->deep;
  int32_t start = b->r->first, next = 0; /* row 0 of the planes belongs to output row `start`; rows up to `next` are there */
  for (int32_t oy = b->r->first; oy < b->r->last; oy += b->rows) {
    if (oy + b->rows > b->r->last) oy = b->r->last - b->rows;
    if ((oy - start) * p->stride_h > room) start = oy, next = 0;
    const int32_t at = (oy - start) * p->stride_h, top = start * p->stride_h - p->pad_top;
    for (; next < at + b->deep; ++next) fetch(b, top + next, next);
    compute(b, channel, oy, at);
  }
}

/* The weights of eight channels in columns, and what requantizes their sums. */
static MCG_APART void load_channels(const block_t *b, const int8_t *weight, const int32_t *bias, int32_t c,
                                    channel_t channel[CHANNELS]) {
  const mcg_conv2d_t *p = b->p;
  const int32_t row = b->vectors * VECTOR;
  const uint16x8_t offsets = vmulq_n_u16(vidupq_n_u16(0u, 1), sizeof(channel_t));
  for (int32_t i = 0; i < CHANNELS; ++i) mcg_fill_lanes(channel[i].weight, 0, MOST * VECTOR);
  for (int32_t ky = 0; ky < p->kernel_h; ++ky) {
    for (int32_t kx = 0; kx < p->kernel_w; ++kx, weight += p->in_c) {
      int8_t *to = channel[0].weight + kx * b->deep + ky;
      const int16x8_t w = vldrbq_s16(weight);
      vstrbq_scatter_offset_s16(to, offsets, w);
      if (b->rows > 1) vstrbq_scatter_offset_s16(to + row + p->stride_h, offsets, w);
    }
  }
  for (int32_t i = 0; i < CHANNELS; ++i) {
    const uint32_t sum = (uint32_t)mcg_sum_lanes(channel[i].weight, row);
    channel[i].bias = (int32_t)((uint32_t)bias[c + i] - (uint32_t)p->x_zero * sum);
    channel[i].multiplier = p->multiplier[c + i];
    channel[i].shift = 32 - p->shift[c + i];
  }
}

/* Two rows share a load where the planes have room for one row more and the weights stay in registers. */
static void choose_rows(block_t *b, int32_t rows) {
  const mcg_conv2d_t *p = b->p;
  b->rows = rows, b->deep = p->kernel_h + (rows - 1) * p->stride_h;
  b->vectors = (p->kernel_w * b->deep + VECTOR - 1) / VECTOR;
}

/* Whether no byte of the input is read again: the planes never begin again, and no channels are computed twice. */
static int reads_once(const block_t *b) {
  const mcg_conv2d_t *p = b->p;
  const int32_t room = b->plane - VECTOR - b->width * b->deep;
  return p->in_c % CHANNELS == 0 && (b->r->last - b->r->first - b->rows) * p->stride_h <= room;
}

int32_t mcg_depthwise_mve(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight,
                          const int32_t *bias, int8_t *y, void *scratch) {
  const int32_t steps = p->kernel_w / 2 + 1, ring = p->in_h < p->kernel_h ? p->in_h : p->kernel_h;
  const int32_t columns = ((p->out_w + 3) & ~3) * p->stride_w + 2 * steps - 2;
  block_t b = {p, r, NULL, NULL, (int8_t *)scratch, 0, 0, 0, 0, 0, vdupq_n_u16(0u)};
  if (p->in_c < CHANNELS || p->stride_w > 2) return 0;
  b.plane = ring * columns + 8 * p->kernel_h * steps; /* an eighth of the scratch */
  b.width = (p->out_w - 1) * p->stride_w + p->kernel_w;
  choose_rows(&b, r->last - r->first > 1 ? 2 : 1);
  if (b.rows > 1 && (b.vectors > 2 || b.width * b.deep + VECTOR > b.plane)) choose_rows(&b, 1);
  if (b.vectors > MOST || b.width * b.deep + VECTOR > b.plane) return 0;
  if (b.vectors == 3) b.vectors = 4;
  if (x == y && !reads_once(&b)) return 0;
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
