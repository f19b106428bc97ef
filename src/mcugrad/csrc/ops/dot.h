/* Products of int8 rows with four int16 columns that lie together in scratch.
 *
 * With dual MACs the columns are stored in groups of four elements, [groups][4 columns][4], the last one filled up with
 * zeros; the elements a b c d of a group as a c b d, which is how SXTB16 takes four bytes apart.  Otherwise one column
 * follows the other, [4][round4(n)].
 */
#ifndef MCG_DOT_H
#define MCG_DOT_H

#include <stdint.h>

#define MCG_COLUMNS 4

/* n in whole groups. */
static inline int32_t mcg_round4(int32_t n) { return (n + 3) & ~3; }

/* to [4 * round4(n)]: column c = element c of each row of w [n][pitch]; beyond `columns` zeros. */
void mcg_widen(const int8_t *w, int32_t n, int32_t pitch, int32_t columns, int16_t *to);

/* out [count][4] = rows [count] of n elements, `pitch` apart, times the columns; added to what is there if `keep`. */
void mcg_multiply(const int8_t *rows, int32_t count, int32_t n, int32_t pitch, const int16_t *columns, int32_t *out,
                  int keep);

/* The same for n % 4 == 0, n > 0, count > 0.  Needs MCG_ASM. */
void mcg_dot_rows(const int8_t *rows, int32_t count, int32_t n, int32_t pitch, const int16_t *columns, int32_t *out,
                  int keep);

/* to [groups][4][4] from `groups` times four rows of w, `pitch` apart, their first four elements; groups > 0.  Needs
 * MCG_ASM. */
void mcg_dot_widen(const int8_t *w, int32_t groups, int32_t pitch, int16_t *to);

#endif
