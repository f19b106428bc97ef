/* Convolution of three channels by 3x3 windows of stride 2 by MVE: VMLADAVA multiplies the 27 inputs of a pixel with the
 * weights of an output, four pixels and two outputs at a time.
 *
 * The three rows under a strip of pixels are copied as columns of nine bytes, so that a window is one piece, and neighbours
 * share what their windows share.
 */
#include "conv2d_colour_mve.h"

#include "fixed.h"
#include "ops/mve.h"
#include "ops/rows.h"

#if MCG_MVE

#define COLUMN 9
#define PITCH (2 * COLUMN)
#define INPUTS 27
#define VECTOR 16
#define STRIP 24 /* pixels; whose columns fit in 504 bytes, less than conv2d.py gives */
#define GROUP 5  /* pixels of the input that a vector holds */

/* Weights in the order of columns. */
static const uint8_t ORDER[2 * VECTOR] = {0, 1,  2,  9,  10, 11, 18, 19, 20, 3,  4,  5,  12, 13, 14, 21,
                                          22, 23, 6, 7, 8, 15, 16, 17, 24, 25, 26, 0, 0, 0, 0, 0};

/* The first or last weights of an output. */
MCG_INLINE int8x16_t weights(const int8_t *w, int half) {
  const uint8x16_t order = vldrbq_u8(ORDER + VECTOR * half);
  return vldrbq_gather_offset_z_s8(w, order, mcg_first_bytes(half ? INPUTS - VECTOR : VECTOR));
}

/* What takes the sums of an output to bytes: VQDMULH doubles the product, so that the shift is 31 - that of MBQM. */
typedef struct {
  int32_t bias, multiplier, shift;
} output_t;

static inline output_t output(const mcg_conv2d_t *p, const int32_t *bias, int32_t o, int32_t sum) {
  const output_t out = {(int32_t)((uint32_t)bias[o] - (uint32_t)p->x_zero * (uint32_t)sum), p->multiplier[o],
                        31 - p->shift[o]};
  return out;
}

/* Outputs o and o2 of pixels whose columns are there; the last four may overlap those before. */
static MCG_APART void two_outputs(const mcg_conv2d_t *p, const int8_t *weight, const int32_t *bias, int32_t o, int32_t o2,
                                  const int8_t *columns, int32_t pixels, int8_t *y) {
  const int8_t *v = weight + o * INPUTS, *w = weight + o2 * INPUTS;
  const int8x16_t v0 = weights(v, 0), v1 = weights(v, 1), w0 = weights(w, 0), w1 = weights(w, 1);
  const output_t a = output(p, bias, o, vaddvaq_s8(vaddvq_s8(v0), v1)), b = output(p, bias, o2, vaddvaq_s8(vaddvq_s8(w0), w1));
  const int32_t channels = p->out_c, zero = p->y_zero;
  const uint16x8_t pixel = vshrq_n_u16(vidupq_n_u16(0u, 1), 1);
  const uint16x8_t offsets = vmlaq_n_u16(vmulq_n_u16(pixel, (uint16_t)channels),
                                         vandq_u16(vidupq_n_u16(0u, 1), vdupq_n_u16(1u)), (uint16_t)(o2 - o));
  y += o;
  for (int32_t left = pixels; left > 0;) { /* whole groups, then one more */
    for (int32_t i = left >> 2; i > 0; --i, columns += 4 * PITCH, y += 4 * channels) {
      int32_t s[4], t[4];
      for (int j = 0; j < 4; ++j) {
        const int8x16_t c0 = vldrbq_s8(columns + PITCH * j), c1 = vldrbq_s8(columns + PITCH * j + VECTOR);
        s[j] = vmladavaq_s8(vmladavq_s8(c0, v0), c1, v1), t[j] = vmladavaq_s8(vmladavq_s8(c0, w0), c1, w1);
      }
      int32x4_t g = vaddq_n_s32(mcg_words(s[0], s[1], s[2], s[3]), a.bias);
      int32x4_t h = vaddq_n_s32(mcg_words(t[0], t[1], t[2], t[3]), b.bias);
      g = vrshlq_n_s32(vqdmulhq_n_s32(g, a.multiplier), a.shift), h = vrshlq_n_s32(vqdmulhq_n_s32(h, b.multiplier), b.shift);
      mcg_store_pairs(y, offsets, g, h, zero);
    }
    const int32_t lacking = -left & 3;
    columns -= lacking * PITCH, y -= lacking * channels;
    left = (left & 3) > 0 && left > 4 ? 4 : 0;
  }
}

/* to: three bytes of `count` columns = value */
static MCG_APART void blank(int8_t *to, int32_t count, int32_t value) {
  MCG_ROLLED for (; count > 0; --count, to += COLUMN) to[0] = to[1] = to[2] = (int8_t)value;
}

/* to: three bytes of columns = `count` pixels; a third is a byte's pixel: i * 86 / 256 */
static MCG_APART void copy(int8_t *to, const int8_t *from, int32_t count) {
  const uint8x16_t i = vidupq_n_u8(0u, 1), third = vmulhq_u8(i, vdupq_n_u8(86u));
  const uint8x16_t offsets = vmlaq_n_u8(i, third, COLUMN - 3);
  for (; count > GROUP; count -= GROUP, from += 3 * GROUP, to += COLUMN * GROUP) {
    const mve_pred16_t some = mcg_first_bytes(3 * GROUP);
    vstrbq_scatter_offset_p_s8(to, offsets, vldrbq_z_s8(from, some), some);
  }
  const mve_pred16_t some = mcg_first_bytes(3 * count);
  vstrbq_scatter_offset_p_s8(to, offsets, vldrbq_z_s8(from, some), some);
}

/* The columns under `pixels` outputs from (oy, ox) on. */
static MCG_APART void gather(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, int32_t oy, int32_t ox,
                             int32_t pixels, int8_t *to) {
  const int32_t left = 2 * ox - p->pad_left, count = 2 * pixels + 1, width = p->in_w;
  const int32_t first = mcg_between(-left, 0, count), last = mcg_between(width - left, first, count);
  MCG_ROLLED for (int32_t ky = 0; ky < 3; ++ky, to += 3) {
    const int32_t iy = 2 * oy + ky - p->pad_top;
    if (iy < 0 || iy >= p->in_h) {
      blank(to, count, p->x_zero);
      continue;
    }
    blank(to, first, p->x_zero);
    copy(to + first * COLUMN, mcg_row(x, iy, r->x_rows, 3 * width) + 3 * (left + first), last - first);
    blank(to + last * COLUMN, count - last, p->x_zero);
  }
}

/* Pixels to take together when `left` remain, never fewer than four. */
static int32_t strip(int32_t left) { return left <= STRIP ? left : left < STRIP + 4 ? left - 4 : STRIP; }

int32_t mcg_conv2d_colour_mve(const mcg_conv2d_t *p, const mcg_rows_t *r, const int8_t *x, const int8_t *weight,
                              const int32_t *bias, int8_t *y, void *scratch) {
  if (p->kernel_h != 3 || p->kernel_w != 3 || p->stride_h != 2 || p->stride_w != 2 || p->in_c != 3 || p->live != 3) return 0;
  if (p->order != NULL || p->out_w < 4 || p->out_c > UINT16_MAX / 4 || mcg_least_lanes(p->shift, p->out_c) < 33) return 0;
  int8_t *const columns = (int8_t *)scratch;
  for (int32_t oy = r->first; oy < r->last; ++oy) {
    int8_t *to = mcg_row_out(y, oy, r->y_rows, p->out_w * p->out_c);
    for (int32_t ox = 0, n; ox < p->out_w; ox += n, to += n * p->out_c) {
      n = strip(p->out_w - ox);
      gather(p, r, x, oy, ox, n, columns);
      for (int32_t o = 0; o < p->out_c; o += 2) {
        two_outputs(p, weight, bias, o, o + 1 < p->out_c ? o + 1 : o, columns, n, to);
      }
    }
  }
  return 1;
}

#endif
