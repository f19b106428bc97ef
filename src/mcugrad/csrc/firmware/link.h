/* The framed protocol: frame = COBS(version, sequence, type, payload, CRC-32 of all before it), 0x00.
 *
 * The host asks, the firmware answers with the same sequence number; only LINK_ROW goes the other way round, while an
 * INFER, TRAIN or EVAL is under way.  A request that is repeated with the same number is executed once.
 * Integers are little-endian; `[]` names the payload of a request -> of its answer.
 */
#ifndef LINK_H
#define LINK_H

#include "mcugrad.h"

#define LINK_VERSION 1u
#define LINK_HEADER 3u
#define LINK_PAYLOAD 256u
#define LINK_FRAME (LINK_HEADER + LINK_PAYLOAD + 4u)
#define LINK_CACHED 16u

enum {
  LINK_HELLO = 1,    /* [] -> [abi fingerprint arena state input rows row_bytes input_rows classes trains targets
                                                   stack] u32 each */
  LINK_RESET = 2,    /* [] -> []                     initial parameters, initial controls, counters at zero */
  LINK_CONTROL = 3,  /* [] or [seed step halvings skip] -> [seed step halvings skip] */
  LINK_INPUT = 4,    /* [offset bytes...] -> []      into the resident input */
  LINK_INFER = 5,    /* [] -> [predicted] */
  LINK_LOGITS = 6,   /* [first count] -> [logits] */
  LINK_TRAIN = 7,    /* [label], or [] for the target sent before -> [p_label predicted progress saturated] */
  LINK_EVAL = 8,     /* [label] -> [seen correct];  [] sets both to zero */
  LINK_READ = 9,     /* [offset count] -> [bytes]    of the state block */
  LINK_WRITE = 10,   /* [offset bytes...] -> [] */
  LINK_CRC = 11,     /* [] -> [CRC-32 of the state block] */
  LINK_ROW = 12,     /* firmware: [row offset] -> host: [row offset bytes...] */
  LINK_STACK = 13,   /* [paint u8] -> [reserved used] bytes since the last paint; then paints afresh */
  LINK_TARGET = 14,  /* [offset bytes...] -> []      into the target of the next TRAIN */
  LINK_ERROR = 127   /* answer: [code u8 detail u32] */
};

enum {
  LINK_E_FRAME = 1,    /* damaged, truncated or oversize: send it again */
  LINK_E_VERSION = 2,  /* detail: the version spoken here */
  LINK_E_TYPE = 3,     /* detail: the type nobody knows */
  LINK_E_ARGUMENT = 4, /* a size, offset or label outside its range */
  LINK_E_FAULT = 5,    /* the core faulted, detail: pc; then [status u32] */
  LINK_E_STATUS = 6    /* detail: an mcg_status_t */
};

typedef struct {
  const mcg_model_t *model;
  mcg_context_t context;
  int32_t *logits;             /* model->classes */
  int32_t *target;             /* model->targets, or null when there are none */
  uint32_t seen, correct;
  uint8_t sequence, type;      /* of the request under way */
  uint8_t cached_size;         /* bytes in cached[], 0: none */
  uint8_t paint;
  uint8_t cached[LINK_CACHED]; /* the answer to `sequence`, when it must not be computed twice */
  uint8_t frame[LINK_FRAME];   /* request and answer share it */
} link_t;

void link_open(link_t *l, const mcg_model_t *model, int32_t *logits, int32_t *target);
void link_serve(link_t *l); /* one frame: waits, executes, answers */
void link_fault(link_t *l, uint32_t pc, uint32_t status);
int link_row(void *user, int32_t row, int8_t *dst); /* an mcg_row_source_t over the link; user is the link_t */

#endif
