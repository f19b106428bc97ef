/* Softmax cross-entropy in integers, the two early ends of a step, and the sample's own exponent. */
#include "backward.h"
#include "fixed.h"

#define ONE 32768  /* probability 1 in Q15 */
#define FAR 7680   /* 30 octaves: beyond it a probability is 0 */

/* rint(2^(-i/256) * 32768) */
static const uint16_t exp2_table[256] = {
    32768, 32679, 32591, 32503, 32415, 32327, 32240, 32153, 32066, 31979, 31893, 31806, 31720, 31635, 31549, 31464,
    31379, 31294, 31209, 31125, 31041, 30957, 30873, 30790, 30706, 30623, 30541, 30458, 30376, 30293, 30212, 30130,
    30048, 29967, 29886, 29805, 29725, 29644, 29564, 29484, 29405, 29325, 29246, 29167, 29088, 29009, 28931, 28852,
    28774, 28697, 28619, 28542, 28464, 28388, 28311, 28234, 28158, 28082, 28006, 27930, 27855, 27779, 27704, 27629,
    27554, 27480, 27406, 27332, 27258, 27184, 27110, 27037, 26964, 26891, 26818, 26746, 26674, 26601, 26530, 26458,
    26386, 26315, 26244, 26173, 26102, 26031, 25961, 25891, 25821, 25751, 25681, 25612, 25543, 25474, 25405, 25336,
    25268, 25199, 25131, 25063, 24995, 24928, 24860, 24793, 24726, 24659, 24593, 24526, 24460, 24394, 24328, 24262,
    24196, 24131, 24066, 24001, 23936, 23871, 23806, 23742, 23678, 23614, 23550, 23486, 23423, 23359, 23296, 23233,
    23170, 23108, 23045, 22983, 22921, 22859, 22797, 22735, 22674, 22613, 22552, 22491, 22430, 22369, 22309, 22248,
    22188, 22128, 22068, 22009, 21949, 21890, 21831, 21772, 21713, 21654, 21595, 21537, 21479, 21421, 21363, 21305,
    21247, 21190, 21133, 21076, 21019, 20962, 20905, 20849, 20792, 20736, 20680, 20624, 20568, 20513, 20457, 20402,
    20347, 20292, 20237, 20182, 20127, 20073, 20019, 19965, 19911, 19857, 19803, 19750, 19696, 19643, 19590, 19537,
    19484, 19431, 19379, 19326, 19274, 19222, 19170, 19118, 19066, 19015, 18963, 18912, 18861, 18810, 18759, 18708,
    18658, 18607, 18557, 18507, 18457, 18407, 18357, 18308, 18258, 18209, 18160, 18110, 18061, 18013, 17964, 17915,
    17867, 17819, 17770, 17722, 17674, 17627, 17579, 17531, 17484, 17437, 17390, 17343, 17296, 17249, 17202, 17156,
    17109, 17063, 17017, 16971, 16925, 16879, 16834, 16788, 16743, 16697, 16652, 16607, 16562, 16518, 16473, 16428,
};

/* 32768 * 2^(-d/256) of d = (distance * multiplier) >> shift, distance >= 0 in accumulator units */
static int32_t exponential(const mcg_softmax_t *p, int64_t distance) {
  int64_t d = distance * p->multiplier;
  if (p->shift >= 0) {
    d >>= p->shift;
  } else {
    d = d > FAR ? FAR : d * ((int64_t)1 << -p->shift);
  }
  const int32_t near = d > FAR ? FAR : (int32_t)d;
  return exp2_table[near & 255] >> (near >> 8);
}

/* logits [K], label [1], p_label [1], g [K] */
void mcg_softmax_cross_entropy(const mcg_softmax_t *p, const int32_t *logits, const int32_t *label, int32_t *p_label,
                               int32_t *g) {
  const int32_t max = logits[mcg_argmax(logits, p->classes)];
  uint32_t sum = 0;
  for (int32_t k = 0; k < p->classes; ++k) {
    g[k] = exponential(p, (int64_t)max - logits[k]);
    sum += (uint32_t)g[k];
  }
  for (int32_t k = 0; k < p->classes; ++k) g[k] = (int32_t)(((uint32_t)g[k] << 15) / sum);
  *p_label = g[*label];
  g[*label] -= ONE;
}

int32_t mcg_stop_if_easy(const mcg_context_t *c, const int32_t *p_label) { return *p_label >= c->skip; }

/* gf [n] */
int32_t mcg_stop_if_zero(const int32_t *gf, int32_t n) {
  for (int32_t i = 0; i < n; ++i) {
    if (gf[i] != 0) return 0;
  }
  return 1;
}

/* gf [n], scaled [n] (may be gf): RSH(gf, -k) with k = 14 - bitlength(max |gf|), and the exponent -27 - k */
void mcg_sample_scale(int32_t n, const int32_t *gf, int32_t *scaled, int32_t *sample_exponent) {
  uint32_t all = 0; /* the magnitudes' union has the bit length of the largest */
  for (int32_t i = 0; i < n; ++i) all |= gf[i] < 0 ? 0u - (uint32_t)gf[i] : (uint32_t)gf[i];
  int32_t k = 14;
  for (; all != 0; all >>= 1) --k;
  for (int32_t i = 0; i < n; ++i) scaled[i] = mcg_rsh(gf[i], -k);
  *sample_exponent = -27 - k;
}
