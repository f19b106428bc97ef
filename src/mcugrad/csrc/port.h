/* The only #ifdef on architecture: packed int16 pairs, the high word of a product, unaligned words.
 *
 * A pair is a uint32_t holding two int16 lanes, "low" in bits 0-15 and "high" in bits 16-31.  Each function has the name
 * of its Armv7E-M instruction and a plain C twin, so that every machine can run every kernel.  MCG_DUAL_MAC says whether
 * pairs pay: kernels test it with a plain `if`, and a build may force it to 1 to check the packed code on a host.
 */
#ifndef MCG_PORT_H
#define MCG_PORT_H

#include <stdint.h>

#if defined(__ARM_FEATURE_SIMD32)
#include <arm_acle.h>
#define MCG_HAS_SIMD32 1
#else
#define MCG_HAS_SIMD32 0
#endif

#ifndef MCG_DUAL_MAC
#define MCG_DUAL_MAC MCG_HAS_SIMD32
#endif

/* Hand-scheduled inner loops; each has a twin in C that it replaces. */
#ifndef MCG_ASM
#define MCG_ASM MCG_HAS_SIMD32
#endif

/* Vectors of 16 bytes (Armv8.1-M): a test for the preprocessor as well, because files that use them need their types. */
#if defined(__ARM_FEATURE_MVE)
#include <arm_mve.h>
#define MCG_MVE 1
#else
#define MCG_MVE 0
#endif

/* Long multiplication in one instruction (everything but Armv6-M and Armv8-M baseline). */
#if defined(__ARM_ARCH_ISA_THUMB) && __ARM_ARCH_ISA_THUMB < 2
#define MCG_HAS_LONG_MULTIPLY 0
#else
#define MCG_HAS_LONG_MULTIPLY 1
#endif

/* Vector kernels of the host build (csrc/wide), which then defines this: wide.h says which plain ones they replace. */
#ifndef MCG_WIDE
#define MCG_WIDE 0
#endif

#define MCG_RARE static __attribute__((noinline, cold, unused))
/* Before a loop whose rounds are few: unrolling would only add code, which a host has room for. */
#if defined(__clang__) && !MCG_WIDE
#define MCG_ROLLED _Pragma("clang loop unroll(disable) vectorize(disable)")
#define MCG_COMPACT _Pragma("clang loop unroll(disable)") /* the same, but vectors where the machine has them */
#define MCG_UNROLLED _Pragma("clang loop unroll(full)")   /* also where code is kept small */
#else
#define MCG_UNROLLED
#define MCG_ROLLED
#define MCG_COMPACT
#endif

/* A function with all registers to itself; a host has enough. */
#if MCG_WIDE
#define MCG_APART
#else
#define MCG_APART __attribute__((noinline))
#endif

#define MCG_INLINE static inline __attribute__((always_inline))

/* Four bytes from / to any address: LDR, STR where the core allows it unaligned, bytes elsewhere. */
static inline uint32_t mcg_load4(const void *at) {
  uint32_t v;
  __builtin_memcpy(&v, at, sizeof v);
  return v;
}

static inline void mcg_store4(void *at, uint32_t v) { __builtin_memcpy(at, &v, sizeof v); }

/* The same where the address is a multiple of four by construction, so that neighbours may become LDRD, STRD. */
static inline uint32_t mcg_load4_aligned(const void *at) {
  uint32_t v;
  __builtin_memcpy(&v, __builtin_assume_aligned(at, 4), sizeof v);
  return v;
}

static inline void mcg_store4_aligned(void *at, uint32_t v) {
  __builtin_memcpy(__builtin_assume_aligned(at, 4), &v, sizeof v);
}

static inline int32_t mcg_low(uint32_t pair) { return (int16_t)(pair & 0xFFFFu); }

static inline int32_t mcg_high(uint32_t pair) { return (int16_t)(pair >> 16); }

static inline uint32_t mcg_pair(int32_t low, int32_t high) {
  return ((uint32_t)low & 0xFFFFu) | (uint32_t)high << 16;
}

/* (low of a, low of b << 16) and (high of b >> 16, high of a). */
static inline uint32_t mcg_pkhbt(uint32_t a, uint32_t b) { return (a & 0xFFFFu) | b << 16; }

static inline uint32_t mcg_pkhtb(uint32_t a, uint32_t b) { return (a & 0xFFFF0000u) | b >> 16; }

/* a + int8 bytes 0 and 2 of v, and a + bytes 1 and 3, lane by lane; a = 0 widens. */
static inline uint32_t mcg_sxtab16(uint32_t a, uint32_t v) {
#if MCG_HAS_SIMD32
  return (uint32_t)__sxtab16((int16x2_t)a, (int8x4_t)v);
#else
  return mcg_pair(mcg_low(a) + (int8_t)(v & 0xFFu), mcg_high(a) + (int8_t)(v >> 16 & 0xFFu));
#endif
}

static inline uint32_t mcg_sxtab16_odd(uint32_t a, uint32_t v) { return mcg_sxtab16(a, v >> 8 | v << 24); }

static inline uint32_t mcg_sxtb16(uint32_t v) {
#if MCG_HAS_SIMD32
  return (uint32_t)__sxtb16((int8x4_t)v);
#else
  return mcg_sxtab16(0u, v);
#endif
}

static inline uint32_t mcg_sxtb16_odd(uint32_t v) { return mcg_sxtb16(v >> 8 | v << 24); }

/* acc + low * low + high * high */
static inline int32_t mcg_smlad(uint32_t a, uint32_t b, int32_t acc) {
#if MCG_HAS_SIMD32
  return __smlad((int16x2_t)a, (int16x2_t)b, acc);
#else
  return acc + mcg_low(a) * mcg_low(b) + mcg_high(a) * mcg_high(b);
#endif
}

/* acc + one lane * one lane: b(ottom) is low, t(op) is high; clang and gcc print SMLABB ... SMLATT. */
static inline int32_t mcg_smlabb(uint32_t a, uint32_t b, int32_t acc) { return acc + mcg_low(a) * mcg_low(b); }

static inline int32_t mcg_smlabt(uint32_t a, uint32_t b, int32_t acc) { return acc + mcg_low(a) * mcg_high(b); }

static inline int32_t mcg_smlatb(uint32_t a, uint32_t b, int32_t acc) { return acc + mcg_high(a) * mcg_low(b); }

static inline int32_t mcg_smlatt(uint32_t a, uint32_t b, int32_t acc) { return acc + mcg_high(a) * mcg_high(b); }

/* a + b, saturating to int32. */
static inline int32_t mcg_qadd(int32_t a, int32_t b) {
#if MCG_HAS_SIMD32
  return __qadd(a, b);
#else
  int32_t sum;
  if (__builtin_add_overflow(a, b, &sum)) return a < 0 ? INT32_MIN : INT32_MAX;
  return sum;
#endif
}

/* The larger of each pair of int8 lanes. */
static inline uint32_t mcg_max8(uint32_t a, uint32_t b) {
#if MCG_HAS_SIMD32
  (void)__ssub8((int8x4_t)a, (int8x4_t)b);
  return (uint32_t)__sel(a, b);
#else
  uint32_t most = 0u;
  for (uint32_t i = 0u; i < 32u; i += 8u) {
    const int8_t low = (int8_t)(a >> i & 0xFFu), high = (int8_t)(b >> i & 0xFFu);
    most |= ((uint32_t)(low > high ? low : high) & 0xFFu) << i;
  }
  return most;
#endif
}

/* sum + those bytes of `bits` where the int8 lane of v is neither -128 nor 127; bytes of bits are powers of two. */
static inline uint32_t mcg_passed(uint32_t v, uint32_t bits, uint32_t sum) {
#if MCG_HAS_SIMD32
  const uint32_t from_limit = (uint32_t)__uadd8(v, 0x81818181u); /* 0 or 1 at a limit */
  (void)__usub8(from_limit, 0x02020202u);
  return __usada8((uint8x4_t)__sel(bits, 0u), 0u, sum);
#else
  const uint32_t sign = v & 0x80808080u;
  const uint32_t inner = (v & 0x7F7F7F7Fu) ^ (sign - (sign >> 7)); /* 127 at a limit */
  const uint32_t clamped = ((inner + 0x01010101u) >> 7 & 0x01010101u) * 0xFFu;
  return sum + (((bits & ~clamped) * 0x01010101u) >> 24);
#endif
}

/* The high word of a * b. */
static inline int32_t mcg_mulhi(int32_t a, int32_t b) {
#if MCG_HAS_LONG_MULTIPLY
  return (int32_t)(((int64_t)a * b) >> 32);
#else
  const int32_t a1 = a >> 16, b1 = b >> 16;
  const uint32_t a0 = (uint32_t)a & 0xFFFFu, b0 = (uint32_t)b & 0xFFFFu;
  const int32_t t = a1 * (int32_t)b0 + (int32_t)(a0 * b0 >> 16);
  const int32_t u = (int32_t)a0 * b1 + (t & 0xFFFF);
  return a1 * b1 + (t >> 16) + (u >> 16);
#endif
}

#endif
