/* Server side of the framed protocol of link.h; its whole state is one link_t. */
#include "link.h"

#include "mmio.h"
#include "startup.h"

#define PAYLOAD(l) ((l)->frame + LINK_HEADER)
#define DAMAGED (-1)
#define REFUSED (-1)
#define ROW_TRIES 8

static void link_put(uint8_t *at, uint32_t v) {
  for (uint32_t i = 0; i < 4u; ++i) at[i] = (uint8_t)(v >> (8u * i));
}

static uint32_t link_get(const uint8_t *at) {
  return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static void link_copy(uint8_t *to, const uint8_t *from, uint32_t bytes) {
  for (uint32_t i = 0; i < bytes; ++i) to[i] = from[i];
}

/* Undoes COBS while the bytes arrive.  Returns the size of the frame, or DAMAGED; always consumes up to the 0x00. */
static int32_t link_receive_bytes(link_t *l) {
  uint32_t size = 0u, left = 0u;
  uint8_t code = 0xFFu;
  int bad = 0;
  for (;;) {
    const uint8_t byte = mmio_read();
    uint8_t value = byte;
    if (byte == 0u) return bad || left != 0u ? DAMAGED : (int32_t)size;
    if (left == 0u) {
      const int zero = code != 0xFFu;
      code = byte;
      left = (uint32_t)byte - 1u;
      if (!zero) continue;
      value = 0u;
    } else {
      left -= 1u;
    }
    if (size < LINK_FRAME) {
      l->frame[size++] = value;
    } else {
      bad = 1;
    }
  }
}

/* Returns the size of the payload, or DAMAGED. */
static int32_t link_receive(link_t *l) {
  int32_t size;
  do size = link_receive_bytes(l);
  while (size == 0);
  if (size < (int32_t)(LINK_HEADER + 4u)) return DAMAGED;
  size -= 4;
  if (mcg_crc32(0u, l->frame, (uint32_t)size) != link_get(l->frame + size)) return DAMAGED;
  return size - (int32_t)LINK_HEADER;
}

static void link_send_cobs(const uint8_t *data, uint32_t size) {
  uint32_t at = 0u;
  int more = 1;
  while (more) {
    uint32_t run = 0u;
    while (at + run < size && run < 254u && data[at + run] != 0u) ++run;
    mmio_write((uint8_t)(run + 1u));
    for (uint32_t i = 0; i < run; ++i) mmio_write(data[at + i]);
    at += run;
    more = at < size;
    if (run < 254u) at += 1u; /* the zero that the code stands for */
  }
  mmio_write(0u);
}

/* The payload is already in place. */
static void link_send(link_t *l, uint8_t type, uint32_t payload) {
  const uint32_t size = LINK_HEADER + payload;
  l->frame[0] = LINK_VERSION;
  l->frame[1] = l->sequence;
  l->frame[2] = type;
  link_put(l->frame + size, mcg_crc32(0u, l->frame, size));
  link_send_cobs(l->frame, size + 4u);
}

static void link_send_error(link_t *l, uint8_t code, uint32_t detail) {
  PAYLOAD(l)[0] = code;
  link_put(PAYLOAD(l) + 1, detail);
  link_send(l, LINK_ERROR, 5u);
}

static int32_t link_refuse(link_t *l, uint8_t code, uint32_t detail) {
  link_send_error(l, code, detail);
  return REFUSED;
}

void link_fault(link_t *l, uint32_t pc, uint32_t status) {
  mmio_write(0u); /* ends whatever was being sent */
  PAYLOAD(l)[0] = LINK_E_FAULT;
  link_put(PAYLOAD(l) + 1, pc);
  link_put(PAYLOAD(l) + 5, status);
  link_send(l, LINK_ERROR, 9u);
}

/* Asks for the rest of a row from `offset` on.  Returns the bytes received, 0: the host gave up. */
static uint32_t link_pull_row(link_t *l, uint32_t row, uint32_t offset, int8_t *dst) {
  for (int tries = 0; tries < ROW_TRIES; ++tries) {
    int32_t size;
    link_put(PAYLOAD(l), row);
    link_put(PAYLOAD(l) + 4, offset);
    link_send(l, LINK_ROW, 8u);
    size = link_receive(l);
    if (size == DAMAGED) continue;
    if (l->frame[0] != LINK_VERSION || l->frame[1] != l->sequence) return 0u;
    if (l->frame[2] == l->type) continue; /* the host missed our request and asks from the start */
    if (l->frame[2] != LINK_ROW || size <= 8) return 0u;
    if (link_get(PAYLOAD(l)) != row || link_get(PAYLOAD(l) + 4) != offset) continue; /* an answer that came twice */
    if ((uint32_t)size - 8u > l->model->row_bytes - offset) return 0u;
    link_copy((uint8_t *)dst, PAYLOAD(l) + 8, (uint32_t)size - 8u);
    return (uint32_t)size - 8u;
  }
  return 0u;
}

int link_row(void *user, int32_t row, int8_t *dst) {
  link_t *l = (link_t *)user;
  uint32_t offset = 0u;
  while (offset < l->model->row_bytes) {
    const uint32_t got = link_pull_row(l, (uint32_t)row, offset, dst + offset);
    if (got == 0u) return 1;
    offset += got;
  }
  return 0;
}

static int32_t link_on_hello(link_t *l, const mcg_model_t *m) {
  const uint32_t facts[12] = {m->abi,       m->fingerprint, m->arena_bytes, m->state_bytes,   m->input_bytes, m->rows,
                              m->row_bytes, m->input_rows,  m->classes,     m->train != NULL, m->targets,     stack_reserved()};
  for (uint32_t i = 0; i < 12u; ++i) link_put(PAYLOAD(l) + 4u * i, facts[i]);
  return 48;
}

static int32_t link_on_reset(link_t *l) {
  void *const user = l->context.row_user;
  const mcg_row_source_t source = l->context.row_source;
#if MCG_STORED_LATENTS
  const mcg_store_t *const store = l->context.store;
#endif
  const mcg_status_t status = mcg_init(l->model, &l->context, l->context.arena, l->model->arena_bytes,
                                       l->context.state, l->model->state_bytes);
  l->context.row_source = source;
  l->context.row_user = user;
#if MCG_STORED_LATENTS
  l->context.store = store;
#endif
  l->seen = l->correct = 0u;
  return status == MCG_OK ? 0 : link_refuse(l, LINK_E_STATUS, (uint32_t)status);
}

static int32_t link_on_control(link_t *l, uint32_t size) {
  mcg_context_t *c = &l->context;
  if (size != 0u && size != 16u) return link_refuse(l, LINK_E_ARGUMENT, size);
  if (size == 16u) {
    c->seed = link_get(PAYLOAD(l));
    c->step = link_get(PAYLOAD(l) + 4);
    c->halvings = (int32_t)link_get(PAYLOAD(l) + 8);
    c->skip = (int32_t)link_get(PAYLOAD(l) + 12);
  }
  link_put(PAYLOAD(l), c->seed);
  link_put(PAYLOAD(l) + 4, c->step);
  link_put(PAYLOAD(l) + 8, (uint32_t)c->halvings);
  link_put(PAYLOAD(l) + 12, (uint32_t)c->skip);
  return 16;
}

/* Copies [offset bytes...] into a block of `limit` bytes. */
static int32_t link_store(link_t *l, uint32_t size, uint8_t *block, uint32_t limit) {
  const uint32_t offset = size >= 4u ? link_get(PAYLOAD(l)) : 0u;
  if (size < 4u || offset > limit || size - 4u > limit - offset) return link_refuse(l, LINK_E_ARGUMENT, offset);
  link_copy(block + offset, PAYLOAD(l) + 4, size - 4u);
  return 0;
}

/* Copies [offset count] of a block of `limit` units of `unit` bytes into the answer. */
static int32_t link_fetch(link_t *l, uint32_t size, const uint8_t *block, uint32_t limit, uint32_t unit) {
  const uint32_t offset = size == 8u ? link_get(PAYLOAD(l)) : 0u;
  const uint32_t count = size == 8u ? link_get(PAYLOAD(l) + 4) : 0u;
  if (size != 8u || offset > limit || count > limit - offset || count > LINK_PAYLOAD / unit) {
    return link_refuse(l, LINK_E_ARGUMENT, offset);
  }
  link_copy(PAYLOAD(l), block + offset * unit, count * unit);
  return (int32_t)(count * unit);
}

static int32_t link_on_infer(link_t *l) {
  const mcg_status_t status = mcg_infer(l->model, &l->context, l->logits);
  if (status != MCG_OK) return link_refuse(l, LINK_E_STATUS, (uint32_t)status);
  link_put(PAYLOAD(l), (uint32_t)mcg_argmax(l->logits, (int32_t)l->model->classes));
  return 4;
}

static int32_t link_on_train(link_t *l, uint32_t size) {
  mcg_result_t result = {0, 0, 0, 0};
  mcg_status_t status;
  const int32_t label = (int32_t)link_get(PAYLOAD(l));
  if (size != (l->target != NULL ? 0u : 4u)) return link_refuse(l, LINK_E_ARGUMENT, size);
  status = mcg_train_target(l->model, &l->context, l->target != NULL ? l->target : &label, &result);
  if (status != MCG_OK) return link_refuse(l, LINK_E_STATUS, (uint32_t)status);
  link_put(PAYLOAD(l), (uint32_t)result.p_label);
  link_put(PAYLOAD(l) + 4, (uint32_t)result.predicted);
  link_put(PAYLOAD(l) + 8, (uint32_t)result.progress);
  link_put(PAYLOAD(l) + 12, (uint32_t)result.saturated);
  return 16;
}

static int32_t link_on_eval(link_t *l, uint32_t size) {
  const uint32_t label = size == 4u ? link_get(PAYLOAD(l)) : 0u;
  if ((size != 0u && size != 4u) || label >= l->model->classes) return link_refuse(l, LINK_E_ARGUMENT, label);
  if (size == 0u) {
    l->seen = l->correct = 0u;
  } else {
    if (link_on_infer(l) == REFUSED) return REFUSED;
    l->seen += 1u;
    l->correct += link_get(PAYLOAD(l)) == label;
  }
  link_put(PAYLOAD(l), l->seen);
  link_put(PAYLOAD(l) + 4, l->correct);
  return 8;
}

static int32_t link_on_stack(link_t *l, uint32_t size) {
  const uint32_t used = stack_used(l->paint);
  if (size != 1u) return link_refuse(l, LINK_E_ARGUMENT, size);
  l->paint = PAYLOAD(l)[0];
  stack_paint(l->paint);
  link_put(PAYLOAD(l), stack_reserved());
  link_put(PAYLOAD(l) + 4, used);
  return 8;
}

/* Returns the size of the answer in PAYLOAD, or REFUSED when an error has been sent. */
static int32_t link_execute(link_t *l, uint32_t size) {
  const mcg_model_t *m = l->model;
  switch (l->type) {
    case LINK_HELLO: return link_on_hello(l, m);
    case LINK_RESET: return link_on_reset(l);
    case LINK_CONTROL: return link_on_control(l, size);
    case LINK_INPUT:
      return link_store(l, size, (uint8_t *)mcg_input(m, &l->context), m->input_rows != 0u ? 0u : m->input_bytes);
    case LINK_INFER: return link_on_infer(l);
    case LINK_LOGITS: return link_fetch(l, size, (const uint8_t *)l->logits, m->classes, 4u);
    case LINK_TRAIN: return link_on_train(l, size);
    case LINK_EVAL: return link_on_eval(l, size);
    case LINK_READ: return link_fetch(l, size, l->context.state, m->state_bytes, 1u);
    case LINK_WRITE: return link_store(l, size, l->context.state, m->state_bytes);
    case LINK_CRC: link_put(PAYLOAD(l), mcg_crc32(0u, l->context.state, m->state_bytes)); return 4;
    case LINK_TARGET: return link_store(l, size, (uint8_t *)l->target, 4u * m->targets);
    case LINK_STACK: return link_on_stack(l, size);
    default: return link_refuse(l, LINK_E_TYPE, l->type);
  }
}

/* A request that changes more when it is executed twice keeps its answer until another request comes. */
static void link_answer(link_t *l, int32_t size) {
  if (size == REFUSED) return;
  if (l->type == LINK_TRAIN || l->type == LINK_EVAL) {
    link_copy(l->cached, PAYLOAD(l), (uint32_t)size);
    l->cached_size = (uint8_t)size;
  }
  link_send(l, l->type, (uint32_t)size);
}

void link_serve(link_t *l) {
  const int32_t size = link_receive(l);
  if (size == DAMAGED) {
    link_send_error(l, LINK_E_FRAME, 0u);
    return;
  }
  if (l->frame[0] != LINK_VERSION) {
    l->sequence = l->frame[1];
    link_send_error(l, LINK_E_VERSION, LINK_VERSION);
    return;
  }
  if (l->frame[2] == LINK_ROW) return; /* an answer that came twice */
  if (l->cached_size != 0u && l->frame[1] == l->sequence && l->frame[2] == l->type) {
    link_copy(PAYLOAD(l), l->cached, l->cached_size);
    link_send(l, l->type, l->cached_size);
    return;
  }
  l->cached_size = 0u;
  l->sequence = l->frame[1];
  l->type = l->frame[2];
  link_answer(l, link_execute(l, (uint32_t)size));
}

void link_open(link_t *l, const mcg_model_t *model, int32_t *logits, int32_t *target) {
  l->model = model;
  l->logits = logits;
  l->target = target;
  l->seen = l->correct = 0u;
  l->sequence = l->type = l->cached_size = 0u;
  l->paint = 0xA5u;
  stack_paint(l->paint);
}
