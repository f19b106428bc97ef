/* One stage of a chain by MVE: four neighbouring channels are the lanes, one position after the other. */
#include "chain_mve.h"

#include "fixed.h"
#include "ops/mve.h"

#if MCG_MVE

/* Four channels of a block; `next`: elements of an operand from one position to the next. */
typedef struct {
  int32_t *acc;
  int32_t pitch, count, next;
} lanes_t;

/* Where a mask of bits has the four channels: bytes from that of the first one on, and the bit in each. */
typedef struct {
  uint32x4_t bytes, bit;
} bits_t;

/* clampg(RSH(high word of acc * multiplier, -shift)) */
typedef struct {
  int32x4_t multiplier, shift;
} factors_t;

MCG_INLINE bits_t bits_of(int32_t channel) {
  const uint32x4_t at = vidupq_n_u32((uint32_t)channel & 7u, 1);
  const bits_t bits = {vshrq_n_u32(at, 3),
                       vshlq_u32(vdupq_n_u32(1u), vreinterpretq_s32_u32(vandq_u32(at, vdupq_n_u32(7u))))};
  return bits;
}

/* Lanes that the mask passes: where the bit is 1, or the clamp's output is at no limit, its own sign bit and 127 ones. */
MCG_INLINE mve_pred16_t passed(const uint8_t *mask, const bits_t *bits) {
  if (bits != NULL) return vcmpneq_n_u32(vandq_u32(vldrbq_gather_offset_u32(mask, bits->bytes), bits->bit), 0u);
  const int32x4_t v = vldrbq_s32((const int8_t *)mask);
  return vcmpneq_n_s32(veorq_s32(v, vshrq_n_s32(v, 31)), 127);
}

/* acc += RSH(g, k) */
static MCG_APART void add_lanes(const lanes_t *l, const int8_t *g, int32_t k) {
  const int32x4_t shift = vdupq_n_s32(mcg_between(-k, -32, 32));
  const int32_t pitch = l->pitch, next = l->next;
  int32_t *acc = l->acc;
  for (int32_t i = l->count; i > 0; --i, acc += pitch, g += next) {
    vstrwq_s32(acc, vqaddq_s32(vldrwq_s32(acc), vqrshlq_s32(vldrbq_s32(g), shift)));
  }
}

/* acc = 0 where the mask says so; step: its bytes from one position to the next. */
MCG_INLINE void mask(const lanes_t *l, const uint8_t *from, int32_t step, const bits_t *bits) {
  const int32_t pitch = l->pitch;
  int32_t *acc = l->acc;
  for (int32_t i = l->count; i > 0; --i, acc += pitch, from += step) {
    vstrwq_s32(acc, vldrwq_z_s32(acc, passed(from, bits)));
  }
}

static MCG_APART void mask_bytes(const lanes_t *l, const uint8_t *from) { mask(l, from, l->next, NULL); }

static MCG_APART void mask_bits(const lanes_t *l, const uint8_t *from, int32_t channel) {
  const bits_t bits = bits_of(channel);
  mask(l, from, l->next >> 3, &bits);
}

/* The output, after the mask if there is one, which acc is given too.  Returns the largest magnitude before the clamp. */
MCG_INLINE uint32_t store(const lanes_t *l, factors_t f, int8_t *out, int masked, const uint8_t *from, int32_t step,
                          const bits_t *bits) {
  const int32x4_t low = vdupq_n_s32(-127), high = vdupq_n_s32(127);
  const int32_t pitch = l->pitch, next = l->next;
  int32_t *acc = l->acc;
  uint32x4_t most = vdupq_n_u32(0u);
  for (int32_t i = l->count; i > 0; --i, acc += pitch, out += next, from += step) {
    const int32x4_t sum = masked ? vldrwq_z_s32(acc, passed(from, bits)) : vldrwq_s32(acc);
    if (masked) vstrwq_s32(acc, sum);
    const int32x4_t v = mcg_mbqm_lanes(sum, f.multiplier, f.shift);
    most = vmaxaq_s32(most, v);
    vstrbq_s32(out, vminq_s32(vmaxq_s32(v, low), high));
  }
  return vmaxvq_u32(0u, most);
}

static MCG_APART uint32_t store_plain(const lanes_t *l, factors_t f, int8_t *out) { return store(l, f, out, 0, NULL, 0, NULL); }

static MCG_APART uint32_t store_bytes(const lanes_t *l, factors_t f, int8_t *out, const uint8_t *from) {
  return store(l, f, out, 1, from, l->next, NULL);
}

static MCG_APART uint32_t store_bits(const lanes_t *l, factors_t f, int8_t *out, const uint8_t *from, int32_t channel) {
  const bits_t bits = bits_of(channel);
  return store(l, f, out, 1, from, l->next >> 3, &bits);
}

/* How many outputs the clamp changed. */
MCG_RARE int32_t count_clamped(const lanes_t *l, factors_t f) {
  const int32_t *acc = l->acc;
  uint32_t clamped = 0u;
  for (int32_t i = l->count; i > 0; --i, acc += l->pitch) {
    const uint32x4_t size = vreinterpretq_u32_s32(vqabsq_s32(mcg_mbqm_lanes(vldrwq_s32(acc), f.multiplier, f.shift)));
    clamped = vaddvaq_p_u32(clamped, vdupq_n_u32(1u), vcmphiq_n_u32(size, 127u));
  }
  return (int32_t)clamped;
}

/* The stage's factors from channel c on; 0 where a shift forbids the high word. */
static int load_factors(const mcg_stage_params_t *p, int32_t c, int32_t more, factors_t *f) {
  int32x4_t shift = vdupq_n_s32(30); /* RSH is MBQM by one half */
  f->multiplier = vdupq_n_s32(1 << 30);
  if (p->multiplier != NULL) {
    const mcg_factor_t a = mcg_stage_factor(p, c), b = mcg_stage_factor(p, c + 1);
    const mcg_factor_t d = mcg_stage_factor(p, c + 2), e = mcg_stage_factor(p, c + 3);
    f->multiplier = mcg_words(a.multiplier, b.multiplier, d.multiplier, e.multiplier);
    shift = mcg_words(a.shift, b.shift, d.shift, e.shift);
  }
  shift = vaddq_n_s32(shift, more);
  f->shift = vsubq_s32(vdupq_n_s32(32), shift);
  return vminvq_s32(INT32_MAX, shift) >= 33 && vmaxvq_s32(INT32_MIN, shift) <= 62;
}

int mcg_chain_mve(const mcg_block_t *b, int32_t j, const mcg_stage_t *s, const int8_t *exponents) {
  const mcg_stage_params_t *p = s->p;
  const int32_t e = mcg_exponent(exponents, p->acc_slot), c = b->first + j, at = b->row * b->width * b->channels + c;
  const lanes_t l = {b->acc + j, b->pitch, b->rows * b->width, b->channels};
  const uint8_t *const from = (const uint8_t *)s->mask + (p->mask_bits ? at >> 3 : at);
  factors_t f;
  if (s->mask != NULL && p->mask_bits && b->channels % 8 != 0) return 0;
  if (s->out != NULL && !load_factors(p, c, mcg_exponent(exponents, p->out_slot) - e, &f)) return 0;
  const int32_t k = s->add != NULL ? e - mcg_exponent(exponents, p->add_slot) : 8; /* 8: |g| <= 128 rounds to nothing */
  if (k < 8) add_lanes(&l, s->add + at, k);
  if (s->out == NULL) {
    if (s->mask != NULL && p->mask_bits) mask_bits(&l, from, c);
    else if (s->mask != NULL) mask_bytes(&l, from);
    return 1;
  }
  const uint32_t most = s->mask == NULL ? store_plain(&l, f, s->out + at)
                        : p->mask_bits  ? store_bits(&l, f, s->out + at, from, c)
                                        : store_bytes(&l, f, s->out + at, from);
  if (most > 127u) *s->clamped += count_clamped(&l, f);
  return 1;
}

#endif
