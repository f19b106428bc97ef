"""Packs the initial state for flash: biases are wide in SRAM, and most of them start small."""

from __future__ import annotations

from itertools import groupby

import numpy as np

from mcugrad.ir import Array

BYTES, ZEROS, NARROW = range(3)  # as in mcugrad.h: as they are, zero, int32 stored as int16
_WORD = 4
_MOST = (1 << 14) - 1  # elements of a record
_FEWEST = 3  # words of a run that is worth its own record


def pack(block: bytes) -> bytes:
    """The block in records of (kind << 14 | count) and their contents; zeros at its end are left out."""
    padded = block + bytes(-len(block) % _WORD)
    runs = _runs(np.frombuffer(padded, "<i4"))
    if runs and runs[-1][0] == ZEROS:
        runs.pop()
    return b"".join(_records(kind, padded[first * _WORD : last * _WORD]) for kind, first, last in runs)


def _runs(words: Array) -> list[tuple[int, int, int]]:
    """(kind, first word, end) of neighbours packed alike."""
    narrow = (words >= -(1 << 15)) & (words < 1 << 15)
    kinds = np.where(words == 0, ZEROS, np.where(narrow, NARROW, BYTES))
    for kind, instead in ((ZEROS, NARROW), (NARROW, BYTES)):
        for run, first, last in _grouped(kinds):
            if run == kind and last - first < _FEWEST:
                kinds[first:last] = instead
    return _grouped(kinds)


def _grouped(kinds: Array) -> list[tuple[int, int, int]]:
    runs, at = [], 0
    for kind, members in groupby(kinds.tolist()):
        count = len(list(members))
        runs.append((kind, at, at + count))
        at += count
    return runs


def _records(kind: int, data: bytes) -> bytes:
    """One run; more than one record where it is long."""
    step = _WORD if kind == NARROW else 1
    parts = [data[i : i + _MOST * step] for i in range(0, len(data), _MOST * step)]
    return b"".join((kind << 14 | len(part) // step).to_bytes(2, "little") + _contents(kind, part) for part in parts)


def _contents(kind: int, part: bytes) -> bytes:
    if kind == NARROW:
        return np.frombuffer(part, "<i4").astype("<i2").tobytes()
    return part if kind == BYTES else b""
