/* Vector table or entry, start of the C program, stack paint, and the way out of a fault. */
#include "startup.h"

#include "board.h"
#include "mmio.h"

/* Set by the linker script. */
extern uint8_t __stack_bottom[], __stack_top[];
extern const uint8_t __flash_start[], __flash_end[], __sram_end[];
extern uint32_t __data_start[], __data_end[], __bss_start[], __bss_end[];
extern const uint32_t __data_image[];

void Reset_Handler(void);
void Fault_Handler(void);

#if !BOARD_RISCV
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

static void memory_protect(void) {}
#else
void start(void);

/* The first bytes of flash. */
__attribute__((naked, used, section(".start"))) void start(void) {
  __asm__ volatile(
      "la sp, __stack_top\n\t"
      "la t0, Fault_Handler\n\t"
      "csrw mtvec, t0\n\t"
      "j Reset_Handler");
}

/* Flash may be read and run, SRAM read and written, the RAM between and above neither; peripherals lie below. */
static void memory_protect(void) {
  enum { READ = 1, WRITE = 2, RUN = 4, UP_TO = 8, LOCKED = 128 };
  const uint32_t flash = LOCKED | UP_TO | READ | RUN, gap = LOCKED | UP_TO, sram = LOCKED | UP_TO | READ | WRITE;
  __asm__ volatile("csrw pmpaddr0, %0" ::"r"((uintptr_t)__flash_start >> 2));
  __asm__ volatile("csrw pmpaddr1, %0" ::"r"((uintptr_t)__flash_end >> 2));
  __asm__ volatile("csrw pmpaddr2, %0" ::"r"((uintptr_t)__stack_bottom >> 2));
  __asm__ volatile("csrw pmpaddr3, %0" ::"r"((uintptr_t)__sram_end >> 2));
  __asm__ volatile("csrw pmpaddr4, %0" ::"r"(UINT32_MAX));
  __asm__ volatile("csrw pmpcfg1, %0" ::"r"(gap));
  __asm__ volatile("csrw pmpcfg0, %0" ::"r"(sram << 24 | gap << 16 | flash << 8) : "memory");
}
#endif

static uint8_t *stack_pointer(void) {
  uint8_t *sp;
#if BOARD_RISCV
  __asm__ volatile("mv %0, sp" : "=r"(sp));
#else
  __asm__ volatile("mov %0, sp" : "=r"(sp));
#endif
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
  memory_protect();
  mmio_open(); /* first: the loops may become vector instructions */
  for (uint32_t *to = __data_start; to < __data_end;) *to++ = *from++;
  for (uint32_t *to = __bss_start; to < __bss_end;) *to++ = 0u;
  main();
  for (;;) {
  }
}

#if BOARD_RISCV
void fault_entry(uint32_t pc);

void fault_entry(uint32_t pc) {
  firmware_fault(pc, mmio_fault_status());
  for (;;) {
  }
}

/* The stack may be what broke, so the report starts on a fresh one. */
__attribute__((naked, aligned(4))) void Fault_Handler(void) {
  __asm__ volatile(
      "csrr a0, mepc\n\t"
      "la sp, __stack_top\n\t"
      "j fault_entry");
}
#else
void fault_entry(const uint32_t *frame);

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
#endif
