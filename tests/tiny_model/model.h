#ifndef MODEL_H
#define MODEL_H

#include "mcugrad.h"

#ifndef TINY_ROWS
#define TINY_ROWS 0
#endif

#define MODEL_ARENA_BYTES 160
#define MODEL_STATE_BYTES 1040
#define MODEL_CLASSES 4
#define MODEL_TARGETS 0
#define MODEL_ROW_BYTES 16
#define MODEL_INPUT_ROWS TINY_ROWS

extern const mcg_model_t mcg_model;

#endif
