/* What a training step does to its sample: mirror it, move it, change its brightness and contrast.  In place. */
#include "fixed.h"
#include "kernels.h"

#define TENSOR 0xA093u /* names the random numbers; no parameter has this number */

/* Uniform in [-most, most]. */
static int32_t between(const mcg_context_t *c, uint32_t n, int32_t most) {
  const uint32_t random = mcg_random(c->seed, c->step, TENSOR, n) >> 16;
  return (int32_t)((random * (uint32_t)(2 * most + 1)) >> 16) - most;
}

const mcg_drawn_t *mcg_draw(const mcg_augment_t *p, const mcg_context_t *c, mcg_drawn_t *drawn) {
  drawn->p = p;
  drawn->flip = p->flip != 0 && (mcg_random(c->seed, c->step, TENSOR, 0u) & 1u) != 0u;
  drawn->down = between(c, 1u, p->rows > 1 ? p->shift : 0);
  drawn->right = between(c, 2u, p->width > 1 ? p->shift : 0);
  drawn->add = between(c, 3u, p->brightness);
  drawn->gain = 128 + between(c, 4u, p->contrast);
  return drawn;
}

/* Moves v [n] by `by` places, towards the end where it is positive; what comes in is `fill`. */
static void slide(int8_t *v, int32_t n, int32_t by, int8_t fill) {
  MCG_ROLLED for (int32_t i = n - 1; by > 0 && i >= 0; --i) v[i] = i >= by ? v[i - by] : fill;
  MCG_ROLLED for (int32_t i = 0; by < 0 && i < n; ++i) v[i] = i - by < n ? v[i - by] : fill;
}

static void mirror(int8_t *row, int32_t width, int32_t channels) {
  for (int32_t left = 0, right = width - 1; left < right; ++left, --right) {
    for (int32_t i = 0; i < channels; ++i) {
      const int8_t kept = row[left * channels + i];
      row[left * channels + i] = row[right * channels + i];
      row[right * channels + i] = kept;
    }
  }
}

/* row [width][channels] */
static void change_row(const mcg_drawn_t *d, int8_t *row) {
  const mcg_augment_t *p = d->p;
  const int32_t n = p->width * p->channels, changed = d->add != 0 || d->gain != 128;
  if (d->flip) mirror(row, p->width, p->channels);
  MCG_ROLLED for (int32_t i = 0; changed && i < n; ++i) {
    row[i] = mcg_clamp8(mcg_rsh((row[i] - p->zero) * d->gain, 7) + p->zero + d->add);
  }
  slide(row, n, d->right * p->channels, (int8_t)p->zero);
}

void mcg_augment_image(const mcg_augment_t *p, const mcg_context_t *c, int8_t *image) {
  const int32_t n = p->width * p->channels;
  mcg_drawn_t drawn;
  mcg_draw(p, c, &drawn);
  for (int32_t row = 0; row < p->rows; ++row) change_row(&drawn, image + row * n);
  slide(image, p->rows * n, drawn.down * n, (int8_t)p->zero);
}

int32_t mcg_load_augmented(const mcg_context_t *c, const mcg_drawn_t *d, const mcg_rows_t *r, int8_t *dst,
                           int32_t row_bytes) {
  if (d == NULL) return mcg_load_rows(c, r, dst, row_bytes);
  for (int32_t row = r->first; row < r->last; ++row) {
    int8_t *to = dst + (row % r->y_rows) * row_bytes;
    const int32_t from = row - d->down;
    if (from < 0 || from >= d->p->rows) {
      for (int32_t i = 0; i < row_bytes; ++i) to[i] = (int8_t)d->p->zero;
      continue;
    }
    if (c->row_source(c->row_user, from, to) != 0) return 1;
    change_row(d, to);
  }
  return 0;
}
