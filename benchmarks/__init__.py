"""Measurements of mcugrad: instructions and bytes in the virtual MCU, and steps per second of the host twin."""
