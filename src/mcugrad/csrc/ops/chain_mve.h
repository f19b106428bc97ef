/* One stage of a chain by MVE. */
#ifndef MCG_CHAIN_MVE_H
#define MCG_CHAIN_MVE_H

#include "ops/backward.h"

/* The stage at channels j ... j + 3 of the block.  Returns 0, having done nothing, where it cannot: bit masks whose positions
 * are not whole bytes, or a shift below 33.  Needs MCG_MVE. */
int mcg_chain_mve(const mcg_block_t *b, int32_t j, const mcg_stage_t *s, const int8_t *exponents);

#endif
