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

/* Two columns from `column` on, any number of elements, by two rows (the last one alone twice). */
MCG_INLINE void long_rows(const mcg_products_t *s, const int8_t *column, int32_t *out, int keep) {
  const int8_t *row = s->rows, *const other = column + s->next;
  const int32_t n = s->n, pitch = s->pitch, down = s->down, across = s->across;
  int32_t after = down, second = pitch;
  for (int32_t i = s->count; i > 0; i -= 2, row += 2 * pitch, out += 2 * down) {
    if (i == 1) after = 0, second = 0;
    int32_t a = 0, b = 0, c = 0, d = 0;
    if (keep) a = out[0], b = out[across], c = out[after], d = out[after + across];
    const int8_t *x0 = row, *x1 = row + second, *w0 = column, *w1 = other;
    for (int32_t left = n; left > 0; left -= VECTOR, x0 += VECTOR, x1 += VECTOR, w0 += VECTOR, w1 += VECTOR) {
      const mve_pred16_t some = vctp8q((uint32_t)left);
      const int8x16_t u = vldrbq_z_s8(x0, some), v = vldrbq_z_s8(w0, some), w = vldrbq_z_s8(w1, some);
      a = vmladavaq_p_s8(a, u, v, some), b = vmladavaq_p_s8(b, u, w, some);
      const int8x16_t t = vldrbq_z_s8(x1, some);
      c = vmladavaq_p_s8(c, t, v, some), d = vmladavaq_p_s8(d, t, w, some);
    }
    out[0] = a, out[across] = b, out[after] = c, out[after + across] = d;
  }
}

static MCG_APART void long_new(const mcg_products_t *s) {
  long_rows(s, s->columns, s->out, 0);
  long_rows(s, s->columns + 2 * s->next, s->out + 2 * s->across, 0);
}

static MCG_APART void long_kept(const mcg_products_t *s) {
  long_rows(s, s->columns, s->out, 1);
  long_rows(s, s->columns + 2 * s->next, s->out + 2 * s->across, 1);
}

void mcg_products(const mcg_products_t *s) {
  if (s->keep) long_kept(s);
  else if (s->n <= VECTOR) short_rows(s);
  else if (s->n == STAY) middle_whole(s);
  else if (s->n < STAY) middle(s);
  else long_new(s);
}

#endif
