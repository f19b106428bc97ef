/* mcugrad: the public API of the training runtime.  C99, no allocation, no globals, no float.
 *
 * A generated model is one `const mcg_model_t` in flash.  The user supplies two blocks of SRAM, the arena (activations,
 * gradients, scratch) and the state (everything that learning changes), and a context that names them.
 */
#ifndef MCUGRAD_H
#define MCUGRAD_H

#include <stddef.h>
#include <stdint.h>

#define MCG_ABI 3u        /* changes whenever a struct below changes */
#define MCG_ALIGN 16u     /* both SRAM blocks are aligned to this */

/* 1 where latents of past samples lie in flash; the printer of a model sets it. */
#define MCG_STORED_LATENTS 0

typedef enum {
  MCG_OK = 0,
  MCG_E_SIZE = 1,   /* a block is missing, too small or misaligned */
  MCG_E_LABEL = 2,  /* label outside [0, classes), or the model learns from targets */
  MCG_E_CRC = 3,    /* imported parameters are damaged */
  MCG_E_MODEL = 4,  /* imported parameters belong to another model, or the ABI differs */
  MCG_E_ROW = 5,    /* the row source failed */
  MCG_E_STORE = 6   /* flash did not take a latent: the sample was learned, the step counts, but it is not kept */
} mcg_status_t;

/* How far a training step went. */
typedef enum {
  MCG_STEP_FULL = 0,     /* forward, loss, backward, update */
  MCG_STEP_SKIPPED = 1,  /* the sample was already right: forward and loss only */
  MCG_STEP_HEAD = 2      /* no gradient left the head: head update only */
} mcg_step_t;

/* Fills `dst` with row `row` of the input (width x channels bytes).  Returns 0, or non-zero to abandon the call. */
typedef int (*mcg_row_source_t)(void *user, int32_t row, int8_t *dst);

#if MCG_STORED_LATENTS
/* The flash that latents lie in, memory-mapped: `slots` of `pitch` bytes each, whole units of `erase` bytes. */
typedef struct {
  uint32_t slots, pitch, erase;
} mcg_latents_t;

extern const mcg_latents_t mcg_latents;

/* `write` erases all units of slot `slot` and programs its first `bytes` bytes.  Returns 0 once they can be read there; else
 * the slot may hold anything, and is not used again until the buffer is emptied. */
typedef struct {
  const int8_t *latents; /* aligned to `erase` */
  int (*write)(void *user, uint32_t slot, const int8_t *latent, uint32_t bytes);
  void *user;
} mcg_store_t;
#endif

typedef struct {
  uint8_t *arena;              /* model->arena_bytes */
  uint8_t *state;              /* model->state_bytes */
  mcg_row_source_t row_source; /* used only when model->input_rows is set */
  void *row_user;
  uint32_t seed;               /* of stochastic rounding */
  uint32_t step;               /* training steps done; counts skipped ones too */
  int32_t halvings;            /* learning rate = compiled rate / 2^halvings */
  int32_t skip;                /* no backward pass when p_label >= skip (Q15); above 32768: never skip */
#if MCG_STORED_LATENTS
  const mcg_store_t *store;    /* set it after mcg_init */
#endif
} mcg_context_t;

typedef struct {
  int32_t p_label;    /* before the update: probability (Q15) of the true class, or of the right answer of the label that
                         fares worst; for a squared error the sum of squares, in units of the model's own */
  int32_t predicted;  /* class of the largest logit, lowest index on a tie */
  int32_t progress;   /* mcg_step_t */
  int32_t saturated;  /* gradient elements clamped at +-127 in this step */
} mcg_result_t;

/* One mutable parameter inside the state block; `name` is the model's own. */
typedef struct {
  const char *name;
  uint32_t offset, bytes;
} mcg_parameter_t;

/* The initial state is packed in records of a head, two bytes (low first) with the kind in the two top bits and a count n
 * below: n bytes as they are; n zero bytes; n int32 stored as two bytes each, low first. */
enum { MCG_INITIAL_BYTES = 0, MCG_INITIAL_ZEROS = 1, MCG_INITIAL_NARROW = 2 };

typedef struct mcg_model {
  uint32_t abi;
  uint32_t fingerprint;          /* CRC-32 of everything that fixes the meaning of the state block */
  uint32_t arena_bytes, state_bytes;
  uint32_t input_offset;         /* of the input inside the arena; the caller writes it before each call */
  uint32_t input_bytes;          /* the whole input: rows x row_bytes */
  uint32_t rows, row_bytes;
  uint32_t input_rows;           /* 1: the input is pulled row by row through row_source, 0: it is resident */
  uint32_t classes;              /* logits, int32 accumulator units */
  uint32_t targets;              /* numbers that make up a target; 0: it is a label in [0, classes) */
  uint32_t parameter_count;
  uint32_t initial_bytes;        /* of initial_state; what its records leave of the state starts at zero */
  const uint8_t *initial_state;  /* flash, packed */
  const mcg_parameter_t *parameters;
  mcg_status_t (*infer)(const mcg_context_t *c, int32_t *logits);
  mcg_status_t (*train)(const mcg_context_t *c, const int32_t *target, mcg_result_t *result); /* NULL: inference only */
} mcg_model_t;

/* Checks the blocks, loads the initial parameters, sets seed, step and halvings to 0 and skip to "never". */
mcg_status_t mcg_init(const mcg_model_t *m, mcg_context_t *c, void *arena, size_t arena_bytes, void *state,
                      size_t state_bytes);

/* Where the caller writes the input (int8, NHWC) before infer or train_step when the input is resident. */
int8_t *mcg_input(const mcg_model_t *m, const mcg_context_t *c);

mcg_status_t mcg_infer(const mcg_model_t *m, const mcg_context_t *c, int32_t *logits);
mcg_status_t mcg_train_step(const mcg_model_t *m, mcg_context_t *c, int32_t label, mcg_result_t *result);

/* The same for a model that learns from targets: model->targets numbers, 0 or 1 for each label, or units of the logits. */
mcg_status_t mcg_train_target(const mcg_model_t *m, mcg_context_t *c, const int32_t *target, mcg_result_t *result);

/* Learned parameters: an image of 16 header bytes (magic "MCGP", ABI, fingerprint, CRC-32 of the state) + the state. */
size_t mcg_export_bytes(const mcg_model_t *m);
mcg_status_t mcg_export(const mcg_model_t *m, const mcg_context_t *c, uint8_t *image, size_t bytes);
mcg_status_t mcg_import(const mcg_model_t *m, mcg_context_t *c, const uint8_t *image, size_t bytes);

/* CRC-32 (IEEE 802.3, reflected); crc = 0 to start, the previous result to go on. */
uint32_t mcg_crc32(uint32_t crc, const uint8_t *data, size_t bytes);

/* Index of the largest of n logits, the lowest on a tie. */
int32_t mcg_argmax(const int32_t *logits, int32_t n);

#endif
