/* The virtual MCU's native callbacks for unicorn: instruction counts per block, and a UART made of two buffers. */
#include <stdint.h>

enum { SHELL = 0, SITE = 1, KERNEL = 2, BACKWARD = 3, UPDATE = 4, KINDS = 5 };

#define TX_MARGIN 64u /* a stop takes effect at the end of the block, which may send more */

typedef struct {
  uint64_t base;          /* address of the code */
  uint64_t halfwords;     /* its length; every table below has one entry per halfword, `site` one more */
  const uint16_t *code;
  const uint8_t *kind;    /* of the function a halfword lies in */
  uint32_t *shape;        /* of the block that starts there: bytes << 16 | instructions */
  uint64_t *executed;     /* instructions of the blocks that start there */
  uint64_t *site;         /* instructions spent in that block of a SITE function and in what it called */
  uint64_t phases[KINDS]; /* SHELL: link; SITE and KERNEL: forward */
  uint64_t slot, phase;
  uint64_t total, budget; /* instructions; at the budget the run stops */
  const uint8_t *rx;
  uint64_t rx_size, rx_at;
  uint8_t *tx;
  uint64_t tx_capacity, tx_size;
  int (*stop)(void *uc);
  uint64_t starved;       /* the firmware waits for a byte */
} probe_t;

void probe_block(void *uc, uint64_t address, uint32_t size, void *user);
uint64_t probe_read(void *uc, uint64_t offset, unsigned size, void *user);
void probe_write(void *uc, uint64_t offset, unsigned size, uint64_t value, void *user);

/* A halfword whose top five bits are 29, 30 or 31 starts a 4-byte instruction. */
static uint32_t count(const uint16_t *code, uint32_t halfwords) {
  uint32_t instructions = 0;
  for (uint32_t i = 0; i < halfwords; i += code[i] >> 11 >= 29 ? 2u : 1u) ++instructions;
  return instructions;
}

void probe_block(void *uc, uint64_t address, uint32_t size, void *user) {
  probe_t *p = (probe_t *)user;
  const uint64_t at = (address - p->base) >> 1;
  if (at >= p->halfwords) return;
  if (p->shape[at] >> 16 != size) p->shape[at] = size << 16 | count(p->code + at, size >> 1);
  const uint32_t n = p->shape[at] & 0xFFFFu;
  const uint8_t kind = p->kind[at];
  p->executed[at] += n;
  if (kind == SHELL) {
    p->phases[SHELL] += n;
  } else {
    if (kind != KERNEL) p->phase = kind;
    if (kind == SITE) p->slot = at;
    p->site[p->slot] += n;
    p->phases[p->phase] += n;
  }
  p->total += n;
  if (p->total > p->budget) p->stop(uc);
}

uint64_t probe_read(void *uc, uint64_t offset, unsigned size, void *user) {
  probe_t *p = (probe_t *)user;
  (void)size;
  if (offset != 0) return 0;
  if (p->rx_at < p->rx_size) return p->rx[p->rx_at++];
  p->starved = 1;
  p->stop(uc);
  return 0xFFFFFFFFu;
}

void probe_write(void *uc, uint64_t offset, unsigned size, uint64_t value, void *user) {
  probe_t *p = (probe_t *)user;
  (void)size;
  if (offset != 4) return;
  if (p->tx_size < p->tx_capacity) p->tx[p->tx_size++] = (uint8_t)value;
  if (p->tx_size + TX_MARGIN > p->tx_capacity) p->stop(uc);
}
