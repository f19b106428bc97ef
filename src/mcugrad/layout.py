"""Bytes of a value as the C runtime stores them: packed nibbles, bit masks with whole-byte rows, little-endian words."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from mcugrad.ir import NUMPY, Array, TensorType


def to_bytes(array: Array, type_: TensorType) -> bytes:
    """The value's bytes in memory (`type_.nbytes` of them)."""
    if type_.dtype == "u1":
        rows = np.asarray(array, np.uint8).reshape(_mask_shape(type_))
        return np.packbits(rows, axis=1, bitorder="little").tobytes()
    if type_.dtype == "s4":
        nibbles = (np.asarray(array, np.int8).reshape(-1) & 15).astype(np.uint8)
        pairs = np.append(nibbles, np.zeros(len(nibbles) % 2, np.uint8)).reshape(-1, 2)
        return (pairs[:, 0] | (pairs[:, 1] << 4)).tobytes()
    return np.ascontiguousarray(array, np.dtype(NUMPY[type_.dtype]).newbyteorder("<")).tobytes()


def from_bytes(data: bytes | Array, type_: TensorType) -> Array:
    """The inverse of `to_bytes`."""
    raw = np.frombuffer(bytes(data), np.uint8)
    if type_.dtype == "u1":
        rows, width = _mask_shape(type_)
        bits = np.unpackbits(raw.reshape(rows, -1), axis=1, bitorder="little")[:, :width]
        return bits.astype(np.int8).reshape(type_.shape)
    if type_.dtype == "s4":
        nibbles = np.stack([raw & 15, raw >> 4], axis=1).reshape(-1)[: type_.elements].astype(np.int8)
        return np.where(nibbles > 7, nibbles - 16, nibbles).astype(np.int8).reshape(type_.shape)
    words = raw.view(np.dtype(NUMPY[type_.dtype]).newbyteorder("<"))
    return words.astype(NUMPY[type_.dtype]).reshape(type_.shape)


def _mask_shape(type_: TensorType) -> tuple[int, int]:
    if len(type_.shape) != 4:
        return 1, type_.elements
    return type_.shape[1], type_.shape[2] * type_.shape[3]


def parameter_hash(params: Mapping[str, Array]) -> str:
    """SHA-256 over all mutable parameters: for each in order of name, the name, then its little-endian elements.

    Elements are stored as the interpreter holds them: int8 for 8- and 4-bit ones, int16, int32; C order.
    """
    digest = hashlib.sha256()
    for name in sorted(params):
        digest.update(name.encode())
        data = np.ascontiguousarray(params[name])
        digest.update(data.astype(data.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()
