/* A model written by hand for the tests of the firmware: one linear layer, trained by the perceptron's rule. */
#include "model.h"

#include "ops/tiny.h"

/* What a broken model does when it learns label 3. */
#if defined(TINY_FAULT)
void mcg_tiny_fault(int32_t label);
__attribute__((noinline)) void mcg_tiny_fault(int32_t label) {
  if (label == 3) *(volatile uint32_t *)(uintptr_t)TINY_FAULT = 1u;
}
#elif defined(TINY_RECURSION)
int32_t mcg_tiny_fault(int32_t label);
__attribute__((noinline)) int32_t mcg_tiny_fault(int32_t label) {
  volatile int32_t frame[16];
  frame[1] = label == 3 ? mcg_tiny_fault(label) : 0;
  return frame[1];
}
#elif defined(TINY_FOREVER)
void mcg_tiny_fault(int32_t label);
__attribute__((noinline)) void mcg_tiny_fault(int32_t label) {
  volatile int32_t turns = 0;
  while (label == 3) turns += 1;
}
#else
#define mcg_tiny_fault(label) (void)(label)
#endif

static mcg_status_t tiny_input(const mcg_context_t *c) {
#if TINY_ROWS
  for (int32_t row = 0; row < 8; ++row) {
    if (c->row_source(c->row_user, row, (int8_t *)c->arena + 16 * row) != 0) return MCG_E_ROW;
  }
#else
  (void)c;
#endif
  return MCG_OK;
}

static mcg_status_t mcg_model_infer(const mcg_context_t *c, int32_t *logits) {
  const mcg_status_t status = tiny_input(c);
  if (status != MCG_OK) return status;
  mcg_tiny_linear((const int8_t *)c->arena, (const int16_t *)c->state, (const int32_t *)(c->state + 1024), logits);
  return MCG_OK;
}

static mcg_status_t mcg_model_train(const mcg_context_t *c, const int32_t *target, mcg_result_t *result) {
  const int32_t label = *target;
  const int8_t *x = (const int8_t *)c->arena;
  int16_t *weight = (int16_t *)c->state;
  int32_t *bias = (int32_t *)(c->state + 1024);
  int32_t *logits = (int32_t *)(c->arena + 128);
  int32_t *gradient = (int32_t *)(c->arena + 144);
  const mcg_status_t status = tiny_input(c);
  if (status != MCG_OK) return status;
  mcg_tiny_linear(x, weight, bias, logits);
  mcg_tiny_linear_grad(logits, label, gradient);
  mcg_tiny_fault(label);
  result->p_label = gradient[label] == 0 ? 32768 : 0;
  result->predicted = mcg_argmax(logits, 4);
  result->progress = MCG_STEP_SKIPPED;
  result->saturated = 0;
  if (result->p_label >= c->skip) return MCG_OK;
  mcg_tiny_linear_update(x, gradient, 6 + c->halvings, weight, bias);
  result->progress = MCG_STEP_FULL;
  return MCG_OK;
}

static const uint8_t initial_state[6] = {4, 0, 1, 0, 2, 0}; /* four bytes as they are */
static const mcg_parameter_t parameters[2] = {{"weight", 0u, 1024u}, {"bias", 1024u, 16u}};

const mcg_model_t mcg_model = {
    MCG_ABI, 0x7E57AB1Eu, MODEL_ARENA_BYTES, MODEL_STATE_BYTES, 0u, 128u, 8u, MODEL_ROW_BYTES, TINY_ROWS,
    MODEL_CLASSES, MODEL_TARGETS, 2u, sizeof initial_state, initial_state, parameters, mcg_model_infer, mcg_model_train,
};
