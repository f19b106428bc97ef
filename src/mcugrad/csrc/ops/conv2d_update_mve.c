/* Weight gradient of a 1x1 convolution by MVE: channels of x times outputs of h, both turned into rows of positions. */
#include "conv2d_update_mve.h"

#include "dot_mve.h"
#include "ops/mve.h"

#if MCG_MVE

/* Room for int16 columns of h at `positions` positions holds those of bytes at twice as many, and likewise x. */
typedef struct {
  int32_t inputs, most, some; /* channels and positions of x that are turned together, and positions of h */
  int8_t *h, *x;              /* [4][some], [inputs][most] */
  int32_t middle[MCG_GRADS];  /* what dW takes off each x */
} turned_t;

static inline int32_t channel(const mcg_conv2d_t *p, int32_t j) { return p->order != NULL ? p->order[j] : j; }

/* grad [outputs][MCG_GRADS] of n channels at positions [at, at + count), whose x is turned; adds the sums of h. */
static void add_positions(const mcg_conv2d_t *p, const int8_t *h, int32_t at, int32_t count, int32_t outputs,
                          const mcg_weight_rows_t *rows, const turned_t *t, int32_t sum[MCG_COLUMNS_MVE]) {
  for (int32_t done = 0; done < count; done += t->some) {
    const int32_t n = mcg_min(t->some, count - done);
    const mcg_products_t s = {t->x + done, t->h, t->most, t->some, rows->n, n, rows->grad, 1, MCG_GRADS, at + done > 0};
    for (int32_t k = 0; k < outputs; ++k) {
      mcg_turn_column(h + (at + done) * p->out_c + k, n, p->out_c, t->h + k * t->some);
      sum[k] += mcg_sum_lanes(t->h + k * t->some, n);
    }
    mcg_products(&s);
  }
}

/* grad [outputs][MCG_GRADS] -= sum [outputs] times what is taken off x */
static void take_off(const mcg_weight_rows_t *rows, int32_t outputs, const turned_t *t, const int32_t *sum) {
  for (int32_t k = 0; k < outputs; ++k) {
    int32_t *grad = rows->grad + k * MCG_GRADS;
    for (int32_t j = 0; j < rows->n; j += 4) {
      vstrwq_s32(grad + j, vmlaq_n_s32(vldrwq_s32(grad + j), vldrwq_s32(t->middle + j), -sum[k]));
    }
  }
}

void mcg_pointwise_update_mve(const mcg_conv2d_t *p, const int8_t *x, const int8_t *h, const int16_t *mu,
                              const mcg_weight_step_t *step, mcg_weight_rows_t *rows, int8_t *columns, int32_t room,
                              int8_t *turned, int32_t more) {
  const int32_t positions = p->in_h * p->in_w;
  turned_t t = {rows->n, mcg_min(more / rows->n, positions), 0, columns, turned, {0}};
  t.some = mcg_min(room / MCG_COLUMNS_MVE, t.most);
  for (int32_t j = 0; j < rows->n; ++j) t.middle[j] = p->x_zero + (mu != NULL ? mu[j] : 0);
  for (int32_t o = 0; o < p->out_c; o += MCG_COLUMNS_MVE) {
    const int32_t outputs = mcg_min(MCG_COLUMNS_MVE, p->out_c - o);
    int32_t sum[MCG_COLUMNS_MVE] = {0, 0, 0, 0};
    for (int32_t at = 0; at < positions; at += t.most) {
      const int32_t count = mcg_min(t.most, positions - at);
      for (int32_t j = 0; (o == 0 || positions > t.most) && j < rows->n; ++j) {
        mcg_turn_column(x + at * p->in_c + channel(p, rows->first + j), count, p->in_c, turned + j * t.most);
      }
      add_positions(p, h + o, at, count, outputs, rows, &t, sum);
    }
    take_off(rows, outputs, &t, sum);
    mcg_weight_rows(step, o, outputs, rows, mu);
  }
}

#endif
