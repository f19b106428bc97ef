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
  if (sh > 32) {
    for (int32_t i = l->count; i > 0; --i, out += l->step, acc += l->pitch) {
      *out = mcg_clampg_counted(mcg_mbqm_high(*acc, m, sh), &clamped);
    }
    return clamped;
  }
  for (int32_t i = l->count; i > 0; --i, out += l->step, acc += l->pitch) {
    *out = mcg_requantize_grad(*acc, m, sh, &clamped);
  }
  return clamped;
}

static int32_t out_lane(const lane_t *l, const mcg_stage_params_t *p, int32_t more, int8_t *out) {
  if (p->multiplier == NULL) return store_lane(l, more, out);
  const int32_t c = p->channels > 1 ? l->channel : 0;
  return requantize_lane(l, p->multiplier[c], mcg_between(p->shift[c] + more, 1, 62), out);
}

static void run_lane(const mcg_chain_t *chain, const lane_t *l) {
  const int8_t *exponents = chain->exponents;
  for (const mcg_stage_t *s = chain->stages; s < chain->stages + chain->count; ++s) {
    const mcg_stage_params_t *p = s->p;
    const int32_t e = mcg_exponent(exponents, p->acc_slot);
    if (s->add != NULL) add_lane(l, s->add, e - mcg_exponent(exponents, p->add_slot));
    if (s->mask != NULL && p->mask_bits) mask_lane_bits(l, (const uint8_t *)s->mask);
    if (s->mask != NULL && !p->mask_bits) mask_lane(l, (const int8_t *)s->mask);
    if (s->out != NULL) *s->clamped += out_lane(l, p, mcg_exponent(exponents, p->out_slot) - e, s->out);
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
