/* The epilogue of every input gradient, 16 channels at a time. */
#include "ops/backward.h"
#include "wide.h"
#include "vector.h"

#define MOST_UP 24 /* an int8 gradient shifted up by more may leave int32 */

typedef enum { NO_MASK, BIT_MASK, BYTE_MASK } mask_t;
typedef enum { NOTHING, REQUANTIZED, ROUNDED } output_t;

/* Channels j ... j + n - 1 of a block, n <= 16. */
typedef struct {
  const mcg_block_t *b;
  int32_t j, n;
} lanes_t;

/* acc += RSH(g, k); n is a constant where that pays. */
MCG_INLINE void add_as(const lanes_t *l, const int8_t *g, int32_t k, int32_t n) {
  const mcg_block_t *b = l->b;
  const int32_t half = k > 0 ? 1 << (k - 1) : 0, positions = b->rows * b->width;
  int32_t *acc = b->acc + l->j;
  g += b->row * b->width * b->channels + b->first + l->j;
  for (int32_t i = 0; i < positions; ++i, acc += b->pitch, g += b->channels) {
    const mcg_wide_t v = mcg_signed(mcg_load_bytes(g, n)), a = mcg_load_some(acc, n);
    const mcg_wide_t by = k > 0 ? (v + half) >> k : (mcg_wide_t)((mcg_uwide_t)v << -k);
    const mcg_wide_t sum = (mcg_wide_t)((mcg_uwide_t)a + (mcg_uwide_t)by), over = ((a ^ sum) & (by ^ sum)) >> 31;
    mcg_store_some(acc, mcg_select(over, (a >> 31) ^ INT32_MAX, sum), n);
  }
}

static void add(const lanes_t *l, const int8_t *g, int32_t k) {
  if (l->n == MCG_WIDTH) add_as(l, g, k, MCG_WIDTH);
  else add_as(l, g, k, l->n);
}

/* n <= 16 bits from bit `at` on; reads no byte beyond the last of them. */
MCG_INLINE uint32_t load_bits(const uint8_t *bits, int32_t at, int32_t n) {
  const int32_t skip = at & 7;
  uint16_t all;
  if (skip == 0 && n == MCG_WIDTH) {
    __builtin_memcpy(&all, bits + (at >> 3), sizeof all);
    return all;
  }
  bits += at >> 3;
  uint32_t v = bits[0];
  if (skip + n > 8) v |= (uint32_t)bits[1] << 8;
  if (skip + n > 16) v |= (uint32_t)bits[2] << 16;
  return v >> skip;
}

/* All ones in the lanes whose value passed its clamp; `at` counts the row's elements. */
MCG_INLINE mcg_wide_t passed(const mcg_stage_t *s, mask_t mask, int32_t row, int32_t elements, int32_t at, int32_t n) {
  const mcg_wide_t bit = {1 << 0, 1 << 1, 1 << 2,  1 << 3,  1 << 4,  1 << 5,  1 << 6,  1 << 7,
                          1 << 8, 1 << 9, 1 << 10, 1 << 11, 1 << 12, 1 << 13, 1 << 14, 1 << 15};
  if (mask == BIT_MASK) {
    const uint8_t *bits = (const uint8_t *)s->mask + row * ((elements + 7) >> 3);
    return (mcg_splat((int32_t)load_bits(bits, at, n)) & bit) == bit;
  }
  const mcg_wide_t y = mcg_signed(mcg_load_bytes((const int8_t *)s->mask + row * elements + at, n));
  return (y > -128) & (y < 127);
}

typedef struct {
  mcg_wide_t multiplier, shift;
} factors_t;

/* Those of a stage's n <= 16 channels from `first` on, as mcg_stage_factor says; `more` is added to their shifts. */
static factors_t factors_of(const mcg_stage_params_t *p, int32_t first, int32_t n, int32_t more) {
  const int alike = p->channels <= 1;
  const factors_t f = {
      alike ? mcg_splat(p->multiplier[0]) : mcg_load_some(p->multiplier + first, n),
      (alike ? mcg_splat(p->shift[0]) : mcg_unsigned(mcg_load_bytes(p->shift + first, n))) + p->more + more};
  if (p->ratio == 0) return f;
  const mcg_wide_t high = mcg_crossed(mcg_mulhi_crossed(f.multiplier, mcg_splat(p->ratio), mcg_splat(p->ratio)));
  const mcg_wide_t up = high * 2, shorter = up < (1 << 30) - 32;
  const factors_t scaled = {(mcg_wide_t)(((mcg_uwide_t)(up + (up & shorter)) + 32u) & ~63u), f.shift - shorter};
  return scaled;
}

/* Mask and output of a stage at some of its elements. */
typedef struct {
  const mcg_stage_t *s;
  int32_t row, elements; /* a row's */
  int32_t channels, pitch, more;
  int last;
  mcg_scale_t scale;
} finish_t;

/* Those of `count` neighbours, the first of them at `at` of the row; n, count and both kinds are constants where that
 * pays.  Returns how many were clamped. */
MCG_INLINE int32_t finish_some(const finish_t *f, mask_t mask, output_t output, int32_t at, int32_t *acc, int32_t n,
                               int count) {
  int32_t clamped = 0;
  mcg_wide_t v[4];
#pragma GCC unroll 4
  for (int i = 0; i < count; ++i) {
    v[i] = mcg_load_some(acc + i * f->pitch, n);
    if (mask != NO_MASK) v[i] &= passed(f->s, mask, f->row, f->elements, at + i * f->channels, n);
    if (mask != NO_MASK && !f->last) mcg_store_some(acc + i * f->pitch, v[i], n);
    if (output == REQUANTIZED) v[i] = mcg_mbqm_crossed(v[i], &f->scale);
    else if (f->more > 0) v[i] = (v[i] >> f->more) + ((v[i] >> (f->more - 1)) & 1);
    if (output == ROUNDED) v[i] = mcg_crossed(v[i]);
  }
  if (output == NOTHING) return 0;
  for (int i = count; i < 4; ++i) v[i] = (mcg_wide_t){0};
  const mcg_four_t bytes = mcg_clamp_four(v, &clamped);
#pragma GCC unroll 4
  for (int i = 0; i < count; ++i) {
    mcg_store_bytes(f->s->out + f->row * f->elements + at + i * f->channels, mcg_quarter_bytes(bytes, i), n);
  }
  return clamped;
}

/* Mask and output of a stage; both kinds are constants of each call, and so is n where that pays.  `more` is added to the
 * shifts; `last`: no stage follows. */
MCG_INLINE void finish_as(const lanes_t *l, const mcg_stage_t *s, int32_t more, int last, mask_t mask, output_t output,
                          int32_t n) {
  const mcg_block_t *b = l->b;
  const int32_t first = b->first + l->j, step = b->channels, pitch = b->pitch;
  finish_t f = {s, b->row, b->width * step, step, pitch, more, last, {{0}, {0}, {0}, {0}}};
  int32_t *acc = b->acc + l->j, clamped = 0;
  if (output == REQUANTIZED) {
    const factors_t factors = factors_of(s->p, first, n, more);
    f.scale = mcg_scale_by(factors.multiplier, factors.shift);
  }
  for (; f.row < b->row + b->rows; ++f.row) {
    int32_t at = first;
    for (; at + 3 * step < f.elements; at += 4 * step, acc += 4 * pitch) {
      clamped += finish_some(&f, mask, output, at, acc, n, 4);
    }
    for (; at < f.elements; at += step, acc += pitch) clamped += finish_some(&f, mask, output, at, acc, n, 1);
  }
  if (output != NOTHING) *s->clamped += clamped; /* a lane of none stays 0 */
}

static void finish(const lanes_t *l, const mcg_stage_t *s, int32_t more, int last) {
  const mask_t mask = s->mask == NULL ? NO_MASK : s->p->mask_bits ? BIT_MASK : BYTE_MASK;
  const output_t output = s->out == NULL ? NOTHING : s->p->multiplier != NULL ? REQUANTIZED : ROUNDED;
  if (l->n < MCG_WIDTH) finish_as(l, s, more, last, mask, output, l->n);
  else if (mask == BIT_MASK && output == REQUANTIZED) finish_as(l, s, more, last, BIT_MASK, REQUANTIZED, MCG_WIDTH);
  else if (mask == BYTE_MASK && output == REQUANTIZED) finish_as(l, s, more, last, BYTE_MASK, REQUANTIZED, MCG_WIDTH);
  else finish_as(l, s, more, last, mask, output, MCG_WIDTH);
}

/* What the exponents add to a shift: of the stage's stored operand, and of its output. */
static int32_t add_shift(const mcg_chain_t *chain, const mcg_stage_t *s) {
  return mcg_exponent(chain->exponents, s->p->acc_slot) - mcg_exponent(chain->exponents, s->p->add_slot);
}

static int32_t out_shift(const mcg_chain_t *chain, const mcg_stage_t *s) {
  return mcg_exponent(chain->exponents, s->p->out_slot) - mcg_exponent(chain->exponents, s->p->acc_slot);
}

/* Whether mcg_mbqm_crossed may be used for a stage's n channels from `first` on. */
static int fits(const mcg_stage_params_t *p, int32_t first, int32_t n, int32_t more) {
  const mcg_wide_t lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  mcg_wide_t wrong = {0};
  for (int32_t i = 0; i < n; i += MCG_WIDTH) {
    const mcg_wide_t shift = factors_of(p, first + i, mcg_min(MCG_WIDTH, n - i), more).shift;
    wrong |= ((shift < 33) | (shift > 62)) & (lane < n - i);
  }
  return !mcg_any(wrong);
}

static int is_usual(const mcg_chain_t *chain, const mcg_block_t *b) {
  for (const mcg_stage_t *s = chain->stages; s < chain->stages + chain->count; ++s) {
    if (s->add != NULL && add_shift(chain, s) < -MOST_UP) return 0;
    if (s->out == NULL) continue;
    const int32_t more = out_shift(chain, s);
    if (s->p->multiplier == NULL && (more < 0 || more > 31)) return 0;
    if (s->p->multiplier != NULL && !fits(s->p, b->first, b->n, more)) return 0;
  }
  return 1;
}

int32_t mcg_chain_block_wide(const mcg_chain_t *chain, const mcg_block_t *block) {
  mcg_block_t b = *block;
  if (!is_usual(chain, &b)) return 0;
  if (b.channels == 1) b.n = b.channels = b.pitch = b.width, b.width = 1; /* elements that have all in common */
  for (int32_t j = 0; j < b.n; j += MCG_WIDTH) {
    const lanes_t lanes = {&b, j, mcg_min(MCG_WIDTH, b.n - j)};
    for (const mcg_stage_t *s = chain->stages; s < chain->stages + chain->count; ++s) {
      if (s->add != NULL && add_shift(chain, s) < 8) add(&lanes, s->add, add_shift(chain, s));
      finish(&lanes, s, s->out != NULL ? out_shift(chain, s) : 0, s + 1 == chain->stages + chain->count);
    }
  }
  return 1;
}
