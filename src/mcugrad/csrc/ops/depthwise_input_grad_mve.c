/* Input gradient of a depthwise convolution by MVE: the outputs of h that reach an input are the lanes of VMLADAVA.
 *
 * As in depthwise_mve.c four channels of h lie in planes of columns that slide from row to row.  With stride 2 the four inputs
 * of a 2x2 square see the same outputs through different taps, so that one load serves them all; with stride 1 two rows of
 * inputs do.
 */
#include "depthwise_input_grad_mve.h"

#include "ops/mve.h"

#if MCG_MVE

#define CHANNELS 4
#define VECTOR 16
#define MOST MCG_GRAD_VECTORS

typedef mcg_grad_planes_t planes_t;

/* Of channel 0 ... 3 in the planes. */
MCG_INLINE uint32x4_t offsets_of(const planes_t *f) { return vmulq_n_u32(vidupq_n_u32(0u, 1), (uint32_t)f->plane); }

/* Row `at` of the planes = row oy of h, and zeros outside. */
static MCG_APART void fetch(const planes_t *f, int32_t oy, int32_t at) {
  const mcg_conv2d_t *p = f->p;
  const int32_t deep = f->deep, channels = p->in_c;
  const uint32x4_t offsets = offsets_of(f);
  const int32x4_t none = vdupq_n_s32(0);
  int8_t *to = f->planes + at;
  if (oy < 0 || oy >= p->out_h) {
    MCG_ROLLED for (int32_t i = f->width; i > 0; --i, to += deep) vstrbq_scatter_offset_s32(to, offsets, none);
    return;
  }
  const int8_t *from = f->h + (oy * p->out_w + f->first + f->left) * channels;
  MCG_ROLLED for (int32_t i = f->first; i > 0; --i, to += deep) vstrbq_scatter_offset_s32(to, offsets, none);
  for (int32_t i = f->last - f->first; i > 0; --i, to += deep, from += channels) {
    vstrbq_scatter_offset_s32(to, offsets, vldrbq_s32(from));
  }
  MCG_ROLLED for (int32_t i = f->width - f->last; i > 0; --i, to += deep) vstrbq_scatter_offset_s32(to, offsets, none);
}

/* acc [count][4 pixels][4 channels] of one channel, stride 1, one row; `vectors` is a constant of each call. */
MCG_INLINE void row_1(const int8_t *x, const int8_t *weight, int32_t deep, int32_t vectors, int32_t count, int32_t *acc) {
  const uint32x4_t offsets = vmulq_n_u32(vidupq_n_u32(0u, 1), 4 * CHANNELS);
  int8x16_t w[MOST];
  for (int32_t i = 0; i < vectors; ++i) w[i] = vldrbq_s8(weight + VECTOR * i);
  for (; count > 0; --count, acc += 4 * CHANNELS) {
    int32_t sum[4];
    for (int32_t j = 0; j < 4; ++j, x += deep) {
      sum[j] = vmladavq_s8(vldrbq_s8(x), w[0]);
      for (int32_t i = 1; i < vectors; ++i) sum[j] = vmladavaq_s8(sum[j], vldrbq_s8(x + VECTOR * i), w[i]);
    }
    vstrwq_scatter_offset_s32(acc, offsets, mcg_words(sum[0], sum[1], sum[2], sum[3]));
  }
}

/* The same for two rows, `below` elements apart. */
MCG_INLINE void row_2(const int8_t *x, const int8_t *weight, int32_t deep, int32_t vectors, int32_t count, int32_t *acc,
                      int32_t below) {
  const int32_t next = 4 * CHANNELS, down = 4 * below;
  const uint32x4_t offsets = vreinterpretq_u32_s32(mcg_words(0, down, next, down + next));
  int8x16_t w[MOST];
  for (int32_t i = 0; i < 2 * vectors; ++i) w[i] = vldrbq_s8(weight + VECTOR * i);
  for (; count > 0; --count, acc += 2 * CHANNELS) {
    int32_t sum[4];
    for (int32_t j = 0; j < 4; j += 2, x += deep) {
      const int8x16_t v = vldrbq_s8(x);
      sum[j] = vmladavq_s8(v, w[0]), sum[j + 1] = vmladavq_s8(v, w[vectors]);
      if (vectors > 1) {
        const int8x16_t u = vldrbq_s8(x + VECTOR);
        sum[j] = vmladavaq_s8(sum[j], u, w[1]), sum[j + 1] = vmladavaq_s8(sum[j + 1], u, w[3]);
      }
    }
    vstrwq_scatter_offset_s32(acc, offsets, mcg_words(sum[0], sum[1], sum[2], sum[3]));
  }
}

static MCG_APART void row_11(const int8_t *x, const int8_t *weight, int32_t deep, int32_t count, int32_t *acc) {
  row_1(x, weight, deep, 1, count, acc);
}

static MCG_APART void row_21(const int8_t *x, const int8_t *weight, int32_t deep, int32_t count, int32_t *acc) {
  row_1(x, weight, deep, 2, count, acc);
}

static MCG_APART void row_41(const int8_t *x, const int8_t *weight, int32_t deep, int32_t count, int32_t *acc) {
  row_1(x, weight, deep, 4, count, acc);
}

static MCG_APART void row_12(const int8_t *x, const int8_t *weight, int32_t deep, int32_t count, int32_t *acc, int32_t below) {
  row_2(x, weight, deep, 1, count, acc, below);
}

static MCG_APART void row_22(const int8_t *x, const int8_t *weight, int32_t deep, int32_t count, int32_t *acc, int32_t below) {
  row_2(x, weight, deep, 2, count, acc, below);
}

/* Stride 1: rows at acc from row `at` of the planes on. */
static void rows_apart(const planes_t *f, int32_t at, int32_t *acc) {
  const int32_t below = f->p->in_w * CHANNELS, pixels = 4 / f->rows, width = f->p->in_w, whole = width / pixels;
  for (int32_t c = 0; c < CHANNELS; ++c, ++acc) {
    const int8_t *x = f->planes + c * f->plane + at, *w = f->weight[c];
    for (int32_t first = 0, count = whole; first < width; first = width - pixels, count = 1) {
      int32_t *to = acc + first * CHANNELS;
      const int8_t *from = x + first * f->deep;
      if (f->rows == 2 && f->vectors == 1) row_12(from, w, f->deep, count, to, below);
      else if (f->rows == 2) row_22(from, w, f->deep, count, to, below);
      else if (f->vectors == 1) row_11(from, w, f->deep, count, to);
      else if (f->vectors == 2) row_21(from, w, f->deep, count, to);
      else row_41(from, w, f->deep, count, to);
      if (first + count * pixels >= width) break;
    }
  }
}

/* Stride 2: `count` squares of inputs of a channel, the part of each that `some` names. */
static MCG_APART void squares(const int8_t *x, const int8_t *weight, int32_t deep, int32_t count, int32_t *acc,
                              uint32x4_t offsets, mve_pred16_t some) {
  const int8x16_t a = vldrbq_s8(weight), b = vldrbq_s8(weight + 16), c = vldrbq_s8(weight + 32);
  const int8x16_t d = vldrbq_s8(weight + 48);
  for (; count > 0; --count, x += deep, acc += 2 * CHANNELS) {
    const int8x16_t v = vldrbq_s8(x);
    const int32x4_t sums = mcg_words(vmladavq_s8(v, a), vmladavq_s8(v, b), vmladavq_s8(v, c), vmladavq_s8(v, d));
    vstrwq_scatter_offset_p_s32(acc, offsets, sums, some);
  }
}

/* Stride 2: the rows iy and iy + 1 of inputs, those of them inside [first, last), from row `at` of the planes on.  acc is
 * that of row iy, which may lie outside, and column 0. */
static void rows_of_squares(const planes_t *f, int32_t iy, int32_t first, int32_t last, int32_t at, int32_t *acc) {
  const mcg_conv2d_t *p = f->p;
  const int32_t below = 4 * CHANNELS * p->in_w, next = 4 * CHANNELS, odd = p->pad_left & 1;
  const uint32x4_t offsets = vreinterpretq_u32_s32(mcg_words(0, next, below, below + next));
  const uint32_t rows = (iy >= first && iy < last ? 0x00FFu : 0u) | (iy + 1 >= first && iy + 1 < last ? 0xFF00u : 0u);
  const int32_t whole = (p->in_w - odd) / 2;
  for (int32_t c = 0; c < CHANNELS; ++c) {
    const int8_t *x = f->planes + c * f->plane + at, *w = f->weight[c];
    int32_t *to = acc + c - odd * CHANNELS;
    if (odd) {
      squares(x, w, f->deep, 1, to, offsets, (mve_pred16_t)(rows & 0xF0F0u));
      x += f->deep, to += 2 * CHANNELS;
    }
    squares(x, w, f->deep, whole, to, offsets, (mve_pred16_t)rows);
    if (odd + 2 * whole < p->in_w) {
      squares(x + whole * f->deep, w, f->deep, 1, to + 2 * whole * CHANNELS, offsets, (mve_pred16_t)(rows & 0x0F0Fu));
    }
  }
}

/* weight [rows * columns][vectors][16] of each channel, in columns as the planes: the last tap meets the first output.  With
 * stride 1 the second row sees the first one's outputs a row later; with stride 2 a tap belongs to one input of the square. */
static MCG_APART void load_weights(planes_t *f, const int8_t *weight) {
  const mcg_conv2d_t *p = f->p;
  const int32_t channels = p->in_c, deep = f->deep, part = f->vectors * VECTOR;
  const uint32x4_t offsets = vmulq_n_u32(vidupq_n_u32(0u, 1), MOST * VECTOR);
  int8_t *const to = f->weight[0];
  mcg_fill_lanes(to, 0, CHANNELS * MOST * VECTOR);
  for (int32_t ky = 0; ky < p->kernel_h; ++ky) {
    int8_t *at = to + (p->stride_h == 1 ? p->kernel_h - 1 - ky : (ky & 1) * 2 * part + deep - 1 - (ky >> 1));
    if (p->stride_h == 1) {
      at += (p->kernel_w - 1) * deep;
      for (int32_t kx = p->kernel_w; kx > 0; --kx, at -= deep, weight += channels) {
        const int32x4_t w = vldrbq_s32(weight);
        vstrbq_scatter_offset_s32(at, offsets, w);
        if (f->rows > 1) vstrbq_scatter_offset_s32(at + part + 1, offsets, w);
      }
    } else {
      at += (((p->kernel_w + 1) >> 1) - 1) * deep;
      for (int32_t kx = 0; kx < p->kernel_w; ++kx, weight += channels) {
        vstrbq_scatter_offset_s32(at + (kx & 1) * part - (kx >> 1) * deep, offsets, vldrbq_s32(weight));
      }
    }
  }
}

/* Rows of inputs that share a load; returns 0 where their weights do not stay in registers or the planes have no room. */
static int choose(planes_t *f, int32_t rows, int32_t room, int32_t block) {
  const mcg_conv2d_t *p = f->p;
  const int32_t stride = p->stride_h, high = (p->kernel_h + stride - 1) / stride, wide = (p->kernel_w + stride - 1) / stride;
  f->rows = rows, f->columns = stride, f->deep = stride == 1 ? high + rows - 1 : high;
  f->vectors = (wide * f->deep + VECTOR - 1) / VECTOR;
  if (f->vectors == 3) f->vectors = 4;
  f->left = stride == 1 ? p->pad_left - (p->kernel_w - 1) : (p->pad_left >> 1) - (wide - 1);
  f->width = stride == 1 ? p->in_w + p->kernel_w - 1 : ((p->in_w - 1 + p->pad_left) >> 1) - f->left + 1;
  f->first = mcg_between(-f->left, 0, f->width), f->last = mcg_between(p->out_w - f->left, f->first, f->width);
  f->plane = room / CHANNELS;
  return f->vectors * rows * f->columns <= MOST && f->width * f->deep + block + VECTOR <= f->plane;
}

int mcg_depthwise_input_grad_open(planes_t *f, const mcg_conv2d_t *p, void *scratch, int32_t room, int32_t block) {
  f->p = p, f->planes = (int8_t *)scratch;
  if (p->stride_h != p->stride_w || p->stride_h > 2 || p->in_w < 4 || p->dilation_h > 1 || p->dilation_w > 1) return 0;
  if ((p->stride_h == 2 || block > 1) && choose(f, 2, room, block)) return 1;
  return p->stride_h == 1 && choose(f, 1, room, block);
}

void mcg_depthwise_input_grad_mve(planes_t *f, const int8_t *h, const int8_t *weight, const mcg_block_t *b) {
  const mcg_conv2d_t *p = f->p;
  f->h = h + b->first;
  load_weights(f, weight + b->first);
  const int32_t last = b->row + b->rows, row = p->in_w * CHANNELS;
  if (p->stride_h == 1) {
    const int32_t top = b->row + p->pad_top - (p->kernel_h - 1);
    for (int32_t at = 0, next = 0; at < b->rows; at += f->rows) {
      if (at + f->rows > b->rows) at = b->rows - f->rows;
      for (; next < at + f->deep; ++next) fetch(f, top + next, next);
      rows_apart(f, at, b->acc + at * row);
    }
    return;
  }
  const int32_t low = (b->row + p->pad_top) >> 1, high = (last - 1 + p->pad_top) >> 1;
  for (int32_t m = low, next = 0; m <= high; ++m) {
    const int32_t iy = 2 * m - p->pad_top;
    for (; next < m - low + f->deep; ++next) fetch(f, low - (f->deep - 1) + next, next);
    rows_of_squares(f, iy, b->row, last, m - low, b->acc + (iy - b->row) * row);
  }
}

#endif
