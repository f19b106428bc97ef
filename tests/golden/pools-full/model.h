/* pools-full: sizes in bytes. */
#ifndef MODEL_H
#define MODEL_H

#include "mcugrad.h"

#define MODEL_ARENA_BYTES 3400
#define MODEL_STATE_BYTES 208
#define MODEL_INPUT_BYTES 144
#define MODEL_ROWS 9
#define MODEL_ROW_BYTES 16
#define MODEL_INPUT_ROWS 0
#define MODEL_CLASSES 3
#define MODEL_TARGETS 0

extern const mcg_model_t mcg_model;

#endif
