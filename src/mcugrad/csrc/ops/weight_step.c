/* One SGD step of an int8 weight with 0, 4 or 8 residual bits, in place.
 *
 * W = (w << F) + residual - ((gradient + r) >> k), kept within +-(127 << F); w = RSH(W, F), residual = W - (w << F).
 */
#include "weight_step.h"

#include "backward.h"
#include "hold.h"
#include "uses.h"
#include "wide.h"

/* Elements of a weight that share their shift. */
typedef struct {
  int8_t *weight; /* the first element */
  void *residual; /* of the whole weight */
  int32_t at;     /* index of the first element in the residual */
  int32_t k;      /* the gradient's shift */
  uint32_t key;   /* of the random numbers */
} run_t;

/* The low four bits of v as a signed number. */
static inline int32_t signed_nibble(int32_t v) {
  v &= 15;
  return (v ^ 8) - 8;
}

/* Signed 4-bit element i of `packed`, low nibble first. */
static inline int32_t load_nibble(const uint8_t *packed, int32_t i) {
  return signed_nibble(packed[i >> 1] >> (4 * (i & 1)));
}

static inline void store_nibble(uint8_t *packed, int32_t i, int32_t v) {
  const int32_t shift = 4 * (i & 1), kept = packed[i >> 1] & (0xF0 >> shift);
  packed[i >> 1] = (uint8_t)(kept | (v & 15) << shift);
}

/* The step (gradient + r) >> k of element n, within 21 bits, from where every weight ends at its limit.  r rounds to
 * nearest for F = 8, else it is a number in [0, 2^k) that belongs to n. */
MCG_INLINE int32_t step_of(const run_t *run, int32_t bits, int32_t grad, uint32_t n) {
  const int32_t k = run->k;
  int32_t step;
  if (k <= 0 || k > 31) {
    step = mcg_rsh(grad, k);
  } else if (bits == 8) {
    step = (grad >> k) + (grad >> (k - 1) & 1);
  } else {
    step = mcg_shift_down(grad, k, mcg_random_at(run->key, n) & ((1u << k) - 1u));
  }
  return mcg_between(step, -(1 << 20), (1 << 20) - 1);
}

/* Moves element i of the run by its gradient; returns the change of the int8 weight. */
MCG_INLINE int32_t move(const run_t *run, int32_t bits, int32_t i, int32_t grad, uint32_t n) {
  const int32_t u = step_of(run, bits, grad, n), old = run->weight[i], limit = 127 * (1 << bits);
  int32_t residual = 0;
  if (bits == 8) residual = ((const int8_t *)run->residual)[run->at + i];
  if (bits == 4) residual = load_nibble((const uint8_t *)run->residual, run->at + i);
  const int32_t moved = mcg_between(old * (1 << bits) + residual - u, -limit, limit), now = mcg_rsh(moved, bits);
  run->weight[i] = (int8_t)now;
  if (bits == 8) ((int8_t *)run->residual)[run->at + i] = (int8_t)(moved - now * 256);
  if (bits == 4) store_nibble((uint8_t *)run->residual, run->at + i, moved - now * 16);
  return now - old;
}

/* k without base[o]; the learning rate's halvings count here. */
static int32_t common_shift(const mcg_weight_step_t *step) {
  return step->c->halvings - mcg_exponent(step->exponents, step->p->rate->slot) - *step->sample_exponent -
         step->p->residual_bits;
}

static uint32_t random_key(const mcg_weight_step_t *step) {
  const uint32_t key = mcg_random_key(step->c->seed, step->c->step, (uint32_t)step->p->tensor);
  return key + mcg_random_number((uint32_t)step->p->first);
}

/* Moves elements i ... n - 1 of the run and leaves their changes in grad [n]; random indices are row + channel. */
MCG_INLINE void move_all(const run_t *run, int32_t bits, int32_t i, int32_t n, int32_t *grad, uint32_t row,
                         const uint16_t *order) {
  MCG_ROLLED for (; i < n; ++i) {
    const uint32_t number = bits == 8 ? 0u : row + (order != NULL ? order[i] : (uint32_t)i);
    grad[i] = move(run, bits, i, grad[i], number);
  }
}

static MCG_NOINLINE void move_all_8(const run_t *run, int32_t n, int32_t *grad) { move_all(run, 8, 0, n, grad, 0u, NULL); }

static MCG_NOINLINE void move_all_4(const run_t *run, int32_t i, int32_t n, int32_t *grad, uint32_t row,
                                    const uint16_t *order) {
  move_all(run, 4, i, n, grad, row, order);
}

static MCG_NOINLINE void move_all_0(const run_t *run, int32_t n, int32_t *grad, uint32_t row, const uint16_t *order) {
  move_all(run, 0, 0, n, grad, row, order);
}

/* A weight of four residual bits: W - step in [-2032, 2032], for 0 < k <= 31. */
MCG_INLINE int32_t moved_4(int32_t weight, int32_t residual, int32_t grad, int32_t k, uint32_t below, uint32_t random) {
  const int32_t step = (grad >> k) + (int32_t)((((uint32_t)grad & below) + (random & below)) >> k);
  return mcg_between(weight * 16 + residual - mcg_between(step, -(1 << 20), (1 << 20) - 1), -2032, 2032);
}

/* The gradient, shift and random number of a weight. */
typedef struct {
  int32_t grad, k;
  uint32_t random;
} share_t;

/* Moves two weights of four residual bits, those of the byte at `packed`; leaves their changes in the gradients. */
MCG_INLINE void move_pair_4(int8_t *low, int8_t *high, int8_t *packed, share_t *a, share_t *b) {
  const int32_t old = *packed, first = *low, second = *high;
  const int32_t moved = moved_4(first, signed_nibble(old), a->grad, a->k, (1u << a->k) - 1u, a->random);
  const int32_t other = moved_4(second, signed_nibble(old >> 4), b->grad, b->k, (1u << b->k) - 1u, b->random);
  *low = (int8_t)((moved + 8) >> 4);
  *high = (int8_t)((other + 8) >> 4);
  *packed = (int8_t)((moved & 15) | (int32_t)((uint32_t)(other & 15) << 4));
  a->grad = *low - first;
  b->grad = *high - second;
}

/* move_all for four residual bits where both elements of each byte are there and 0 < k <= 31. */
static MCG_NOINLINE void move_pairs_4(const run_t *run, int32_t i, int32_t n, int32_t *grad, uint32_t row,
                                      const uint16_t *order) {
  int8_t *w = run->weight, *packed = (int8_t *)run->residual + ((run->at + i) >> 1);
  MCG_ROLLED for (; i < n; i += 2) {
    const uint32_t first = row + (order != NULL ? order[i] : (uint32_t)i);
    const uint32_t second = row + (order != NULL ? order[i + 1] : (uint32_t)i + 1u);
    share_t a = {grad[i], run->k, mcg_random_at(run->key, first)}, b = {grad[i + 1], run->k, mcg_random_at(run->key, second)};
    move_pair_4(w + i, w + i + 1, packed++, &a, &b);
    grad[i] = a.grad;
    grad[i + 1] = b.grad;
  }
}

/* move_all for four residual bits: by pairs but for an element at either end that shares its byte with another row. */
static void move_run_4(const run_t *run, int32_t n, int32_t *grad, uint32_t row, const uint16_t *order) {
  const int32_t first = run->k > 0 && run->k <= 31 ? run->at & 1 : n, last = first < n ? first + ((n - first) & ~1) : n;
  if (first > 0) move_all_4(run, 0, mcg_min(first, n), grad, row, order);
  if (first < last) move_pairs_4(run, first, last, grad, row, order);
  if (last < n) move_all_4(run, last, n, grad, row, order);
}

static void move_run(const run_t *run, int32_t bits, int32_t n, int32_t *grad, uint32_t row, const uint16_t *order) {
  if (MCG_USES_RESIDUAL_8 && bits == 8) move_all_8(run, n, grad);
  else if (MCG_USES_RESIDUAL_0 && bits == 0) move_all_0(run, n, grad, row, order);
  else move_run_4(run, n, grad, row, order);
}

/* sum of the changes [n], each times its channel's mean */
static int64_t weigh(const int16_t *mu, int32_t n, const int32_t *change) {
  int64_t sum = 0;
  for (int32_t i = 0; i < n; ++i) sum += (int64_t)mu[i] * change[i];
  return sum;
}

int32_t mcg_gather(const mcg_sum_t *s, int32_t at, int32_t n, int32_t *grad) {
  if (s == NULL) return 0;
  int32_t *const sum = s->sum + at, *const to = s->more ? sum : grad;
  const int32_t *const from = s->more ? grad : sum;
  if (s->add) {
    MCG_COMPACT for (int32_t i = 0; i < n; ++i) to[i] += from[i];
  } else if (s->more) {
    MCG_COMPACT for (int32_t i = 0; i < n; ++i) to[i] = from[i];
  }
  return s->more;
}

/* What a sample adds to element i of the run; number: of the random numbers.  Returns the step it lets out. */
static int32_t hold(const mcg_weight_step_t *step, const run_t *run, int32_t i, int32_t grad, uint32_t number) {
  run_t share = *run;
  share.k += step->p->residual_bits - MCG_HOLD_BITS;
  return mcg_hold_16(step->hold, run->at + i, step_of(&share, 0, grad, number));
}

/* Leaves in grad [n] the steps that the sample lets out, to be taken as they are; returns whether there are none. */
static MCG_NOINLINE int hold_all(const mcg_weight_step_t *step, run_t *run, int32_t n, int32_t *grad, uint32_t row,
                                 const uint16_t *order) {
  for (int32_t i = 0; i < n; ++i) {
    grad[i] = hold(step, run, i, grad[i], row + (order != NULL ? order[i] : (uint32_t)i));
  }
  run->k = 0;
  return *step->hold->count != step->hold->last;
}

int64_t mcg_weight_step(const mcg_weight_step_t *step, int32_t o, int32_t tap, int32_t first, int32_t n, int32_t *grad,
                        const int16_t *mu) {
  const mcg_weight_params_t *p = step->p;
  const int32_t row = o * p->taps + tap, at = row * p->live + first;
  if (MCG_USES_SUMS && mcg_gather(step->sum, at, n, grad)) return 0;
  const uint16_t *order = p->order != NULL ? p->order + first : NULL;
  const uint32_t full = (uint32_t)(row * p->total + (order != NULL ? 0 : first));
  run_t run = {step->weight + at, step->residual, at, mcg_base(p->rate, o) + common_shift(step), random_key(step)};
  if (MCG_USES_HELD && step->hold != NULL && hold_all(step, &run, n, grad, full, order)) return 0;
  const int moved = MCG_WIDE && mcg_weight_run_wide(step, at, n, run.k, run.key, full, order, grad);
  if (!moved) move_run(&run, p->residual_bits, n, grad, full, order);
  return !MCG_USES_MEANS || mu == NULL ? 0 : weigh(mu, n, grad);
}

void mcg_centre(const mcg_weight_step_t *step, int32_t o, int64_t by) {
  if (MCG_USES_SUMS && step->sum != NULL && step->sum->more) return;
  mcg_move_bias(step->bias, step->delta, o, by);
}

void mcg_weight_rows_start(const mcg_weight_step_t *step, mcg_weight_rows_t *rows) {
  const mcg_weight_params_t *p = step->p;
  rows->nibbles = 0;
  if (step->sum != NULL || step->hold != NULL) return; /* by mcg_weight_step alone */
  rows->shift = common_shift(step);
  rows->key = random_key(step);
  if (!MCG_ASM || p->residual_bits != 4) return;
  if (((rows->first | p->live) & 1) == 0) rows->nibbles = rows->n & ~3;
  else if (MCG_USES_ODD_ROWS && rows->n == p->live) rows->nibbles = -1;
}

/* sum mu * w of n weights, a multiple of four, at most MCG_GRADS. */
static MCG_APART int32_t weigh_fours(const int16_t *mu, const int8_t *w, int32_t n) {
  int32_t sum = 0;
  MCG_ROLLED for (; n > 0; n -= 4, mu += 4, w += 4) {
    const uint32_t v = mcg_load4(w), low = mcg_load4(mu), high = mcg_load4(mu + 2);
    const uint32_t even = mcg_sxtb16(v), odd = mcg_sxtb16_odd(v);
    sum = mcg_smlabb(even, low, sum);
    sum = mcg_smlabt(odd, low, sum);
    sum = mcg_smlatb(even, high, sum);
    sum = mcg_smlatt(odd, high, sum);
  }
  return sum;
}

/* mcg_step_nibbles; returns sum mu * change, mu [s->n] or null. */
static int32_t step_nibbles(const mcg_nibbles_t *s, const int16_t *mu) {
  const int32_t before = mu != NULL ? weigh_fours(mu, s->weight, s->n) : 0;
  if (MCG_ASM) mcg_step_nibbles(s);
  return mu != NULL ? weigh_fours(mu, s->weight, s->n) - before : 0;
}

void mcg_weight_rows(const mcg_weight_step_t *step, int32_t o, int32_t outputs, const mcg_weight_rows_t *rows,
                     const int16_t *mu) {
  const mcg_weight_params_t *p = step->p;
  if (!MCG_USES_MEANS) mu = NULL;
  if (MCG_USES_ODD_ROWS && rows->nibbles < 0 && outputs == MCG_FOURS && mcg_weight_odd_rows(step, o, rows, mu)) return;
  int32_t *grad = rows->grad, at = o * p->live + rows->first;
  mcg_nibbles_t s = {NULL, NULL, grad, rows->number, rows->nibbles, 0, rows->key + mcg_random_number((uint32_t)(o * p->total))};
  MCG_ROLLED for (int32_t last = o + outputs; o < last; ++o, at += p->live, grad += MCG_GRADS) {
    int32_t done = 0;
    int64_t by = 0;
    if (MCG_ASM && s.n > 0) {
      s.k = mcg_base(p->rate, o) + rows->shift;
      if (mcg_step_is_bounded(s.k, rows->positions)) {
        done = s.n, s.weight = step->weight + at, s.residual = (uint8_t *)step->residual + (at >> 1), s.grad = grad;
        by = step_nibbles(&s, mu);
      }
      s.key += mcg_random_number((uint32_t)p->total);
    }
    if (done < rows->n) {
      by += mcg_weight_step(step, o, 0, rows->first + done, rows->n - done, grad + done, mu != NULL ? mu + done : NULL);
    }
    if (mu == NULL) continue;
    if (rows->first > 0) by += rows->moved[o];
    if (rows->first + rows->n < step->p->live) rows->moved[o] = (int32_t)by;
    else mcg_centre(step, o, by);
  }
}

/* hold_all for channels first ... first + n - 1 of a depthwise weight, grad [taps][n]; shift: without base[c]. */
static MCG_NOINLINE int hold_plane(const mcg_weight_step_t *step, int32_t first, int32_t n, int32_t *grad, int32_t shift) {
  const mcg_weight_params_t *p = step->p;
  run_t run = {step->weight, step->residual, 0, 0, random_key(step)};
  for (int32_t c = first; c < first + n; ++c) {
    const int32_t channel = p->order != NULL ? p->order[c] : c;
    run.k = mcg_base(p->rate, c) + shift;
    for (int32_t tap = 0; tap < p->taps; ++tap) {
      int32_t *g = &grad[tap * n + c - first];
      *g = hold(step, &run, tap * p->live + c, *g, (uint32_t)(channel * p->taps + tap));
    }
  }
  return *step->hold->count != step->hold->last;
}

/* Moves the weights of channel c of a depthwise weight, grad [taps] every n; returns the sum of their changes. */
static MCG_APART int32_t move_column(run_t *run, const mcg_weight_params_t *p, int32_t c, int32_t number, const int32_t *grad,
                                     int32_t n) {
  int32_t change = 0;
  for (int32_t at = c, last = c + p->taps * p->live; at < last; at += p->live, grad += n, ++number) {
    change += move(run, p->residual_bits, at, *grad, (uint32_t)number);
  }
  return change;
}

/* The same for channels c and c + 1, c even, of four residual bits, whose shifts k are 1 ... 31. */
static MCG_APART void move_columns_4(const run_t *run, const mcg_weight_params_t *p, int32_t c, const int32_t number[2],
                                     const int32_t k[2], const int32_t *grad, int32_t n, int32_t change[2]) {
  int8_t *w = run->weight + c, *packed = (int8_t *)run->residual + (c >> 1);
  change[0] = change[1] = 0;
  MCG_ROLLED for (int32_t tap = 0; tap < p->taps; ++tap, w += p->live, packed += p->live >> 1, grad += n) {
    share_t a = {grad[0], k[0], mcg_random_at(run->key, (uint32_t)(number[0] + tap))};
    share_t b = {grad[1], k[1], mcg_random_at(run->key, (uint32_t)(number[1] + tap))};
    move_pair_4(w, w + 1, packed, &a, &b);
    change[0] += a.grad;
    change[1] += b.grad;
  }
}

/* sum [4] of the weights of four channels over the taps, at most 256 */
static void sum_columns(const int8_t *w, const mcg_weight_params_t *p, int32_t *sum) {
  uint32_t even = 0u, odd = 0u;
  MCG_ROLLED for (int32_t tap = 0; tap < p->taps; ++tap, w += p->live) {
    const uint32_t v = mcg_load4(w);
    even = mcg_sxtab16(even, v), odd = mcg_sxtab16_odd(odd, v);
  }
  sum[0] = mcg_low(even), sum[1] = mcg_low(odd), sum[2] = mcg_high(even), sum[3] = mcg_high(odd);
}

/* mcg_depthwise_step of four channels by mcg_step_columns; returns whether it could.  shift: without base[c]. */
static MCG_APART int step_columns(const mcg_weight_step_t *step, int32_t first, int32_t positions, const int32_t *grad,
                                  int32_t shift) {
  const mcg_weight_params_t *p = step->p;
  if (p->residual_bits != 4 || ((first | p->live) & 1) != 0 || p->taps > 256 || step->sum != NULL) return 0;
  mcg_columns_t s = {{0u}, {0}, step->weight + first, (uint8_t *)step->residual + (first >> 1), grad, p->taps,
                     random_key(step), p->live};
  const int16_t *mu = MCG_USES_MEANS ? step->mu : NULL;
  int32_t channel[4], before[4], after[4];
  MCG_ROLLED for (int32_t i = 0; i < 4; ++i) {
    const int32_t k = mcg_base(p->rate, first + i) + shift;
    if (!mcg_step_is_bounded(k, positions)) return 0;
    channel[i] = p->order != NULL ? p->order[first + i] : first + i;
    s.number[i] = mcg_random_number((uint32_t)(channel[i] * p->taps));
    s.factor[i] = -(int32_t)(1u << (32 - k));
  }
  if (mu != NULL) sum_columns(s.weight, p, before);
  if (MCG_ASM) mcg_step_columns(&s);
  if (mu == NULL) return 1;
  sum_columns(s.weight, p, after);
  MCG_ROLLED for (int32_t i = 0; i < 4; ++i) {
    mcg_centre(step, channel[i], (int64_t)mu[first + i] * (after[i] - before[i]));
  }
  return 1;
}

void mcg_depthwise_step(const mcg_weight_step_t *step, int32_t first, int32_t n, int32_t positions, int32_t *grad) {
  const mcg_weight_params_t *p = step->p;
  int32_t more = 0;
  for (int32_t tap = 0; MCG_USES_SUMS && tap < p->taps; ++tap) more |= mcg_gather(step->sum, tap * p->live + first, n, grad + tap * n);
  if (more) return;
  run_t run = {step->weight, step->residual, 0, 0, random_key(step)};
  const int32_t shift = common_shift(step), whole = !MCG_USES_HELD || step->hold == NULL;
  const int pairs = whole && p->residual_bits == 4 && ((first | n | p->live) & 1) == 0;
  if (!whole && hold_plane(step, first, n, grad, shift)) return;
  if (MCG_WIDE && whole && p->order == NULL && mcg_depthwise_step_wide(step, first, n, grad, shift, run.key)) return;
  if (MCG_ASM && whole && n == 4 && step_columns(step, first, positions, grad, shift)) return;
  for (int32_t c = first, some; c < first + n; c += some) {
    int32_t channel[2], number[2], k[2], change[2];
    const int pair = pairs && (c & 1) == 0;
    for (int32_t i = 0; i < 1 + pair; ++i) {
      channel[i] = p->order != NULL ? p->order[c + i] : c + i;
      number[i] = channel[i] * p->taps, k[i] = whole ? mcg_base(p->rate, c + i) + shift : 0;
    }
    some = pair && k[0] > 0 && k[0] <= 31 && k[1] > 0 && k[1] <= 31 ? 2 : 1;
    run.k = k[0];
    if (some == 2) move_columns_4(&run, p, c, number, k, grad + c - first, n, change);
    else change[0] = move_column(&run, p, c, number[0], grad + c - first, n);
    for (int32_t i = 0; MCG_USES_MEANS && step->mu != NULL && i < some; ++i) {
      mcg_centre(step, channel[i], (int64_t)step->mu[c + i] * change[i]);
    }
  }
}
