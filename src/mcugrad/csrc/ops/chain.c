/* The epilogue of every input gradient: sum at fan-out, clamp mask, requantize; four channels at once where they are
 * neighbours, else one at a time.
 *
 * Within a block each stage reads all its operands before the last one writes, so the last output may lie in the bytes
 * of an operand.
 */
#include "backward.h"
#include "chain_quad.h"
#include "fixed.h"
#include "wide.h"

/* One channel of a block: element i is acc[i * pitch], and at + i * step of every operand; bit + i * step of a mask of
 * bits. */
typedef struct {
  int32_t *acc;
  int32_t pitch, at, bit, step, count;
  int32_t channel;
} lane_t;

static inline int32_t add_saturating(int32_t a, int32_t b) {
  int32_t sum;
  if (__builtin_add_overflow(a, b, &sum)) return a < 0 ? INT32_MIN : INT32_MAX;
  return sum;
}

/* acc += RSH(g, k) */
static MCG_NOINLINE void add_lane(const lane_t *l, const int8_t *g, int32_t k) {
  int32_t *acc = l->acc;
  if (k >= 8) return; /* |g| <= 128 rounds to nothing */
  const int32_t up = k > 0 ? 0 : k, down = k > 0 ? k : 0, half = (1 << down) >> 1, pitch = l->pitch, step = l->step;
  g += l->at;
  MCG_ROLLED for (int32_t i = l->count; i > 0; --i, g += step, acc += pitch) {
    const int32_t v = up < 0 ? mcg_rsh(*g, up) : (*g + half) >> down;
    *acc = add_saturating(*acc, v);
  }
}

/* acc = 0 where y did not pass its clamp */
static MCG_NOINLINE void mask_lane(const lane_t *l, const int8_t *y) {
  int32_t *acc = l->acc;
  y += l->at;
  MCG_ROLLED for (int32_t i = l->count; i > 0; --i, y += l->step, acc += l->pitch) {
    if (*y == -128 || *y == 127) *acc = 0;
  }
}

static MCG_NOINLINE void mask_lane_bits(const lane_t *l, const uint8_t *bits) {
  int32_t *acc = l->acc, at = l->bit;
  MCG_ROLLED for (int32_t i = l->count; i > 0; --i, at += l->step, acc += l->pitch) {
    if ((bits[at >> 3] >> (at & 7) & 1) == 0) *acc = 0;
  }
}

/* out = clampg(RSH(acc, k)); returns how many the clamp changed. */
static MCG_NOINLINE int32_t store_lane(const lane_t *l, int32_t k, int8_t *out) {
  const int32_t *acc = l->acc;
  int32_t clamped = 0;
  out += l->at;
  MCG_ROLLED for (int32_t i = l->count; i > 0; --i, out += l->step, acc += l->pitch) {
    *out = mcg_clampg_counted(mcg_rsh(*acc, k), &clamped);
  }
  return clamped;
}

/* out = clampg(MBQM(acc)) for sh > 32; returns how many the clamp changed. */
static MCG_NOINLINE int32_t requantize_lane(const lane_t *l, int32_t m, int32_t sh, int8_t *out) {
  const int32_t *acc = l->acc;
  int32_t clamped = 0;
  out += l->at;
  MCG_ROLLED for (int32_t i = l->count; i > 0; --i, out += l->step, acc += l->pitch) {
    int32_t v = mcg_mbqm_high(*acc, m, sh);
    if (__builtin_expect((uint32_t)(v + 127) > 254u, 0)) {
      v = v < 0 ? -127 : 127;
      ++clamped;
    }
    *out = (int8_t)v;
  }
  return clamped;
}

/* The same for any sh. */
MCG_RARE int32_t requantize_lane_wide(const lane_t *l, int32_t m, int32_t sh, int8_t *out) {
  const int32_t *acc = l->acc;
  int32_t clamped = 0;
  out += l->at;
  for (int32_t i = l->count; i > 0; --i, out += l->step, acc += l->pitch) {
    *out = mcg_requantize_grad(*acc, m, sh, &clamped);
  }
  return clamped;
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

/* Mask and output of a stage; `more` is added to its shifts. */
static void finish_lane(const lane_t *l, const mcg_stage_t *s, int32_t more) {
  const mcg_stage_params_t *p = s->p;
  apply_mask(l, s);
  if (s->out == NULL) return;
  if (p->multiplier == NULL) {
    *s->clamped += store_lane(l, more, s->out);
    return;
  }
  const int32_t c = p->channels > 1 ? l->channel : 0, m = p->multiplier[c];
  const int32_t sh = mcg_between(p->shift[c] + more, 1, 62);
  *s->clamped += sh > 32 ? requantize_lane(l, m, sh, s->out) : requantize_lane_wide(l, m, sh, s->out);
}

/* Channel j of the block in `rows` of its rows from row r on. */
static lane_t lane_of(const mcg_block_t *b, int32_t j, int32_t r, int32_t rows) {
  const int32_t c = b->order != NULL ? b->order[j] : b->first + j, row = b->width * b->channels;
  const int32_t bits = (row + 7) & ~7, at = b->row + r;
  const lane_t l = {b->acc + r * b->width * b->pitch + j, b->pitch, at * row + c, at * bits + c, b->channels,
                    rows * b->width, c};
  return l;
}

/* How many outputs of four channels the clamp changed, from acc as mcg_chain_quad_... left it. */
MCG_RARE int32_t count_clamped(const mcg_quad_t *q) {
  const int32_t *acc = q->acc;
  int32_t clamped = 0;
  for (int32_t i = q->count; i > 0; --i, acc += q->acc_step / 4) {
    for (int32_t k = 0; k < 4; ++k) {
      const int32_t v = (mcg_mulhi(acc[k], q->lane[k].multiplier) + q->lane[k].rounding) >> q->lane[k].shift;
      clamped += v != mcg_clampg(v);
    }
  }
  return clamped;
}

/* Whether the stage has a mask and requantization that mcg_chain_quad_... can apply to the block. */
static int has_quads(const mcg_stage_t *s, const mcg_block_t *b) {
  return MCG_ASM && s->out != NULL && s->mask != NULL && b->order == NULL &&
         b->first % 4 == 0 && (!s->p->mask_bits || b->channels % 8 == 0);
}

/* Mask and output of channels j ... j + 3 of the block; 0, having done nothing, where a shift forbids it. */
static int finish_quad(const mcg_block_t *b, int32_t j, const mcg_stage_t *s, int32_t more) {
  const mcg_stage_params_t *p = s->p;
  const int32_t c = b->first + j, at = b->row * b->width * b->channels + c;
  mcg_quad_t q;
  static const int32_t half = 1 << 30; /* RSH is MBQM by one half */
  static const uint8_t half_shift = 30;
  const int32_t next = p->multiplier != NULL && p->channels > 1, from = next ? c : 0;
  const int32_t *m = p->multiplier != NULL ? p->multiplier + from : &half;
  const uint8_t *shift = p->multiplier != NULL ? p->shift + from : &half_shift;
  MCG_ROLLED for (mcg_quad_lane_t *l = q.lane; l < q.lane + 4; ++l, m += next, shift += next) {
    const int32_t sh = *shift + more;
    if (sh < 33 || sh > 62) return 0;
    l->multiplier = *m;
    l->rounding = 1 << (sh - 33);
    l->shift = sh - 32;
  }
  q.acc = b->acc + j;
  q.mask = (const uint8_t *)s->mask + (p->mask_bits ? at >> 3 : at);
  q.out = s->out + at;
  q.count = b->rows * b->width;
  q.mask_step = p->mask_bits ? b->channels >> 3 : b->channels;
  q.out_step = b->channels;
  q.acc_step = 4 * b->pitch;
  int32_t clamped = 0;
  if (MCG_ASM) clamped = !p->mask_bits ? mcg_chain_quad_bytes(&q) : c & 4 ? mcg_chain_quad_high(&q) : mcg_chain_quad_low(&q);
  if (clamped != 0) *s->clamped += count_clamped(&q);
  return 1;
}

/* One stage of channels j ... j + n - 1 of the block. */
static void run_stage(const mcg_block_t *b, int32_t j, int32_t n, const mcg_stage_t *s, const int8_t *exponents) {
  const int32_t e = mcg_exponent(exponents, s->p->acc_slot);
  const int32_t more = s->out != NULL ? mcg_exponent(exponents, s->p->out_slot) - e : 0;
  for (int32_t i = j; s->add != NULL && i < j + n; ++i) {
    const lane_t lane = lane_of(b, i, 0, b->rows), *l = &lane;
    add_lane(l, s->add, e - mcg_exponent(exponents, s->p->add_slot));
  }
  if (n == 4 && has_quads(s, b) && finish_quad(b, j, s, more)) return;
  const int32_t rows = b->width * b->channels % 8 == 0 ? b->rows : 1; /* bit masks: only unpadded rows join */
  for (int32_t i = j; i < j + n; ++i) {
    for (int32_t r = 0; r < b->rows; r += rows) {
      const lane_t lane = lane_of(b, i, r, rows);
      finish_lane(&lane, s, more);
    }
  }
}

void mcg_chain_start(const mcg_chain_t *chain) {
  for (int32_t s = 0; s < chain->count && !chain->more; ++s) {
    if (chain->stages[s].out != NULL) *chain->stages[s].clamped = 0;
  }
}

void mcg_chain_block(const mcg_chain_t *chain, const mcg_block_t *b) {
  if (MCG_WIDE && mcg_chain_block_wide(chain, b)) return;
  for (int32_t j = 0; j < b->n; j += 4) {
    for (int32_t s = 0; s < chain->count; ++s) {
      run_stage(b, j, mcg_min(4, b->n - j), &chain->stages[s], chain->exponents);
    }
  }
}

void mcg_chain_row(const mcg_chain_t *chain, int32_t row, int32_t n, int32_t *acc) {
  int32_t channels = 1; /* what does not depend on the channel may run as one */
  for (int32_t s = 0; s < chain->count; ++s) {
    if (chain->stages[s].out != NULL) channels = mcg_max(channels, chain->stages[s].p->channels);
  }
  const mcg_block_t block = {acc, channels, row, 1, n / channels, channels, channels, 0, NULL};
  mcg_chain_block(chain, &block);
}
