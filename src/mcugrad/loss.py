"""The names of what learning can minimise."""

from __future__ import annotations

from enum import Enum

from mcugrad.errors import McugradError


class Loss(Enum):
    """softmax: one class is right.  sigmoid: each label is true or not.  mse: numbers.  autoencoder: the sample itself."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"
    MSE = "mse"
    AUTOENCODER = "autoencoder"

    @staticmethod
    def named(name: str) -> Loss:
        """Raises McugradError for a name that is none."""
        try:
            return Loss(name)
        except ValueError:
            raise McugradError(f"unknown loss {name!r}: use {', '.join(loss.value for loss in Loss)}") from None
