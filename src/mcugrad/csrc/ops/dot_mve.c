/* Products of int8 rows with four int8 columns by MVE: VMLADAVA multiplies sixteen elements of each. */
#include "dot_mve.h"

#include "ops/mve.h"

#if MCG_MVE

#define VECTOR 16
#define STAY (3 * VECTOR) /* elements of two columns that stay in registers */
#define FAR 9000          /* pitch within which eight offsets are 16 bits */

void mcg_turn_column(const int8_t *at, int32_t n, int32_t pitch, int8_t *to) {
  const uint16x8_t offsets = vmulq_n_u16(vidupq_n_u16(0u, 1), (uint16_t)pitch);
  const int32_t groups = pitch <= FAR ? n >> 3 : 0;
  for (int32_t i = groups; i > 0; --i, at += 8 * pitch, to += 8) vstrbq_s16(to, vldrbq_gather_offset_s16(at, offsets));
  MCG_ROLLED for (int32_t i = n - 8 * groups; i > 0; --i, at += pitch) *to++ = *at;
}

/* At most 16 elements. */
static MCG_APART void short_rows(const mcg_products_t *s) {
  const mve_pred16_t some = mcg_first_bytes(s->n);
  const int8_t *row = s->rows, *column = s->columns;
  const int8x16_t a = vldrbq_z_s8(column, some), b = vldrbq_z_s8(column + s->next, some);
  const int8x16_t c = vldrbq_z_s8(column + 2 * s->next, some), d = vldrbq_z_s8(column + 3 * s->next, some);
  const uint32x4_t offsets = vmulq_n_u32(vidupq_n_u32(0u, 1), 4u * (uint32_t)s->across);
  const int32_t pitch = s->pitch, down = s->down;
  int32_t *out = s->out;
  for (int32_t i = s->count; i > 0; --i, row += pitch, out += down) {
    const int8x16_t v = vldrbq_z_s8(row, some);
    const int32x4_t sums = mcg_words(vmladavq_s8(v, a), vmladavq_s8(v, b), vmladavq_s8(v, c), vmladavq_s8(v, d));
    vstrwq_scatter_offset_s32(out, offsets, sums);
  }
}

/* Two columns from `column` on, 17 ... 48 elements; `whole` says that none are lacking. */
MCG_INLINE void middle_rows(const mcg_products_t *s, const int8_t *column, int32_t *out, int whole) {
  const int32_t third = s->n > 2 * VECTOR ? s->n - 2 * VECTOR : 0;
  const mve_pred16_t middle = mcg_first_bytes(third > 0 ? VECTOR : s->n - VECTOR), last = mcg_first_bytes(third);
  const int8_t *other = column + s->next, *row = s->rows;
  const int8x16_t a0 = vldrbq_s8(column), a1 = vldrbq_z_s8(column + 16, middle), a2 = vldrbq_z_s8(column + 32, last);
  const int8x16_t b0 = vldrbq_s8(other), b1 = vldrbq_z_s8(other + 16, middle), b2 = vldrbq_z_s8(other + 32, last);
  const int32_t pitch = s->pitch, down = s->down, across = s->across;
  for (int32_t i = s->count; i > 0; --i, row += pitch, out += down) {
    const int8x16_t u = vldrbq_s8(row), v = whole ? vldrbq_s8(row + 16) : vldrbq_z_s8(row + 16, middle);
    const int8x16_t w = whole ? vldrbq_s8(row + 32) : vldrbq_z_s8(row + 32, last);
    out[0] = vmladavaq_s8(vmladavaq_s8(vmladavq_s8(u, a0), v, a1), w, a2);
    out[across] = vmladavaq_s8(vmladavaq_s8(vmladavq_s8(u, b0), v, b1), w, b2);
  }
}

static MCG_APART void middle(const mcg_products_t *s) {
  middle_rows(s, s->columns, s->out, 0);
  middle_rows(s, s->columns + 2 * s->next, s->out + 2 * s->across, 0);
}

static MCG_APART void middle_whole(const mcg_products_t *s) {
  middle_rows(s, s->columns, s->out, 1);
  middle_rows(s, s->columns + 2 * s->next, s->out + 2 * s->across, 1);
}

/* Two columns from `column` on, any number of elements, by two rows and perhaps a last one; across and down as in s. */
MCG_INLINE void long_rows(const mcg_products_t *s, const int8_t *column, int32_t *out, int32_t across, int32_t down, int keep) {
  const int32_t n = s->n, whole = (n + VECTOR - 1) & ~(VECTOR - 1), on = 2 * s->pitch - whole;
  const int8_t *x[2] = {s->rows, s->rows + s->pitch}, *w[2] = {column, column + s->next};
  for (int32_t i = s->count >> 1; i > 0; --i, out += 2 * down) {
    int32_t sum[4] = {0, 0, 0, 0};
    if (keep) sum[0] = out[0], sum[1] = out[across], sum[2] = out[down], sum[3] = out[down + across];
    mcg_multiply_2x2(x, w, n, sum);
    out[0] = sum[0], out[across] = sum[1], out[down] = sum[2], out[down + across] = sum[3];
    x[0] += on, x[1] += on, w[0] -= whole, w[1] -= whole;
  }
  if ((s->count & 1) == 0) return;
  int32_t sum[4] = {keep ? out[0] : 0, keep ? out[across] : 0, 0, 0};
  x[1] = x[0];
  mcg_multiply_2x2(x, w, n, sum);
  out[0] = sum[0], out[across] = sum[1];
}

static MCG_APART void long_beside(const mcg_products_t *s, const int8_t *column, int32_t *out) {
  long_rows(s, column, out, 1, MCG_COLUMNS_MVE, 0);
}

static MCG_APART void long_new(const mcg_products_t *s, const int8_t *column, int32_t *out) {
  long_rows(s, column, out, s->across, s->down, 0);
}

static MCG_APART void long_kept(const mcg_products_t *s, const int8_t *column, int32_t *out) {
  long_rows(s, column, out, s->across, s->down, 1);
}

/* Columns two by two. */
static void long_columns(const mcg_products_t *s) {
  const int8_t *column = s->columns;
  int32_t *out = s->out;
  MCG_ROLLED for (int k = 0; k < MCG_COLUMNS_MVE; k += 2, column += 2 * s->next, out += 2 * s->across) {
    if (s->keep) long_kept(s, column, out);
    else if (s->across == 1 && s->down == MCG_COLUMNS_MVE) long_beside(s, column, out);
    else long_new(s, column, out);
  }
}

void mcg_products(const mcg_products_t *s) {
  if (s->keep || s->n > STAY) long_columns(s);
  else if (s->n <= VECTOR) short_rows(s);
  else if (s->n == STAY) middle_whole(s);
  else middle(s);
}

#endif
