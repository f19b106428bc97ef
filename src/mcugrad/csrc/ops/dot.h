/* Products of int8 rows with one or two int16 columns that lie together in scratch.
 *
 * With dual MACs a group of four elements a b c d of a column is stored as a c b d, which is how SXTB16 takes four
 * bytes apart, and the columns' groups take turns; otherwise one column follows the other.
 */
#ifndef MCG_DOT_H
#define MCG_DOT_H

#include <stdint.h>

/* to: column c of `columns` = element 0 of each row of w [n][pitch]; round4(n) * columns elements in all, aligned to
 * four bytes. */
void mcg_widen(const int8_t *w, int32_t n, int32_t pitch, int c, int columns, int16_t *to);

/* out [count][pitch], its first `columns` elements: rows [count][n] . column, added to what is there if `keep`. */
void mcg_multiply(const int8_t *rows, int32_t count, int32_t n, const int16_t *column, int columns, int32_t *out,
                  int32_t pitch, int keep);

#endif
