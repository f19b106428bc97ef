/* The firmware: one model, its two blocks of SRAM, served over the link. */
#include "link.h"
#include "model.h"
#include "startup.h"

#define AT_LEAST_ONE(n) ((n) > 0 ? (n) : 1)

static uint8_t arena[AT_LEAST_ONE(MODEL_ARENA_BYTES)] __attribute__((aligned(MCG_ALIGN)));
static uint8_t state[AT_LEAST_ONE(MODEL_STATE_BYTES)] __attribute__((aligned(MCG_ALIGN)));
static int32_t logits[MODEL_CLASSES];
#if MODEL_TARGETS
static int32_t target_numbers[MODEL_TARGETS];
#define TARGET target_numbers
#else
#define TARGET NULL
#endif
static link_t server;

void firmware_fault(uint32_t pc, uint32_t status) {
  link_fault(&server, pc, status);
}

int main(void) {
  mcg_status_t status;
  link_open(&server, &mcg_model, logits, TARGET);
  status = mcg_init(&mcg_model, &server.context, arena, sizeof arena, state, sizeof state);
  if (status != MCG_OK) {
    firmware_fault(0u, (uint32_t)status);
    return 1;
  }
#if MODEL_INPUT_ROWS
  server.context.row_source = link_row;
  server.context.row_user = &server;
#endif
  for (;;) link_serve(&server);
}
