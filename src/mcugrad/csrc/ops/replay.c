/* Latent replay: a class-balanced reservoir of int8 activations behind the arena, and what is drawn from it.
 *
 * The buffer: uint32 used; uint32 seen[classes]; uint32 kept[classes]; uint16 label[slots], to a multiple of four bytes;
 * int8 latent[slots][bytes], which may lie in flash instead.  Every decision is a function of the seed and of how many samples
 * came, or of the step.
 */
#include "fixed.h"
#include "kernels.h"

#define OFFERED 0xFFFFFFFFu /* in the place of a tensor's number */
#define DRAWN 0xFFFFFFFEu
#define RETIRED 0xFFFFu /* in the place of a label: flash did not take what was written to that slot */

typedef struct {
  uint32_t *used, *seen, *kept;
  uint16_t *label;
  int8_t *latent;
} buffer_t;

static buffer_t buffer_of(const mcg_replay_t *p, const mcg_context_t *c) {
  uint32_t *const words = (uint32_t *)(void *)(c->arena + p->block);
  buffer_t b;
  b.used = words;
  b.seen = words + 1;
  b.kept = b.seen + p->classes;
  b.label = (uint16_t *)(b.kept + p->classes);
  b.latent = (int8_t *)(b.label + ((p->slots + 1u) & ~1u));
  return b;
}

/* A number in [0, n) of 32 random bits. */
static uint32_t below(uint32_t bits, uint32_t n) { return (uint32_t)((uint64_t)bits * n >> 32); }

/* The slot of sample `number` among those of a class. */
static uint32_t member(const buffer_t *b, uint32_t label, uint32_t number) {
  uint32_t slot = 0u;
  for (;; ++slot) {
    if (b->label[slot] == label && number-- == 0u) return slot;
  }
}

/* Classes that are held. */
static uint32_t held(const mcg_replay_t *p, const buffer_t *b) {
  uint32_t present = 0u;
  for (uint32_t k = 0; k < p->classes; ++k) present += b->kept[k] != 0u;
  return present;
}

/* The slot for a new sample of class `label`, `slots` when it is not kept.  A class that has lost samples gets another slot only
 * where that leaves the classes closer to equal: else two that share a slot too few would take it from each other for ever. */
static uint32_t place(const mcg_replay_t *p, const buffer_t *b, uint32_t seed, uint32_t label) {
  uint32_t came = 0u, full = 0u;
  if (*b->used < p->slots) return (*b->used)++;
  for (uint32_t k = 0; k < p->classes; ++k) {
    came += b->seen[k];
    if (b->kept[k] > b->kept[full]) full = k;
  }
  const uint32_t bits = mcg_random(seed, came, OFFERED, 0u), lost = b->seen[label] - 1u - b->kept[label];
  uint32_t from = label, number = below(bits, b->seen[label]);
  if (b->kept[label] + (lost != 0u) < b->kept[full]) {
    from = full;
    number = below(bits, b->kept[full]);
  } else if (number >= b->kept[label]) {
    return p->slots;
  }
  b->kept[from] -= 1u;
  return member(b, from, number);
}

static void copy(int8_t *to, const int8_t *from, uint32_t bytes) {
  for (uint32_t i = 0; i < bytes; ++i) to[i] = from[i];
}

#if MCG_STORED_LATENTS
static const int8_t *latent_in(const mcg_replay_t *p, const mcg_context_t *c, const buffer_t *b, uint32_t slot) {
  (void)p, (void)b;
  return c->store->latents + slot * mcg_latents.pitch;
}

/* Non-zero when flash does not take it. */
static int keep(const mcg_replay_t *p, const mcg_context_t *c, const buffer_t *b, uint32_t slot) {
  (void)b;
  return c->store->write(c->store->user, slot, (const int8_t *)(c->arena + p->latent), p->bytes);
}
#else
static const int8_t *latent_in(const mcg_replay_t *p, const mcg_context_t *c, const buffer_t *b, uint32_t slot) {
  (void)c;
  return b->latent + slot * p->bytes;
}

static int keep(const mcg_replay_t *p, const mcg_context_t *c, const buffer_t *b, uint32_t slot) {
  copy(b->latent + slot * p->bytes, (const int8_t *)(c->arena + p->latent), p->bytes);
  return 0;
}
#endif

mcg_status_t mcg_replay_offer(const mcg_replay_t *p, const mcg_context_t *c, int32_t target) {
  const buffer_t b = buffer_of(p, c);
  const uint32_t label = (uint32_t)target;
  if (c->step == 0u) {
    for (uint32_t i = 0; i < 1u + 2u * p->classes; ++i) b.used[i] = 0u;
  }
  b.seen[label] += 1u;
  const uint32_t slot = place(p, &b, c->seed, label);
  if (slot == p->slots) return MCG_STORED_LATENTS && held(p, &b) == 0u ? MCG_E_STORE : MCG_OK;
  if (keep(p, c, &b, slot) != 0) {
    b.label[slot] = RETIRED;
    return MCG_E_STORE;
  }
  b.kept[label] += 1u;
  b.label[slot] = (uint16_t)label;
  return MCG_OK;
}

int32_t mcg_replay_load(const mcg_replay_t *p, const mcg_context_t *c) {
  const buffer_t b = buffer_of(p, c);
  const uint32_t key = mcg_random_key(c->seed, c->step, DRAWN);
  const uint32_t present = held(p, &b);
  uint32_t label = 0u, turn = below(mcg_random_at(key, 0u), present);
  if (MCG_STORED_LATENTS && present == 0u) return -1;
  for (; b.kept[label] == 0u || turn-- != 0u; ++label) {}
  const uint32_t slot = member(&b, label, below(mcg_random_at(key, 1u), b.kept[label]));
  copy((int8_t *)(c->arena + p->latent), latent_in(p, c, &b, slot), p->bytes);
  return (int32_t)label;
}
