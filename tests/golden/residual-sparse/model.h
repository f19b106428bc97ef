/* residual-sparse: sizes in bytes. */
#ifndef MODEL_H
#define MODEL_H

#include "mcugrad.h"

#define MODEL_ARENA_BYTES 2956
#define MODEL_STATE_BYTES 192
#define MODEL_INPUT_BYTES 192
#define MODEL_ROWS 8
#define MODEL_ROW_BYTES 24
#define MODEL_INPUT_ROWS 0
#define MODEL_CLASSES 3
#define MODEL_TARGETS 0

extern const mcg_model_t mcg_model;

#endif
