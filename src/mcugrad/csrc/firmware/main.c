/* The firmware: one model, its two blocks of SRAM, served over the link. */
#include "link.h"
#include "mmio.h"
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

#if MCG_STORED_LATENTS
static int8_t latents[MODEL_LATENT_SLOTS * MODEL_LATENT_PITCH]
    __attribute__((used, aligned(MODEL_LATENT_ERASE), section(".bss.latents"))); /* in flash: see the linker script */

/* See mcg_store_t; a latent that reads back otherwise is no latent. */
static int firmware_keep(void *user, uint32_t slot, const int8_t *latent, uint32_t bytes) {
  const volatile int8_t *const kept = latents + slot * MODEL_LATENT_PITCH;
  const uint32_t at = (uint32_t)(uintptr_t)kept;
  int differs = 0;
  (void)user;
  for (uint32_t unit = 0u; unit < MODEL_LATENT_PITCH; unit += MODEL_LATENT_ERASE) {
    if (mmio_flash_erase(at + unit) != 0) return 1;
  }
  if (mmio_flash_program(at, (const uint8_t *)latent, bytes) != 0) return 1;
  for (uint32_t i = 0u; i < bytes; ++i) differs |= kept[i] != latent[i];
  return differs;
}

static const mcg_store_t store = {latents, firmware_keep, NULL};
#endif

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
#if MCG_STORED_LATENTS
  server.context.store = &store;
#endif
  for (;;) link_serve(&server);
}
