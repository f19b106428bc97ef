/* The epilogue of every input gradient: sum at fan-out, clamp mask, requantize; four channels at once where they are
 * neighbours, else one at a time.
 *
 * Within a block each stage reads all its operands before the last one writes, so the last output may lie in the bytes
 * of an operand.
 */
#include "backward.h"
#include "chain_mve.h"
#include "chain_quad.h"
#include "fixed.h"
#include "uses.h"
#include "wide.h"

/* One channel of a block: element i is acc[i * pitch], and at + i * step of every operand; bit + i * step of a mask of
 * bits. */
typedef struct {
  int32_t *acc;
  int32_t pitch, at, bit, step, count;
  int32_t channel;
} lane_t;

/* acc += RSH(g, k), k < 8 */
static MCG_NOINLINE void add_lane(const lane_t *l, const int8_t *g, int32_t k) {
  int32_t *acc = l->acc;
  const int32_t up = k > 0 ? 0 : k, down = k > 0 ? k : 0, half = (1 << down) >> 1, pitch = l->pitch, step = l->step;
  g += l->at;
  MCG_ROLLED for (int32_t i = l->count; i > 0; --i, g += step, acc += pitch) {
    const int32_t v = up < 0 ? mcg_rsh(*g, up) : (*g + half) >> down;
    *acc = mcg_qadd(*acc, v);
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
  if (!MCG_USES_BYTE_MASKS || s->p->mask_bits) {
    mask_lane_bits(l, (const uint8_t *)s->mask);
  } else {
    mask_lane(l, (const int8_t *)s->mask);
  }
}

/* Output of a stage; `more` is added to its shifts. */
static void finish_lane(const lane_t *l, const mcg_stage_t *s, int32_t more) {
  const mcg_stage_params_t *p = s->p;
  if (p->multiplier == NULL) {
    *s->clamped += store_lane(l, more, s->out);
    return;
  }
  const mcg_factor_t f = mcg_stage_factor(p, l->channel);
  const int32_t m = f.multiplier, sh = mcg_between(f.shift + more, 1, 62);
  *s->clamped += sh > 32 ? requantize_lane(l, m, sh, s->out) : requantize_lane_wide(l, m, sh, s->out);
}

/* Channel j of the block in `rows` of its rows from row r on. */
static lane_t lane_of(const mcg_block_t *b, int32_t j, int32_t r, int32_t rows) {
  const int32_t c = b->first + j, row = b->width * b->channels;
  const int32_t bits = (row + 7) & ~7, at = b->row + r;
  const lane_t l = {b->acc + r * b->width * b->pitch + j, b->pitch, at * row + c, at * bits + c, b->channels,
                    rows * b->width, c};
  return l;
}

/* How many outputs of four channels the clamp changed; those that the mask stopped are 0. */
MCG_RARE int32_t count_clamped(const mcg_quad_t *q) {
  const int32_t *acc = q->acc;
  const int8_t *out = q->out;
  int32_t clamped = 0;
  for (int32_t i = q->count; i > 0; --i, acc += q->acc_step >> 2, out += q->out_step) {
    for (int32_t k = 0; k < 4; ++k) {
      const int32_t v = (mcg_mulhi(acc[k], q->lane[k].multiplier) + q->lane[k].rounding) >> q->lane[k].shift;
      clamped += (out[k] == 127 || out[k] == -127) && v != out[k];
    }
  }
  return clamped;
}

/* Runs mcg_chain_quad_...; returns how many outputs the clamp changed.  kind: of the mask, its first bit or -1 for bytes. */
static int32_t run_quad(const mcg_quad_t *q, int32_t kind) {
  int32_t perhaps = 0;
  if (MCG_ASM) perhaps = MCG_USES_BYTE_MASKS && kind < 0 ? mcg_chain_quad_bytes(q) : kind > 0 ? mcg_chain_quad_high(q) : mcg_chain_quad_low(q);
  return perhaps != 0 ? count_clamped(q) : 0;
}

/* The same for the last position, which has no partner but itself. */
MCG_RARE int32_t run_last_quad(mcg_quad_t *q, int32_t last, int32_t kind) {
  q->acc += last * (q->acc_step >> 2);
  q->mask = (const uint8_t *)q->mask + last * q->mask_step;
  q->out += last * q->out_step;
  q->count = 2, q->mask_step = q->out_step = q->acc_step = 0;
  return run_quad(q, kind) >> 1;
}

/* The multipliers of four channels from c on, their shifts increased by `more`; 0 where one is not for mcg_quad_lane_t. */
static MCG_APART int load_lanes(const mcg_stage_params_t *p, int32_t c, int32_t more, mcg_quad_lane_t lane[4]) {
  const mcg_factor_t half = {1 << 30, 30}; /* RSH is MBQM by one half */
  MCG_ROLLED for (int32_t i = 0; i < 4; ++i) {
    const mcg_factor_t f = p->multiplier != NULL ? mcg_stage_factor(p, c + i) : half;
    const int32_t sh = f.shift + more;
    if (sh < 33 || sh > 62) return 0;
    lane[i].multiplier = f.multiplier;
    lane[i].rounding = 1 << (sh - 33);
    lane[i].shift = sh - 32;
  }
  return 1;
}

/* Whether channels j ... j + 3 of the block are neighbours in every operand of the stage, and MCG_ASM has loops for them. */
static int has_quads(const mcg_block_t *b, int32_t j, const mcg_stage_t *s) {
  return MCG_ASM && b->n - j >= 4 && b->first % 4 == 0 && (!s->p->mask_bits || b->channels % 8 == 0);
}

/* Output of channels j ... j + 3 of the block, acc as yet without the stage's mask; 0, having done nothing, where a shift
 * forbids it. */
static int finish_quad(const mcg_block_t *b, int32_t j, const mcg_stage_t *s, int32_t more) {
  const int32_t c = b->first + j, at = b->row * b->width * b->channels + c, count = b->rows * b->width;
  const int32_t bits = s->p->mask_bits ? 3 : 0, kind = s->p->mask_bits ? c & 4 : -1;
  mcg_quad_t q;
  if (!load_lanes(s->p, c, more, q.lane)) return 0;
  q.acc = b->acc + j;
  q.mask = (const uint8_t *)s->mask + (at >> bits);
  q.out = s->out + at;
  q.count = count & ~1;
  q.mask_step = b->channels >> bits;
  q.out_step = b->channels;
  q.acc_step = 4 * b->pitch;
  int32_t clamped = count > 1 ? run_quad(&q, kind) : 0;
  if (count & 1) clamped += run_last_quad(&q, count & ~1, kind);
  if (clamped != 0) *s->clamped += clamped;
  return 1;
}

int32_t mcg_chain_is_plain(const mcg_chain_t *chain, int32_t channels) {
  const mcg_stage_t *s = chain->stages;
  return MCG_ASM && chain->sum == NULL && chain->count == 1 && s->add == NULL && s->mask != NULL && s->out != NULL &&
         s->p->multiplier != NULL && channels % (s->p->mask_bits ? 8 : 4) == 0;
}

int32_t mcg_chain_lanes(const mcg_chain_t *chain, int32_t c, int32_t scaled, mcg_lane_t lane[MCG_LANES]) {
  const mcg_stage_params_t p = *chain->stages->p;
  const int32_t up = mcg_exponent(chain->exponents, p.out_slot) - mcg_exponent(chain->exponents, p.acc_slot) - 33;
  const int32_t all = scaled ? -1 : 0;
  MCG_ROLLED for (int32_t i = 0; i < MCG_LANES; ++i) {
    const mcg_factor_t f = mcg_stage_factor(&p, c + i);
    const int32_t shift = f.shift + up;
    if ((uint32_t)shift > 62u - 33u) return 0;
    const mcg_lane_t l = {f.multiplier, shift + scaled, 1 << (shift & all), 0};
    lane[i] = l;
  }
  return 1;
}

int32_t mcg_chain_words(const mcg_chain_t *chain, const mcg_block_t *b, const int8_t *words) {
  const mcg_stage_t *s = chain->stages;
  const int32_t at = b->row * b->width * b->channels + b->first, bits = s->p->mask_bits ? 3 : 0;
  const mcg_words_t q = {words, (const uint8_t *)s->mask + (at >> bits), s->out + at, b->rows * b->width, b->channels >> bits,
                         b->channels, 16 - (b->first & 4)};
  int32_t clamped = -1;
  if (MCG_ASM) clamped = MCG_USES_BYTE_MASKS && bits == 0 ? mcg_chain_words_bytes(&q) : mcg_chain_words_bits(&q);
  if (clamped > 0) *s->clamped += clamped;
  return clamped >= 0;
}

/* acc += RSH(g, k) of channels j ... j + 3 of the block, -24 < k < 8. */
static MCG_APART void add_quad(const mcg_block_t *b, int32_t j, const int8_t *g, int32_t k) {
  const int32_t factor = k < 0 ? 1 << -k : 1, down = k > 0 ? k : 0, half = (1 << down) >> 1, pitch = b->pitch;
  int32_t *acc = b->acc + j;
  g += b->row * b->width * b->channels + b->first + j;
  MCG_ROLLED for (int32_t i = b->rows * b->width; i > 0; --i, g += b->channels, acc += pitch) {
    const int32_t v = (int32_t)mcg_load4(g);
    acc[0] = mcg_qadd(acc[0], ((int8_t)v * factor + half) >> down);
    acc[1] = mcg_qadd(acc[1], ((int8_t)(v >> 8) * factor + half) >> down);
    acc[2] = mcg_qadd(acc[2], ((int8_t)(v >> 16) * factor + half) >> down);
    acc[3] = mcg_qadd(acc[3], ((v >> 24) * factor + half) >> down);
  }
}

/* acc = 0 where the stage's mask says so, for channels j ... j + 3 of the block. */
static MCG_APART void mask_quad(const mcg_block_t *b, int32_t j, const mcg_stage_t *s) {
  const int32_t bits = s->p->mask_bits ? 3 : 0, pitch = b->pitch, step = b->channels >> bits, c = b->first + j;
  const uint8_t *mask = (const uint8_t *)s->mask + ((b->row * b->width * b->channels + c) >> bits);
  int32_t *acc = b->acc + j;
  MCG_ROLLED for (int32_t i = b->rows * b->width; i > 0; --i, mask += step, acc += pitch) {
    const uint32_t v = bits ? (uint32_t)*mask >> (c & 4) : mcg_passed(mcg_load4(mask), 0x08040201u, 0u);
    acc[0] &= -(int32_t)(v & 1u);
    acc[1] &= -(int32_t)(v >> 1 & 1u);
    acc[2] &= -(int32_t)(v >> 2 & 1u);
    acc[3] &= -(int32_t)(v >> 3 & 1u);
  }
}

/* acc += RSH(add, k) for channels j ... j + n - 1 of the block. */
static MCG_APART void add_block(const mcg_block_t *b, int32_t j, int32_t n, const mcg_stage_t *s, int32_t k) {
  if (k >= 8) return; /* |g| <= 128 rounds to nothing */
  if (k > -24 && has_quads(b, j, s)) {
    add_quad(b, j, s->add, k);
    return;
  }
  for (int32_t i = j; i < j + n; ++i) {
    const lane_t lane = lane_of(b, i, 0, b->rows);
    add_lane(&lane, s->add, k);
  }
}

/* acc = 0 where the stage's mask says so, for channels j ... j + n - 1 of the block. */
static MCG_APART void mask_block(const mcg_block_t *b, int32_t j, int32_t n, const mcg_stage_t *s) {
  const int32_t rows = !s->p->mask_bits || b->width * b->channels % 8 == 0 ? b->rows : 1; /* only unpadded rows join */
  if (has_quads(b, j, s)) {
    mask_quad(b, j, s);
    return;
  }
  for (int32_t i = j; i < j + n; ++i) {
    for (int32_t r = 0; r < b->rows; r += rows) {
      const lane_t lane = lane_of(b, i, r, rows);
      apply_mask(&lane, s);
    }
  }
}

/* Output of channels j ... j + n - 1 of the block in the simplest way. */
static MCG_APART void finish_lanes(const mcg_block_t *b, int32_t j, int32_t n, const mcg_stage_t *s, int32_t more) {
  for (int32_t i = j; i < j + n; ++i) {
    const lane_t lane = lane_of(b, i, 0, b->rows);
    finish_lane(&lane, s, more);
  }
}

/* One stage of channels j ... j + n - 1 of the block; `last`: none follows that reads acc. */
static void run_stage(const mcg_block_t *b, int32_t j, const mcg_stage_t *s, const int8_t *exponents, int last) {
  if (MCG_MVE && b->n - j >= 4 && mcg_chain_mve(b, j, s, exponents)) return;
  const int32_t e = mcg_exponent(exponents, s->p->acc_slot), n = mcg_min(4, b->n - j);
  if (s->add != NULL) add_block(b, j, n, s, e - mcg_exponent(exponents, s->p->add_slot));
  const int32_t more = s->out != NULL ? mcg_exponent(exponents, s->p->out_slot) - e : 0;
  const int quads = s->out != NULL && s->mask != NULL && has_quads(b, j, s);
  if (quads && last && finish_quad(b, j, s, more)) return;
  if (s->mask != NULL) mask_block(b, j, n, s);
  if (quads && !last && finish_quad(b, j, s, more)) return;
  if (s->out != NULL) finish_lanes(b, j, n, s, more);
}

void mcg_chain_start(const mcg_chain_t *chain) {
  for (int32_t s = 0; s < chain->count && !chain->more; ++s) {
    if (chain->stages[s].out != NULL) *chain->stages[s].clamped = 0;
  }
}

/* Adds the calls before to the block; non-zero: more calls follow. */
static MCG_APART int32_t gather_block(const mcg_sum_t *s, const mcg_block_t *b) {
  mcg_sum_t at = *s;
  at.sum += b->row * b->width * b->channels + b->first;
  int32_t *acc = b->acc;
  for (int32_t i = b->rows * b->width; i > 0; --i, acc += b->pitch, at.sum += b->channels) mcg_gather(&at, 0, b->n, acc);
  return s->more;
}

void mcg_chain_block(const mcg_chain_t *chain, const mcg_block_t *b) {
  if (MCG_USES_SUMS && chain->sum != NULL && gather_block(chain->sum, b)) return;
  if (MCG_WIDE && mcg_chain_block_wide(chain, b)) return;
  for (int32_t j = 0; j < b->n; j += 4) {
    for (int32_t s = 0; s < chain->count; ++s) {
      run_stage(b, j, &chain->stages[s], chain->exponents, s + 1 == chain->count);
    }
  }
}

void mcg_chain_row(const mcg_chain_t *chain, int32_t row, int32_t n, int32_t *acc) {
  int32_t channels = 1; /* what does not depend on the channel may run as one */
  for (int32_t s = 0; s < chain->count; ++s) {
    if (chain->stages[s].out != NULL) channels = mcg_max(channels, chain->stages[s].p->channels);
  }
  const mcg_block_t block = {acc, channels, row, 1, n / channels, channels, channels, 0};
  mcg_chain_block(chain, &block);
}
