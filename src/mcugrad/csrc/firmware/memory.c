/* The memory functions a compiler may call on its own; a word at a time where both sides are aligned. */
#include <stddef.h>
#include <stdint.h>

void *memcpy(void *restrict to, const void *restrict from, size_t bytes);
void *memmove(void *to, const void *from, size_t bytes);
void *memset(void *to, int value, size_t bytes);

/* What clang calls instead on Arm: 4 and 8 promise an alignment that the plain ones find out by themselves. */
void __aeabi_memcpy(void *restrict to, const void *restrict from, size_t bytes);
void __aeabi_memcpy4(void *restrict to, const void *restrict from, size_t bytes);
void __aeabi_memcpy8(void *restrict to, const void *restrict from, size_t bytes);
void __aeabi_memmove(void *to, const void *from, size_t bytes);
void __aeabi_memmove4(void *to, const void *from, size_t bytes);
void __aeabi_memmove8(void *to, const void *from, size_t bytes);
void __aeabi_memset(void *to, size_t bytes, int value);
void __aeabi_memset4(void *to, size_t bytes, int value);
void __aeabi_memset8(void *to, size_t bytes, int value);
void __aeabi_memclr(void *to, size_t bytes);
void __aeabi_memclr4(void *to, size_t bytes);
void __aeabi_memclr8(void *to, size_t bytes);

typedef uint32_t __attribute__((may_alias)) word_t;

void *memcpy(void *restrict to, const void *restrict from, size_t bytes) {
  uint8_t *t = (uint8_t *)to;
  const uint8_t *f = (const uint8_t *)from;
  if ((((uintptr_t)t | (uintptr_t)f) & 3u) == 0u) {
    for (; bytes >= 16u; bytes -= 16u, t += 16, f += 16) {
      const word_t a = ((const word_t *)f)[0], b = ((const word_t *)f)[1];
      const word_t c = ((const word_t *)f)[2], d = ((const word_t *)f)[3];
      ((word_t *)t)[0] = a;
      ((word_t *)t)[1] = b;
      ((word_t *)t)[2] = c;
      ((word_t *)t)[3] = d;
    }
    for (; bytes >= 4u; bytes -= 4u, t += 4, f += 4) *(word_t *)t = *(const word_t *)f;
  }
  while (bytes-- != 0u) *t++ = *f++;
  return to;
}

void *memmove(void *to, const void *from, size_t bytes) {
  uint8_t *t = (uint8_t *)to;
  const uint8_t *f = (const uint8_t *)from;
  if ((uintptr_t)t <= (uintptr_t)f) {
    for (size_t i = 0; i < bytes; ++i) t[i] = f[i];
  } else {
    while (bytes-- != 0u) t[bytes] = f[bytes];
  }
  return to;
}

void *memset(void *to, int value, size_t bytes) {
  uint8_t *t = (uint8_t *)to;
  const uint32_t word = (uint32_t)(uint8_t)value * 0x01010101u;
  for (; bytes != 0u && ((uintptr_t)t & 3u) != 0u; --bytes) *t++ = (uint8_t)word;
  for (; bytes >= 16u; bytes -= 16u, t += 16) {
    ((word_t *)t)[0] = word;
    ((word_t *)t)[1] = word;
    ((word_t *)t)[2] = word;
    ((word_t *)t)[3] = word;
  }
  for (; bytes >= 4u; bytes -= 4u, t += 4) *(word_t *)t = word;
  while (bytes-- != 0u) *t++ = (uint8_t)word;
  return to;
}

void __aeabi_memcpy(void *restrict to, const void *restrict from, size_t bytes) { memcpy(to, from, bytes); }
void __aeabi_memcpy4(void *restrict to, const void *restrict from, size_t bytes) { memcpy(to, from, bytes); }
void __aeabi_memcpy8(void *restrict to, const void *restrict from, size_t bytes) { memcpy(to, from, bytes); }
void __aeabi_memmove(void *to, const void *from, size_t bytes) { memmove(to, from, bytes); }
void __aeabi_memmove4(void *to, const void *from, size_t bytes) { memmove(to, from, bytes); }
void __aeabi_memmove8(void *to, const void *from, size_t bytes) { memmove(to, from, bytes); }
void __aeabi_memset(void *to, size_t bytes, int value) { memset(to, value, bytes); }
void __aeabi_memset4(void *to, size_t bytes, int value) { memset(to, value, bytes); }
void __aeabi_memset8(void *to, size_t bytes, int value) { memset(to, value, bytes); }
void __aeabi_memclr(void *to, size_t bytes) { memset(to, 0, bytes); }
void __aeabi_memclr4(void *to, size_t bytes) { memset(to, 0, bytes); }
void __aeabi_memclr8(void *to, size_t bytes) { memset(to, 0, bytes); }
