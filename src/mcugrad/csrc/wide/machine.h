/* What the host's vectors leave to the machine: the only file of theirs with #ifdefs on an architecture. */
#ifndef MCG_MACHINE_H
#define MCG_MACHINE_H

#include <stdint.h>

#include "port.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

/* 16 lanes of four bytes each; the compiler makes two, four or more registers of it where the machine has less. */
typedef int32_t mcg_wide_t __attribute__((vector_size(64)));
typedef uint32_t mcg_uwide_t __attribute__((vector_size(64)));
typedef int8_t mcg_bytes_t __attribute__((vector_size(16)));
typedef int8_t mcg_four_t __attribute__((vector_size(64))); /* four times 16 bytes */

/* How many output rows and vectors of each a product of matrices keeps in registers. */
#if defined(__AVX512F__)
#define MCG_WIDE_ROWS 8
#define MCG_WIDE_VECTORS 2
#else
#define MCG_WIDE_ROWS 4
#define MCG_WIDE_VECTORS 1
#endif

/* A word of a factor holds this many neighbouring terms of a sum: bytes, or int16 on x86 without dot products of bytes.
 * Terms of the first factor are v + MCG_FLIP for the int8 v. */
#if defined(__SSE2__) && !defined(__AVX512VNNI__) && !defined(__AVXVNNI__)
#define MCG_TERMS 2
#define MCG_FLIP 0
typedef int16_t mcg_term_t;
#else
#define MCG_TERMS 4
#define MCG_FLIP 128
typedef int8_t mcg_term_t;
#endif

/* Whether the machine loads and stores some of a vector's elements in one instruction: the others read as 0. */
#if defined(__AVX512BW__) && defined(__AVX512VL__)
#define MCG_MASKS 1
MCG_INLINE mcg_bytes_t mcg_load_first_bytes(const void *at, int32_t n) {
  return (mcg_bytes_t)_mm_maskz_loadu_epi8((__mmask16)((1u << n) - 1u), at);
}
MCG_INLINE void mcg_store_first_bytes(void *at, mcg_bytes_t v, int32_t n) {
  _mm_mask_storeu_epi8(at, (__mmask16)((1u << n) - 1u), (__m128i)v);
}
MCG_INLINE mcg_wide_t mcg_load_first(const void *at, int32_t n) {
  return (mcg_wide_t)_mm512_maskz_loadu_epi32((__mmask16)((1u << n) - 1u), at);
}
MCG_INLINE void mcg_store_first(void *at, mcg_wide_t v, int32_t n) {
  _mm512_mask_storeu_epi32(at, (__mmask16)((1u << n) - 1u), (__m512i)v);
}
#else
#define MCG_MASKS 0
#endif

/* Whether one instruction puts 64 bytes in any order. */
#if defined(__AVX512VBMI__)
#define MCG_ANY_ORDER 1
/* to [64] = from[order[i]], of the first n <= 64 bytes; the others read as 0. */
MCG_INLINE void mcg_pick_bytes(int8_t *to, const int8_t *from, int32_t n, const uint8_t order[64]) {
  const __m512i some = _mm512_maskz_loadu_epi8(~0ull >> (64 - n), from);
  _mm512_storeu_si512(to, _mm512_permutexvar_epi8(_mm512_loadu_si512(order), some));
}
#else
#define MCG_ANY_ORDER 0
#endif

/* Byte i of v[j] as byte j of word i. */
MCG_INLINE mcg_wide_t mcg_interleave(const mcg_bytes_t v[4]) {
  union { mcg_bytes_t part[4]; mcg_four_t bytes; mcg_wide_t words; } u = {{v[0], v[1], v[2], v[3]}};
#define MCG_FOUR_AT(i) (i), (i) + 16, (i) + 32, (i) + 48
#define MCG_FOURS_AT(i) MCG_FOUR_AT(i), MCG_FOUR_AT((i) + 1), MCG_FOUR_AT((i) + 2), MCG_FOUR_AT((i) + 3)
#if defined(__AVX512VBMI__)
  mcg_four_t order = {MCG_FOURS_AT(0), MCG_FOURS_AT(4), MCG_FOURS_AT(8), MCG_FOURS_AT(12)};
  __asm__("" : "+v"(order), "+v"(u.words)); /* or clang would make several shuffles of the one */
  return (mcg_wide_t)_mm512_permutexvar_epi8((__m512i)order, (__m512i)u.words);
#else
  u.bytes = __builtin_shufflevector(u.bytes, u.bytes, MCG_FOURS_AT(0), MCG_FOURS_AT(4), MCG_FOURS_AT(8), MCG_FOURS_AT(12));
  return u.words;
#endif
#undef MCG_FOUR_AT
#undef MCG_FOURS_AT
}

/* acc + the products of the terms of a and b in each lane; bytes of a are unsigned, of b signed. */
MCG_INLINE mcg_wide_t mcg_dot(mcg_wide_t acc, mcg_wide_t a, mcg_wide_t b) {
#if defined(__AVX512VNNI__)
  return (mcg_wide_t)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)a, (__m512i)b);
#elif defined(__AVXVNNI__)
  union { mcg_wide_t all; __m256i half[2]; } r = {acc}, x = {a}, y = {b};
  for (int i = 0; i < 2; ++i) r.half[i] = _mm256_dpbusd_avx_epi32(r.half[i], x.half[i], y.half[i]);
  return r.all;
#elif defined(__AVX2__)
  union { mcg_wide_t all; __m256i part[2]; } x = {a}, y = {b}, r;
  for (int i = 0; i < 2; ++i) r.part[i] = _mm256_madd_epi16(x.part[i], y.part[i]);
  return acc + r.all;
#elif defined(__SSE2__)
  union { mcg_wide_t all; __m128i part[4]; } x = {a}, y = {b}, r;
  for (int i = 0; i < 4; ++i) r.part[i] = _mm_madd_epi16(x.part[i], y.part[i]);
  return acc + r.all;
#else
  for (int i = 0; i < 32; i += 8) {
    acc += (mcg_wide_t)((mcg_uwide_t)a >> i & 255u) * ((mcg_wide_t)((mcg_uwide_t)b << (24 - i)) >> 24);
  }
  return acc;
#endif
}

/* The lanes saturated to int8, the two in the middle of each four having changed places. */
MCG_INLINE mcg_bytes_t mcg_saturate_crossed(mcg_wide_t v) {
#if defined(__AVX2__)
  const union { mcg_wide_t all; __m256i half[2]; } x = {v};
  const __m256i pairs = _mm256_packs_epi32(x.half[0], x.half[1]); /* lanes 0-3, 8-11, 4-7, 12-15 */
  const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
  return (mcg_bytes_t)_mm_shuffle_epi8(bytes, _mm_setr_epi8(0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15));
#else
  v = (v & (v >= -128)) | ((v < -128) & -128);
  v = (v & (v <= 127)) | ((v > 127) & 127);
  v = __builtin_shufflevector(v, v, 0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15);
  return __builtin_convertvector(v, mcg_bytes_t);
#endif
}

#if defined(__AVX512BW__)
/* Bytes as two packs of four crossed vectors leave them, in the order of these vectors and of their lanes. */
MCG_INLINE mcg_four_t mcg_uncrossed_four(mcg_four_t v) {
#define MCG_FOUR_AT(i) (i), (i) + 2, (i) + 1, (i) + 3
#define MCG_LANES_AT(i) MCG_FOUR_AT(i), MCG_FOUR_AT((i) + 16), MCG_FOUR_AT((i) + 32), MCG_FOUR_AT((i) + 48)
  return __builtin_shufflevector(v, v, MCG_LANES_AT(0), MCG_LANES_AT(4), MCG_LANES_AT(8), MCG_LANES_AT(12));
#undef MCG_FOUR_AT
#undef MCG_LANES_AT
}
#endif

/* Bits that mcg_narrow_four shifts right by at most, and what it takes off. */
#if defined(__AVX512BW__)
#define MCG_NARROW_BITS 8
#define MCG_NARROW_LESS 128
#else
#define MCG_NARROW_BITS 0
#define MCG_NARROW_LESS 0
#endif

/* Lane i of a and of b as two words, 0 <= a, b < 2^16, where mcg_narrow_four looks for them. */
MCG_INLINE mcg_wide_t mcg_pair_words(mcg_wide_t a, mcg_wide_t b) {
#if defined(__AVX512BW__)
  return (mcg_wide_t)_mm512_packus_epi32((__m512i)a, (__m512i)b);
#else
  return (mcg_wide_t)((mcg_uwide_t)a | (mcg_uwide_t)b << 16);
#endif
}

/* The lanes of four vectors shifted right, less MCG_NARROW_LESS, saturated to int8; in each four lanes of v the two in the
 * middle have changed places.  The shifts are by at least 1 bit where they are by any, and come as 2^16 >> shift: in `factor`
 * as mcg_pair_words of those of v[0] and v[2] and of v[1] and v[3]. */
MCG_INLINE mcg_four_t mcg_narrow_four(const mcg_wide_t v[4], mcg_wide_t factor) {
#if defined(__AVX512BW__)
  const __m512i low = _mm512_mulhi_epu16(_mm512_packus_epi32((__m512i)v[0], (__m512i)v[1]), (__m512i)factor);
  const __m512i high = _mm512_mulhi_epu16(_mm512_packus_epi32((__m512i)v[2], (__m512i)v[3]), (__m512i)factor);
  const mcg_four_t bytes = (mcg_four_t)_mm512_packus_epi16(low, high);
  return mcg_uncrossed_four(bytes ^ (mcg_four_t)_mm512_set1_epi8(-MCG_NARROW_LESS));
#else
  union { mcg_bytes_t part[4]; mcg_four_t all; } r;
  (void)factor;
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) r.part[i] = mcg_saturate_crossed(v[i]);
  return r.all;
#endif
}

/* The lanes of four vectors clamped to +-127, uncrossed as by mcg_narrow_four; adds to *clamped how many that changed. */
MCG_INLINE mcg_four_t mcg_clamp_four(const mcg_wide_t v[4], int32_t *clamped) {
#if defined(__AVX512BW__)
  const __m512i most = _mm512_set1_epi16(127), least = _mm512_set1_epi16(-127);
  const __m512i a = _mm512_packs_epi32((__m512i)v[0], (__m512i)v[1]), b = _mm512_packs_epi32((__m512i)v[2], (__m512i)v[3]);
  const __m512i c = _mm512_max_epi16(_mm512_min_epi16(a, most), least);
  const __m512i d = _mm512_max_epi16(_mm512_min_epi16(b, most), least);
  const uint64_t low = _mm512_cmpneq_epi16_mask(a, c), high = _mm512_cmpneq_epi16_mask(b, d);
  *clamped += __builtin_popcountll(low | high << 32);
  return mcg_uncrossed_four((mcg_four_t)_mm512_packs_epi16(c, d));
#elif defined(__AVX2__)
  const __m256i most = _mm256_set1_epi16(127), least = _mm256_set1_epi16(-127);
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  const __m256i cross = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15));
  const union { mcg_wide_t all; __m256i half[2]; } x[4] = {{v[0]}, {v[1]}, {v[2]}, {v[3]}};
  union { __m256i half[2]; mcg_four_t all; } r;
  __m256i eights[2]; /* of the four: lanes 0-7, 8-15 */
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    const __m256i a = _mm256_packs_epi32(x[0].half[i], x[1].half[i]), b = _mm256_packs_epi32(x[2].half[i], x[3].half[i]);
    const __m256i c = _mm256_max_epi16(_mm256_min_epi16(a, most), least);
    const __m256i d = _mm256_max_epi16(_mm256_min_epi16(b, most), least);
    const __m256i kept = _mm256_packs_epi16(_mm256_cmpeq_epi16(a, c), _mm256_cmpeq_epi16(b, d));
    *clamped += __builtin_popcount(~(uint32_t)_mm256_movemask_epi8(kept));
    eights[i] = _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(_mm256_packs_epi16(c, d), cross), order);
  }
  const __m256i even = _mm256_unpacklo_epi64(eights[0], eights[1]), odd = _mm256_unpackhi_epi64(eights[0], eights[1]);
  r.half[0] = _mm256_permute2x128_si256(even, odd, 0x20), r.half[1] = _mm256_permute2x128_si256(even, odd, 0x31);
  return r.all;
#else
  union { mcg_bytes_t part[4]; mcg_four_t all; } r;
  mcg_wide_t changed = {0};
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    mcg_wide_t kept = (v[i] & (v[i] >= -127)) | ((v[i] < -127) & -127);
    kept = (kept & (kept <= 127)) | ((kept > 127) & 127);
    changed -= kept != v[i];
    const mcg_bytes_t bytes = __builtin_convertvector(kept, mcg_bytes_t);
    r.part[i] = __builtin_shufflevector(bytes, bytes, 0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15);
  }
  for (int i = 0; i < 16; ++i) *clamped += changed[i];
  return r.all;
#endif
}

/* The sign of byte i in bit i. */
MCG_INLINE uint32_t mcg_signs(mcg_bytes_t v) {
#if defined(__SSE2__)
  return (uint32_t)_mm_movemask_epi8((__m128i)v);
#else
  uint32_t bits = 0u;
  for (uint32_t i = 0u; i < 16u; ++i) bits |= ((uint32_t)(uint8_t)v[i] >> 7) << i;
  return bits;
#endif
}

#endif
