/* The stack lies at the bottom of SRAM, so that an overflow leaves SRAM and faults. */
#ifndef STARTUP_H
#define STARTUP_H

#include <stdint.h>

uint32_t stack_reserved(void);          /* bytes */
uint32_t stack_used(uint8_t paint);     /* bytes touched since stack_paint(paint): the high-water mark */
void stack_paint(uint8_t paint);        /* fills the unused part */

int main(void);
void firmware_fault(uint32_t pc, uint32_t status); /* reports over the link; never returns to the program */

#endif
