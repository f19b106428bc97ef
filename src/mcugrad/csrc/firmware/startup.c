/* Vector table, start of the C program, stack paint, and the way out of a fault. */
#include "startup.h"

#include "mmio.h"

/* Set by the linker script. */
extern uint8_t __stack_bottom[], __stack_top[];
extern uint32_t __data_start[], __data_end[], __bss_start[], __bss_end[];
extern const uint32_t __data_image[];

void Reset_Handler(void);
void Fault_Handler(void);
void fault_entry(const uint32_t *frame);

typedef void (*vector_t)(void);

__attribute__((used, section(".vectors"))) const struct {
  uint8_t *stack;
  vector_t handlers[15];
} vector_table = {
    __stack_top,
    {Reset_Handler, Fault_Handler, Fault_Handler, Fault_Handler, Fault_Handler, Fault_Handler, Fault_Handler,
     Fault_Handler, Fault_Handler, Fault_Handler, Fault_Handler, Fault_Handler, Fault_Handler, Fault_Handler,
     Fault_Handler},
};

static uint8_t *stack_pointer(void) {
  uint8_t *sp;
  __asm__ volatile("mov %0, sp" : "=r"(sp));
  return sp;
}

uint32_t stack_reserved(void) {
  return (uint32_t)(__stack_top - __stack_bottom);
}

void stack_paint(uint8_t paint) {
  volatile uint8_t *const end = stack_pointer();
  for (volatile uint8_t *at = __stack_bottom; at < end; ++at) *at = paint;
}

uint32_t stack_used(uint8_t paint) {
  const volatile uint8_t *at = __stack_bottom;
  while (at < __stack_top && *at == paint) ++at;
  return (uint32_t)(__stack_top - at);
}

void Reset_Handler(void) {
  const uint32_t *from = __data_image;
  mmio_open(); /* first: the loops may become vector instructions */
  for (uint32_t *to = __data_start; to < __data_end;) *to++ = *from++;
  for (uint32_t *to = __bss_start; to < __bss_end;) *to++ = 0u;
  main();
  for (;;) {
  }
}

/* `frame` is where the core pushed r0-r3, r12, lr, pc, xpsr; outside the stack it is not to be read. */
void fault_entry(const uint32_t *frame) {
  const uintptr_t at = (uintptr_t)frame;
  const int inside = at >= (uintptr_t)__stack_bottom && at + 32u <= (uintptr_t)__stack_top && (at & 3u) == 0u;
  firmware_fault(inside ? frame[6] : 0u, mmio_fault_status());
  for (;;) {
  }
}

/* The stack may be what broke, so the report starts on a fresh one. */
__attribute__((naked)) void Fault_Handler(void) {
  __asm__ volatile(
      "mov r0, sp\n\t"
      "ldr r1, =__stack_top\n\t"
      "mov sp, r1\n\t"
      "ldr r2, =fault_entry\n\t"
      "bx r2\n\t"
      ".ltorg");
}
