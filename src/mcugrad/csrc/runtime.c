/* mcugrad: everything of mcugrad.h that is the same for every model. */
#include "mcugrad.h"

#define IMAGE_HEADER 16u
#define NEVER_SKIP 32769

#if MCG_STORED_LATENTS
#define COUNTS(status) ((status) == MCG_OK || (status) == MCG_E_STORE)
#else
#define COUNTS(status) ((status) == MCG_OK)
#endif

static const uint8_t image_magic[4] = {'M', 'C', 'G', 'P'};

static void put_u32(uint8_t *at, uint32_t v) {
  for (uint32_t i = 0; i < 4u; ++i) at[i] = (uint8_t)(v >> (8u * i));
}

static uint32_t get_u32(const uint8_t *at) {
  return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static void copy_bytes(uint8_t *to, const uint8_t *from, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) to[i] = from[i];
}

/* What learning starts from, unpacked: see mcg_model_t. */
static void load_initial(const mcg_model_t *m, uint8_t *state) {
  const uint8_t *from = m->initial_state, *const end = from + m->initial_bytes, *const last = state + m->state_bytes;
  while (from < end) {
    const uint32_t head = (uint32_t)from[0] | (uint32_t)from[1] << 8, kind = head >> 14;
    from += 2;
    for (uint32_t n = head & 0x3FFFu; n > 0u; --n) {
      *state++ = kind == MCG_INITIAL_ZEROS ? 0u : *from++;
      if (kind != MCG_INITIAL_NARROW) continue;
      state[1] = state[2] = *from & 0x80u ? 0xFFu : 0u;
      *state = *from++;
      state += 3;
    }
  }
  while (state < last) *state++ = 0u;
}

static int block_fits(const void *block, size_t bytes, uint32_t needed) {
  return needed == 0u || (block != NULL && bytes >= needed && ((uintptr_t)block & (MCG_ALIGN - 1u)) == 0u);
}

mcg_status_t mcg_init(const mcg_model_t *m, mcg_context_t *c, void *arena, size_t arena_bytes, void *state,
                      size_t state_bytes) {
  if (m->abi != MCG_ABI) return MCG_E_MODEL;
  if (!block_fits(arena, arena_bytes, m->arena_bytes)) return MCG_E_SIZE;
  if (!block_fits(state, state_bytes, m->state_bytes)) return MCG_E_SIZE;
  c->arena = (uint8_t *)arena;
  c->state = (uint8_t *)state;
  c->row_source = NULL;
  c->row_user = NULL;
#if MCG_STORED_LATENTS
  c->store = NULL;
#endif
  c->seed = 0u;
  c->step = 0u;
  c->halvings = 0;
  c->skip = NEVER_SKIP;
  load_initial(m, c->state);
  return MCG_OK;
}

int8_t *mcg_input(const mcg_model_t *m, const mcg_context_t *c) {
  return (int8_t *)(c->arena + m->input_offset);
}

static int lacks_rows(const mcg_model_t *m, const mcg_context_t *c) {
  return m->input_rows != 0u && c->row_source == NULL;
}

mcg_status_t mcg_infer(const mcg_model_t *m, const mcg_context_t *c, int32_t *logits) {
  if (lacks_rows(m, c)) return MCG_E_ROW;
  return m->infer(c, logits);
}

mcg_status_t mcg_train_step(const mcg_model_t *m, mcg_context_t *c, int32_t label, mcg_result_t *result) {
  if (m->targets != 0u) return MCG_E_LABEL;
  return mcg_train_target(m, c, &label, result);
}

mcg_status_t mcg_train_target(const mcg_model_t *m, mcg_context_t *c, const int32_t *target, mcg_result_t *result) {
  mcg_status_t status;
  if (m->train == NULL) return MCG_E_MODEL;
  if (m->targets == 0u && (target[0] < 0 || (uint32_t)target[0] >= m->classes)) return MCG_E_LABEL;
  if (lacks_rows(m, c)) return MCG_E_ROW;
  status = m->train(c, target, result);
  if (COUNTS(status)) c->step += 1u;
  return status;
}

size_t mcg_export_bytes(const mcg_model_t *m) {
  return (size_t)IMAGE_HEADER + m->state_bytes;
}

mcg_status_t mcg_export(const mcg_model_t *m, const mcg_context_t *c, uint8_t *image, size_t bytes) {
  if (bytes < mcg_export_bytes(m)) return MCG_E_SIZE;
  copy_bytes(image, image_magic, sizeof image_magic);
  put_u32(image + 4, MCG_ABI);
  put_u32(image + 8, m->fingerprint);
  put_u32(image + 12, mcg_crc32(0u, c->state, m->state_bytes));
  copy_bytes(image + IMAGE_HEADER, c->state, m->state_bytes);
  return MCG_OK;
}

mcg_status_t mcg_import(const mcg_model_t *m, mcg_context_t *c, const uint8_t *image, size_t bytes) {
  if (bytes != mcg_export_bytes(m)) return MCG_E_SIZE;
  if (get_u32(image) != get_u32(image_magic)) return MCG_E_MODEL;
  if (get_u32(image + 4) != MCG_ABI || get_u32(image + 8) != m->fingerprint) return MCG_E_MODEL;
  if (get_u32(image + 12) != mcg_crc32(0u, image + IMAGE_HEADER, m->state_bytes)) return MCG_E_CRC;
  copy_bytes(c->state, image + IMAGE_HEADER, m->state_bytes);
  return MCG_OK;
}

/* Four bits at a time: 64 bytes of table instead of 1024, about 12 instructions per byte. */
uint32_t mcg_crc32(uint32_t crc, const uint8_t *data, size_t bytes) {
  static const uint32_t table[16] = {0x00000000u, 0x1DB71064u, 0x3B6E20C8u, 0x26D930ACu, 0x76DC4190u, 0x6B6B51F4u,
                                     0x4DB26158u, 0x5005713Cu, 0xEDB88320u, 0xF00F9344u, 0xD6D6A3E8u, 0xCB61B38Cu,
                                     0x9B64C2B0u, 0x86D3D2D4u, 0xA00AE278u, 0xBDBDF21Cu};
  crc = ~crc;
  for (size_t i = 0; i < bytes; ++i) {
    crc ^= data[i];
    crc = crc >> 4 ^ table[crc & 15u];
    crc = crc >> 4 ^ table[crc & 15u];
  }
  return ~crc;
}

int32_t mcg_argmax(const int32_t *logits, int32_t n) {
  int32_t best = 0;
  for (int32_t i = 1; i < n; ++i) {
    if (logits[i] > logits[best]) best = i;
  }
  return best;
}
