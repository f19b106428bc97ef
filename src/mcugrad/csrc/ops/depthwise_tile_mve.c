/* Depthwise convolution of 4x4 outputs, and its input gradient, by MVE: the lanes of a vector are the four columns of a row.
 *
 * So small a map stays in four registers through the whole window.  A channel of the input lies in a plane with two columns of
 * zeros on either side, and each row of it, moved sideways by a tap, is multiplied with the weights of all rows of taps that
 * see it.  With stride 2 every parity of rows and columns of the larger map is a 4x4 map of its own.
 */
#include "depthwise_tile_mve.h"

#include "ops/mve.h"

#if MCG_MVE

#define SIDE 4
#define MARGIN 2 /* columns before and after a row of a plane, and how far taps may reach */
#define PITCH (SIDE + 2 * MARGIN)
#define GROUP 4 /* channels of a gradient's block */

typedef struct {
  int32x4_t row[SIDE];
} map_t;

/* Taps of one parity along an axis: the first one, which sees what lies `low` on, and how many. */
typedef struct {
  int32_t tap, low, count;
} axis_t;

/* a += what lies low ... high rows on in the plane times the weights of these rows of taps; low and high are constants of each
 * call. */
MCG_INLINE map_t correlate(map_t a, const int16_t *plane, const int8_t *weight, const mcg_tile_part_t *t, int low, int high) {
  const int32_t right = t->right, down = t->down;
  const int16_t *x = plane + t->left;
  const int8_t *w = weight + t->first;
  for (int32_t i = t->columns; i > 0; --i, ++x, w += right) {
    int32_t k[2 * MARGIN + 1];
    const int8_t *at = w;
    for (int d = low; d <= high; ++d, at += down) k[d - low] = *at;
    for (int from = 0; from < SIDE; ++from) {
      const int32x4_t v = vldrhq_s32(x + PITCH * from);
      for (int to = 0; to < SIDE; ++to) {
        if (from - to >= low && from - to <= high) a.row[to] = vmlaq_n_s32(a.row[to], v, k[from - to - low]);
      }
    }
  }
  return a;
}

static MCG_APART map_t near_11(map_t a, const int16_t *plane, const int8_t *weight, const mcg_tile_part_t *t) {
  return correlate(a, plane, weight, t, -1, 1);
}

static MCG_APART map_t near_12(map_t a, const int16_t *plane, const int8_t *weight, const mcg_tile_part_t *t) {
  return correlate(a, plane, weight, t, -1, 2);
}

static MCG_APART map_t near_21(map_t a, const int16_t *plane, const int8_t *weight, const mcg_tile_part_t *t) {
  return correlate(a, plane, weight, t, -2, 1);
}

static MCG_APART map_t near_22(map_t a, const int16_t *plane, const int8_t *weight, const mcg_tile_part_t *t) {
  return correlate(a, plane, weight, t, -2, 2);
}

MCG_INLINE map_t near(map_t a, const int16_t *plane, const int8_t *weight, const mcg_tile_part_t *t) {
  if (t->rows == 3) return near_11(a, plane, weight, t);
  if (t->rows == 5) return near_22(a, plane, weight, t);
  return t->low == -1 ? near_12(a, plane, weight, t) : near_21(a, plane, weight, t);
}

/* Whether there is a function for these rows of taps. */
static int has_near(const axis_t *rows) {
  const int32_t low = rows->low, high = low + rows->count - 1;
  return (low == -1 || low == -2) && (high == 1 || high == 2);
}

/* The taps that meet outputs (forward) or inputs (gradient) of a parity; a gradient takes them from the last one on. */
static MCG_APART axis_t axis(int32_t kernel, int32_t stride, int32_t pad, int32_t parity, int gradient) {
  const int32_t half = stride - 1, first = (parity + pad) & half, count = ((kernel - 1 - first) >> half) + 1;
  const int32_t tap = gradient ? first + (count - 1) * stride : first, low = (tap - pad - parity) >> half;
  const axis_t a = {tap, gradient ? -low : low, count};
  return a;
}

/* Where a plane of zeros and all parts fit. */
static MCG_APART int32_t open(mcg_tile_t *s, const mcg_conv2d_t *p, int gradient) {
  const int32_t stride = p->stride_h, side = SIDE * stride, channels = p->in_c, next = gradient ? -stride : stride;
  if (p->out_h != SIDE || p->out_w != SIDE || p->in_h != side || p->in_w != side) return 0;
  if (stride > 2 || p->stride_w != stride || p->dilation_h > 1 || p->dilation_w > 1) return 0;
  mcg_tile_part_t *t = s->part;
  MCG_ROLLED for (int32_t i = 0; i < stride; ++i) {
    const axis_t rows = axis(p->kernel_h, stride, p->pad_top, i, gradient);
    MCG_ROLLED for (int32_t j = 0; j < stride; ++j, ++t) {
      const axis_t columns = axis(p->kernel_w, stride, p->pad_left, j, gradient);
      if (!has_near(&rows) || columns.low < -MARGIN || columns.low + columns.count - 1 > MARGIN) return 0;
      t->right = next * channels, t->down = next * p->kernel_w * channels;
      t->first = (rows.tap * p->kernel_w + columns.tap) * channels, t->left = MARGIN + columns.low;
      t->columns = columns.count, t->rows = rows.count, t->low = rows.low;
    }
  }
  s->parts = stride * stride;
  for (int32_t i = 0; i < SIDE * PITCH; i += 8) vstrhq_s16(s->plane + i, vdupq_n_s16(0));
  return 1;
}

/* The plane's rows = from - zero; offsets: of the columns. */
MCG_INLINE void fill(int16_t *plane, const int8_t *from, uint32x4_t offsets, int32_t pitch, int32_t zero) {
  plane += MARGIN;
  for (int32_t i = 0; i < SIDE; ++i, from += pitch) {
    vstrhq_s32(plane + PITCH * i, vsubq_n_s32(vldrbq_gather_offset_s32(from, offsets), zero));
  }
}

MCG_INLINE uint32x4_t apart(int32_t bytes) { return vmulq_n_u32(vidupq_n_u32(0u, 1), (uint32_t)bytes); }

/* y [4][4] of a channel; offsets: of the columns. */
MCG_INLINE void store(const map_t *a, int32_t multiplier, int32_t shift, int32_t zero, uint32x4_t offsets, int32_t pitch,
                      int8_t *y) {
  const int32x4_t m = vdupq_n_s32(multiplier);
  for (int32_t i = 0; i < SIDE; ++i, y += pitch) {
    const int32x4_t v = vrshlq_n_s32(vmulhq_s32(a->row[i], m), 32 - shift);
    vstrbq_scatter_offset_s32(y, offsets, mcg_clamp8_lanes(vaddq_n_s32(v, zero)));
  }
}

/* y may be x: a channel is read as a whole before it is written. */
int32_t mcg_depthwise_tile(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight,
                             const int32_t *bias, int8_t *y, void *scratch) {
  const int32_t channels = p->in_c, stride = p->stride_h, row = p->in_w * channels;
  mcg_tile_t *const s = (mcg_tile_t *)scratch;
  if (r->first > 0 || r->last < SIDE || r->x_rows < p->in_h || r->y_rows < SIDE) return 0;
  if (mcg_least_lanes(p->shift, channels) < 33) return 0;
  if (!open(s, p, 0)) return 0;
  const uint32x4_t from = apart(stride * channels), to = apart(channels);
  for (int32_t c = 0; c < channels; ++c) {
    const int32x4_t start = vdupq_n_s32(bias[c]);
    map_t a = {{start, start, start, start}};
    for (int32_t i = 0; i < s->parts; ++i) {
      fill(s->plane, x + c + (i >> 1) * row + (i & 1) * channels, from, stride * row, p->x_zero);
      a = near(a, s->plane, weight + c, &s->part[i]);
    }
    store(&a, p->multiplier[c], p->shift[c], p->y_zero, to, SIDE * channels, y + c);
  }
  return 1;
}

int32_t mcg_tile_grad_open(mcg_tile_t *s, const mcg_conv2d_t *p) { return open(s, p, 1); }

void mcg_tile_grad(mcg_tile_t *s, const mcg_conv2d_t *p, const int8_t *h, const int8_t *weight, int32_t *acc) {
  const int32_t channels = p->in_c, stride = p->stride_h, row = GROUP * p->in_w;
  const uint32x4_t from = apart(channels), to = apart(4 * GROUP * stride);
  const int32x4_t none = vdupq_n_s32(0);
  for (int32_t c = 0; c < GROUP; ++c, ++h, ++weight, ++acc) {
    fill(s->plane, h, from, SIDE * channels, 0);
    for (int32_t i = 0; i < s->parts; ++i) {
      map_t a = {{none, none, none, none}};
      a = near(a, s->plane, weight, &s->part[i]);
      int32_t *out = acc + (i >> 1) * row + (i & 1) * GROUP;
      for (int32_t j = 0; j < SIDE; ++j, out += stride * row) vstrwq_scatter_offset_s32(out, to, a.row[j]);
    }
  }
}

#endif
