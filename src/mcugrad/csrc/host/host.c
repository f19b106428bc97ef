/* The host twin's entry points: the model's two blocks and its input, so that Python makes one call per sample. */
#define _POSIX_C_SOURCE 200112L /* posix_memalign */
#include <stdlib.h>
#include <string.h>

#include "mcugrad.h"

extern const mcg_model_t mcg_model;

typedef struct {
  mcg_context_t context;
  const int8_t *sample; /* model->input_bytes, borrowed for the length of a call */
#if MCG_STORED_LATENTS
  mcg_store_t store;
#endif
} mcg_host_t;

mcg_host_t *mcg_host_open(void);
void mcg_host_close(mcg_host_t *h);
int32_t mcg_host_reset(mcg_host_t *h);
const mcg_model_t *mcg_host_model(void);
uint8_t *mcg_host_state(mcg_host_t *h);
mcg_context_t *mcg_host_context(mcg_host_t *h);
int32_t mcg_host_infer(mcg_host_t *h, const int8_t *sample, int32_t *logits);
int32_t mcg_host_train(mcg_host_t *h, const int8_t *sample, const int32_t *target, mcg_result_t *result);
int32_t mcg_host_infer_many(mcg_host_t *h, const int8_t *samples, int32_t n, int32_t *logits);
int32_t mcg_host_train_many(mcg_host_t *h, const int8_t *samples, const int32_t *targets, int32_t n,
                            mcg_result_t *results);
#if MCG_STORED_LATENTS
/* The flash that latents lie in; to be called before the first step. */
void mcg_host_store(mcg_host_t *h, const int8_t *latents, int (*write)(void *, uint32_t, const int8_t *, uint32_t));
#endif

static int host_row(void *user, int32_t row, int8_t *dst) {
  const mcg_host_t *h = (const mcg_host_t *)user;
  memcpy(dst, h->sample + (size_t)row * mcg_model.row_bytes, mcg_model.row_bytes);
  return 0;
}

#define LINE 64u /* bytes of a cache line: vectors then lie in one where the model's addresses let them */

/* Exactly so many bytes, that sanitizers see what is written beyond them. */
static uint8_t *block(size_t bytes) {
  void *found = NULL;
  return posix_memalign(&found, LINE, bytes != 0u ? bytes : 1u) == 0 ? (uint8_t *)found : NULL;
}

const mcg_model_t *mcg_host_model(void) { return &mcg_model; }

uint8_t *mcg_host_state(mcg_host_t *h) { return h->context.state; }

mcg_context_t *mcg_host_context(mcg_host_t *h) { return &h->context; }

int32_t mcg_host_reset(mcg_host_t *h) {
  const mcg_status_t status = mcg_init(&mcg_model, &h->context, h->context.arena, mcg_model.arena_bytes,
                                       h->context.state, mcg_model.state_bytes);
  h->context.row_source = host_row;
  h->context.row_user = h;
#if MCG_STORED_LATENTS
  h->context.store = &h->store;
#endif
  return (int32_t)status;
}

#if MCG_STORED_LATENTS
void mcg_host_store(mcg_host_t *h, const int8_t *latents, int (*write)(void *, uint32_t, const int8_t *, uint32_t)) {
  h->store.latents = latents;
  h->store.write = write;
  h->store.user = NULL;
}
#endif

mcg_host_t *mcg_host_open(void) {
  mcg_host_t *h = (mcg_host_t *)calloc(1, sizeof *h);
  if (h == NULL) return NULL;
  h->context.arena = block(mcg_model.arena_bytes);
  h->context.state = block(mcg_model.state_bytes);
  if (h->context.arena != NULL && h->context.state != NULL && mcg_host_reset(h) == MCG_OK) return h;
  mcg_host_close(h);
  return NULL;
}

void mcg_host_close(mcg_host_t *h) {
  free(h->context.arena);
  free(h->context.state);
  free(h);
}

static void present(mcg_host_t *h, const int8_t *sample) {
  h->sample = sample;
  if (mcg_model.input_rows == 0u) memcpy(mcg_input(&mcg_model, &h->context), sample, mcg_model.input_bytes);
}

int32_t mcg_host_infer(mcg_host_t *h, const int8_t *sample, int32_t *logits) {
  present(h, sample);
  return (int32_t)mcg_infer(&mcg_model, &h->context, logits);
}

int32_t mcg_host_train(mcg_host_t *h, const int8_t *sample, const int32_t *target, mcg_result_t *result) {
  present(h, sample);
  return (int32_t)mcg_train_target(&mcg_model, &h->context, target, result);
}

int32_t mcg_host_infer_many(mcg_host_t *h, const int8_t *samples, int32_t n, int32_t *logits) {
  for (int32_t i = 0; i < n; ++i) {
    const int32_t status = mcg_host_infer(h, samples + (size_t)i * mcg_model.input_bytes,
                                          logits + (size_t)i * mcg_model.classes);
    if (status != MCG_OK) return status;
  }
  return MCG_OK;
}

int32_t mcg_host_train_many(mcg_host_t *h, const int8_t *samples, const int32_t *targets, int32_t n,
                            mcg_result_t *results) {
  const size_t numbers = mcg_model.targets != 0u ? mcg_model.targets : 1u;
  for (int32_t i = 0; i < n; ++i) {
    const int32_t status = mcg_host_train(h, samples + (size_t)i * mcg_model.input_bytes,
                                          targets + (size_t)i * numbers, &results[i]);
    if (status != MCG_OK) return status;
  }
  return MCG_OK;
}
