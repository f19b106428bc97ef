/* The epilogue of every input gradient: sum at fan-out, clamp mask, requantize; one channel at a time.
 *
 * Within a block each stage reads all its operands before the last one writes, so the last output may lie in the bytes
 * of an operand.
 */
#include "backward.h"
#include "fixed.h"

/* One channel of a block: element i is acc[i * pitch], and at + i * step of every operand; bit + i * step of a mask of
 * bits. */
typedef struct {
  int32_t *acc;
  int32_t pitch, at, bit, step, count;
  int32_t channel;
} lane_t;

static int32_t add_saturating(int32_t a, int32_t b) {
  int32_t sum;
  if (__builtin_add_overflow(a, b, &sum)) return a < 0 ? INT32_MIN : INT32_MAX;
  return sum;
}

/* acc += RSH(g, k) */
static void add_lane(const lane_t *l, const int8_t *g, int32_t k) {
  int32_t *acc = l->acc;
  if (k >= 8) return; /* |g| <= 128 rounds to nothing */
  g += l->at;
  for (int32_t i = l->count; i > 0; --i, g += l->step, acc += l->pitch) *acc = add_saturating(*acc, mcg_rsh(*g, k));
}

/* acc = 0 where y did not pass its clamp */
static void mask_lane(const lane_t *l, const int8_t *y) {
  int32_t *acc = l->acc;
  y += l->at;
  for (int32_t i = l->count; i > 0; --i, y += l->step, acc += l->pitch) {
    if (*y == -128 || *y == 127) *acc = 0;
  }
}

static void mask_lane_bits(const lane_t *l, const uint8_t *bits) {
  int32_t *acc = l->acc, at = l->bit;
  for (int32_t i = l->count; i > 0; --i, at += l->step, acc += l->pitch) {
    if ((bits[at >> 3] >> (at & 7) & 1) == 0) *acc = 0;
  }
}

/* out = clampg(RSH(acc, k)); returns how many the clamp changed. */
static int32_t store_lane(const lane_t *l, int32_t k, int8_t *out) {
  const int32_t *acc = l->acc;
  int32_t clamped = 0;
  out += l->at;
  for (int32_t i = l->count; i > 0; --i, out += l->step, acc += l->pitch) {
    *out = mcg_clampg_counted(mcg_rsh(*acc, k), &clamped);
  }
  return clamped;
}

/* out = clampg(MBQM(acc)); returns how many the clamp changed. */
static int32_t requantize_lane(const lane_t *l, int32_t m, int32_t sh, int8_t *out) {
  const int32_t *acc = l->acc;
  int32_t clamped = 0;
  out += l->at;
  for (int32_t i = l->count; i > 0; --i, out += l->step, acc += l->pitch) {
    *out = mcg_requantize_grad(*acc, m, sh, &clamped);
  }
  return clamped;
}

typedef enum { UNMASKED, BY_OUTPUT, BY_BITS } mask_t;

/* Mask and requantization at once for sh > 32, where acc is not needed afterwards; `kind` is a constant of each call. */
MCG_INLINE int32_t finish(const lane_t *l, mask_t kind, const void *mask, int32_t m, int32_t sh, int8_t *out) {
  const int8_t *y = kind == BY_OUTPUT ? (const int8_t *)mask + l->at : NULL;
  const uint8_t *bits = kind == BY_BITS ? (const uint8_t *)mask : NULL;
  const int32_t *acc = l->acc;
  const int32_t step = l->step, end = l->count * step, pitch = l->pitch;
  int32_t clamped = 0;
  out += l->at;
#pragma GCC unroll 1
  for (int32_t i = 0; i != end; i += step, acc += pitch) {
    int32_t v = mcg_mbqm_high(*acc, m, sh);
    if (kind == BY_OUTPUT && (y[i] ^ (y[i] >> 7)) == 127) v = 0; /* -128 or 127 */
    if (kind == BY_BITS && (bits[(l->bit + i) >> 3] >> ((l->bit + i) & 7) & 1) == 0) v = 0;
    if (__builtin_expect((uint32_t)(v + 127) > 254u, 0)) {
      v = v < 0 ? -127 : 127;
      ++clamped;
    }
    out[i] = (int8_t)v;
  }
  return clamped;
}

static MCG_NOINLINE int32_t finish_unmasked(const lane_t *l, int32_t m, int32_t sh, int8_t *out) {
  return finish(l, UNMASKED, NULL, m, sh, out);
}

static MCG_NOINLINE int32_t finish_by_output(const lane_t *l, const void *mask, int32_t m, int32_t sh, int8_t *out) {
  return finish(l, BY_OUTPUT, mask, m, sh, out);
}

static MCG_NOINLINE int32_t finish_by_bits(const lane_t *l, const void *mask, int32_t m, int32_t sh, int8_t *out) {
  return finish(l, BY_BITS, mask, m, sh, out);
}

/* acc = 0 where the stage's mask says so. */
static void apply_mask(const lane_t *l, const mcg_stage_t *s) {
  if (s->mask == NULL) return;
  if (s->p->mask_bits) {
    mask_lane_bits(l, (const uint8_t *)s->mask);
  } else {
    mask_lane(l, (const int8_t *)s->mask);
  }
}

/* Mask and output of a stage; returns how many elements the clamp changed.  The last stage may leave acc unmasked. */
static int32_t mask_and_store(const lane_t *l, const mcg_stage_t *s, int32_t more, int last) {
  const mcg_stage_params_t *p = s->p;
  if (p->multiplier == NULL) {
    apply_mask(l, s);
    return store_lane(l, more, s->out);
  }
  const int32_t c = p->channels > 1 ? l->channel : 0, m = p->multiplier[c];
  const int32_t sh = mcg_between(p->shift[c] + more, 1, 62);
  if (sh <= 32 || !last) {
    apply_mask(l, s);
    return sh > 32 ? finish_unmasked(l, m, sh, s->out) : requantize_lane(l, m, sh, s->out);
  }
  if (s->mask == NULL) return finish_unmasked(l, m, sh, s->out);
  return p->mask_bits ? finish_by_bits(l, s->mask, m, sh, s->out) : finish_by_output(l, s->mask, m, sh, s->out);
}

static void run_lane(const mcg_chain_t *chain, const lane_t *l) {
  const int8_t *exponents = chain->exponents;
  const mcg_stage_t *const end = chain->stages + chain->count;
  for (const mcg_stage_t *s = chain->stages; s < end; ++s) {
    const int32_t e = mcg_exponent(exponents, s->p->acc_slot);
    if (s->add != NULL) add_lane(l, s->add, e - mcg_exponent(exponents, s->p->add_slot));
    if (s->out == NULL) {
      apply_mask(l, s);
    } else {
      *s->clamped += mask_and_store(l, s, mcg_exponent(exponents, s->p->out_slot) - e, s + 1 == end);
    }
  }
}

void mcg_chain_start(const mcg_chain_t *chain) {
  for (int32_t s = 0; s < chain->count; ++s) {
    if (chain->stages[s].out != NULL) *chain->stages[s].clamped = 0;
  }
}

void mcg_chain_block(const mcg_chain_t *chain, const mcg_block_t *b) {
  const int32_t row = b->width * b->channels, bytes = (row + 7) / 8;
  const int32_t rows = row % 8 == 0 ? b->rows : 1; /* bit masks: only unpadded rows join */
  for (int32_t r = 0; r < b->rows; r += rows) {
    for (int32_t j = 0; j < b->n; ++j) {
      const int32_t c = b->order != NULL ? b->order[j] : b->first + j, at = b->row + r;
      const lane_t lane = {b->acc + r * b->width * b->n + j, b->n, at * row + c, at * bytes * 8 + c,
                           b->channels, rows * b->width, c};
      run_lane(chain, &lane);
    }
  }
}

void mcg_chain_row(const mcg_chain_t *chain, int32_t row, int32_t n, int32_t *acc) {
  int32_t channels = 1; /* what does not depend on the channel may run as one */
  for (int32_t s = 0; s < chain->count; ++s) {
    if (chain->stages[s].out != NULL) channels = mcg_max(channels, chain->stages[s].p->channels);
  }
  const mcg_block_t block = {acc, row, 1, n / channels, channels, channels, 0, NULL};
  mcg_chain_block(chain, &block);
}
