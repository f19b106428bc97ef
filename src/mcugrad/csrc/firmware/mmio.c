/* The only file that touches registers.  `board.h` is printed by the build from the target's facts. */
#include "mmio.h"

#include "board.h"

#define REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))
#define UART(offset) REGISTER(BOARD_UART_BASE + (offset))

#if BOARD_FPU
static void fpu_enable(void) {
  REGISTER(0xE000ED88u) |= 0xFu << 20; /* CPACR: full access to CP10 and CP11 */
  __asm__ volatile("dsb\n\tisb" ::: "memory");
}
#else
static void fpu_enable(void) {}
#endif

uint32_t mmio_fault_status(void) {
#if BOARD_RISCV
  uint32_t cause;
  __asm__ volatile("csrr %0, mcause" : "=r"(cause));
  return cause;
#elif BOARD_CFSR
  return REGISTER(0xE000ED28u);
#else
  return 0u;
#endif
}

#if defined(BOARD_UART_VIRTUAL)
/* 0x00 RX: the next byte, or all ones while there is none.  0x04 TX. */
static void uart_open(void) {}

uint8_t mmio_read(void) {
  uint32_t word = UART(0x00u);
  while (word > 255u) word = UART(0x00u);
  return (uint8_t)word;
}

void mmio_write(uint8_t byte) {
  UART(0x04u) = byte;
}

#elif defined(BOARD_UART_CMSDK)
/* 0x00 DATA, 0x04 STATE (1: transmitter full, 2: receiver full), 0x08 CTRL, 0x10 BAUDDIV */
static void uart_open(void) {
  UART(0x10u) = 16u;
  UART(0x08u) = 3u;
  (void)UART(0x00u); /* QEMU holds back bytes that came before the receiver was enabled until DATA is read */
}

uint8_t mmio_read(void) {
  while ((UART(0x04u) & 2u) == 0u) {
  }
  return (uint8_t)UART(0x00u);
}

void mmio_write(uint8_t byte) {
  while ((UART(0x04u) & 1u) != 0u) {
  }
  UART(0x00u) = byte;
}

#elif defined(BOARD_UART_NRF51)
/* 0x000 STARTRX, 0x008 STARTTX, 0x108 RXDRDY, 0x11C TXDRDY, 0x500 ENABLE, 0x518 RXD, 0x51C TXD, 0x524 BAUDRATE */
static void uart_open(void) {
  UART(0x50Cu) = 24u;        /* TXD pin of the board's USB bridge */
  UART(0x514u) = 25u;        /* RXD pin */
  UART(0x524u) = 0x01D7E000u; /* 115200 baud */
  UART(0x500u) = 4u;
  UART(0x000u) = 1u;
  UART(0x008u) = 1u;
}

uint8_t mmio_read(void) {
  while (UART(0x108u) == 0u) {
  }
  UART(0x108u) = 0u;
  return (uint8_t)UART(0x518u);
}

void mmio_write(uint8_t byte) {
  UART(0x11Cu) = 0u;
  UART(0x51Cu) = byte;
  while (UART(0x11Cu) == 0u) {
  }
}

#elif defined(BOARD_UART_NS16550)
/* Bytes: 0 RBR, THR and divisor, 1 divisor's high byte, 2 FCR, 3 LCR, 5 LSR (1: received, 32: transmitter empty) */
#define UART_BYTE(offset) (*(volatile uint8_t *)(uintptr_t)(BOARD_UART_BASE + (offset)))

/* Switching the FIFOs on loses what came before: the zero, an empty frame, tells the host that it may begin. */
static void uart_open(void) {
  UART_BYTE(3u) = 0x80u; /* the divisor's registers */
  UART_BYTE(0u) = 1u;
  UART_BYTE(1u) = 0u;
  UART_BYTE(3u) = 3u; /* 8N1 */
  UART_BYTE(2u) = 1u;
  mmio_write(0u);
}

uint8_t mmio_read(void) {
  while ((UART_BYTE(5u) & 1u) == 0u) {
  }
  return UART_BYTE(0u);
}

void mmio_write(uint8_t byte) {
  while ((UART_BYTE(5u) & 32u) == 0u) {
  }
  UART_BYTE(0u) = byte;
}

#else
#error "board.h names no UART driver"
#endif

#if defined(BOARD_NOR_BASE)
#define NOR(offset) REGISTER(BOARD_NOR_BASE + (offset))

/* The word at byte i of `bytes`; what lies beyond them stays erased. */
static uint32_t nor_word(const uint8_t *data, uint32_t bytes, uint32_t i) {
  uint32_t word = 0xFFFFFFFFu;
  for (uint32_t k = 0u; k < 4u && i + k < bytes; ++k) word ^= (uint32_t)(data[i + k] ^ 0xFFu) << (8u * k);
  return word;
}
#endif

#if defined(BOARD_NOR_VIRTUAL)
/* 0x00 ADDRESS, 0x04 PROGRAM (a word there; ADDRESS goes on by four), 0x08 ERASE (the unit there), 0x0C STATUS: 0 when all since
 * it was last read went well. */
int mmio_flash_erase(uint32_t address) {
  NOR(0x00u) = address;
  NOR(0x08u) = 1u;
  return NOR(0x0Cu) != 0u;
}

int mmio_flash_program(uint32_t address, const uint8_t *data, uint32_t bytes) {
  NOR(0x00u) = address;
  for (uint32_t i = 0u; i < bytes; i += 4u) {
    NOR(0x04u) = nor_word(data, bytes, i);
    if (NOR(0x0Cu) != 0u) return 1;
  }
  return 0;
}

#elif defined(BOARD_NOR_NRF51)
/* 0x400 READY, 0x504 CONFIG (0: flash is only read, 1: written as memory is, 2: erased), 0x508 ERASEPAGE: the page's address */
static void nor_configure(uint32_t how) {
  while (NOR(0x400u) == 0u) {
  }
  NOR(0x504u) = how;
}

int mmio_flash_erase(uint32_t address) {
  nor_configure(2u);
  NOR(0x508u) = address;
  nor_configure(0u);
  return 0;
}

int mmio_flash_program(uint32_t address, const uint8_t *data, uint32_t bytes) {
  for (uint32_t i = 0u; i < bytes; i += 4u) {
    nor_configure(1u);
    REGISTER(address + i) = nor_word(data, bytes, i);
  }
  nor_configure(0u);
  return 0;
}
#endif

void mmio_open(void) {
  fpu_enable();
  uart_open();
}
