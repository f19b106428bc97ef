/* The epilogue of every input gradient, one row at a time: sum at fan-out, clamp mask, requantize. */
#include "backward.h"
#include "fixed.h"

static int32_t add_saturating(int32_t a, int32_t b) {
  int32_t sum;
  if (__builtin_add_overflow(a, b, &sum)) return a < 0 ? INT32_MIN : INT32_MAX;
  return sum;
}

/* acc [n] += RSH(g [n], k) */
static void add_row(const int8_t *g, int32_t k, int32_t n, int32_t *acc) {
  if (k >= 8) return; /* |g| <= 128 rounds to nothing */
  for (int32_t i = 0; i < n; ++i) acc[i] = add_saturating(acc[i], mcg_rsh(g[i], k));
}

/* acc [n] where y [n] passed its clamp, else 0 */
static void mask_row(const int8_t *y, int32_t n, int32_t *acc) {
  for (int32_t i = 0; i < n; ++i) acc[i] = y[i] > -128 && y[i] < 127 ? acc[i] : 0;
}

/* The same by bits [n]. */
static void mask_row_bits(const uint8_t *bits, int32_t n, int32_t *acc) {
  for (int32_t i = 0; i < n; ++i) acc[i] = (bits[i >> 3] >> (i & 7) & 1) != 0 ? acc[i] : 0;
}

/* out [n] = clampg(RSH(acc [n], k)); returns how many the clamp changed. */
static int32_t store_row(const int32_t *acc, int32_t k, int32_t n, int8_t *out) {
  int32_t clamped = 0;
  for (int32_t i = 0; i < n; ++i) out[i] = mcg_clampg_counted(mcg_rsh(acc[i], k), &clamped);
  return clamped;
}

/* out [n] = clampg(MBQM(acc [n])) with multiplier and shift [channels], every shift `more` larger. */
static int32_t requantize_row(const mcg_stage_params_t *p, const int32_t *acc, int32_t more, int32_t n, int8_t *out) {
  int32_t clamped = 0;
  for (int32_t c = 0; c < p->channels; ++c) {
    const int32_t m = p->multiplier[c], sh = mcg_between(p->shift[c] + more, 1, 62);
    for (int32_t i = c; i < n; i += p->channels) out[i] = mcg_requantize_grad(acc[i], m, sh, &clamped);
  }
  return clamped;
}

static int32_t out_row(const mcg_stage_params_t *p, int32_t acc_exponent, const int8_t *exponents, const int32_t *acc,
                       int32_t n, int8_t *out) {
  const int32_t more = mcg_exponent(exponents, p->out_slot) - acc_exponent;
  return p->multiplier != NULL ? requantize_row(p, acc, more, n, out) : store_row(acc, more, n, out);
}

void mcg_chain_row(const mcg_chain_t *chain, int32_t r, int32_t n, int32_t *acc) {
  for (int32_t s = 0; s < chain->count; ++s) {
    const mcg_stage_t *stage = &chain->stages[s];
    const mcg_stage_params_t *p = stage->p;
    const int32_t e = mcg_exponent(chain->exponents, p->acc_slot);
    if (stage->add != NULL) add_row(stage->add + r * n, e - mcg_exponent(chain->exponents, p->add_slot), n, acc);
    if (stage->mask != NULL && p->mask_bits) {
      mask_row_bits((const uint8_t *)stage->mask + r * ((n + 7) / 8), n, acc);
    } else if (stage->mask != NULL) {
      mask_row((const int8_t *)stage->mask + r * n, n, acc);
    }
    if (stage->out == NULL) continue;
    const int32_t clamped = out_row(p, e, chain->exponents, acc, n, stage->out + r * n);
    *stage->clamped = (r == 0 ? 0 : *stage->clamped) + clamped;
  }
}
