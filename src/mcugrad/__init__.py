"""mcugrad: neural networks that learn on a microcontroller."""

__version__ = "0.1.0"
