/* Every access to a peripheral register of the firmware goes through these functions. */
#ifndef MMIO_H
#define MMIO_H

#include <stdint.h>

void mmio_open(void);            /* floating-point unit (where there is one) and UART */
uint8_t mmio_read(void);         /* waits for a byte */
void mmio_write(uint8_t byte);   /* waits until the byte is accepted */
uint32_t mmio_fault_status(void); /* CFSR or mcause, 0 on cores without one */
int mmio_flash_erase(uint32_t address); /* the unit that begins there, to ones; 0 when it is */
int mmio_flash_program(uint32_t address, const uint8_t *data, uint32_t bytes); /* clears bits; 0 when done.  In words of four
                                                   bytes: those beyond the end stay as they are */

#endif
