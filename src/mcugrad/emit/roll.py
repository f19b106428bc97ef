"""Finds runs of calls that repeat with addresses a constant apart, so that they are printed once, in a loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from mcugrad.ir import Kernel, Operand, Struct

Place = Callable[[Operand], tuple[str, int]]
"""Operand -> the block of memory that holds it and its byte offset there; both say where it is and nothing else."""


@dataclass(frozen=True)
class Moving(Operand):
    """An operand whose address moves by `stride` bytes from one round of a loop to the next."""

    stride: int = 0


@dataclass(frozen=True)
class Loop:
    """`count` rounds of the calls [start, start + len(kernels)); the kernels' operands say how they move."""

    start: int
    count: int
    kernels: tuple[Kernel, ...]

    @property
    def stop(self) -> int:
        return self.start + self.count * len(self.kernels)


def loops(kernels: Sequence[Kernel | None], extras: Sequence[str], place: Place) -> list[Loop]:
    """Disjoint loops over calls in order, the one that saves most at each place; None is a call that never repeats.

    extras: what else must be the same from round to round (the scratch address)."""
    known: dict[Any, int] = {}
    shapes, addresses = list[int](), list[list[tuple[str, int]]]()
    for i, (kernel, extra) in enumerate(zip(kernels, extras, strict=True)):
        found: list[tuple[str, int]] = []
        shape = (i,) if kernel is None else (kernel.function, _shape(kernel.args, place, found), extra)
        shapes.append(known.setdefault(shape, len(known)))
        addresses.append(found)
    result: list[Loop] = []
    at = 0
    while at < len(kernels):
        best = max(_candidates(shapes, addresses, at), key=lambda c: (c[0] * (c[1] - 1), -c[0]), default=(1, 1))
        period, count = best
        if count > 1:
            result.append(Loop(at, count, tuple(_moving(kernels, addresses, i, period) for i in range(at, at + period))))
        at += period * count
    return result


def _shape(item: Any, place: Place, found: list[tuple[str, int]]) -> Any:
    """The item without its addresses, which go to `found`."""
    if isinstance(item, Operand):
        if item.value is None:
            return None
        found.append(place(item))
        return (item.ctype, item.const)
    if isinstance(item, Struct):
        return (item.ctype, tuple((name, _shape(value, place, found)) for name, value in item.fields))
    if isinstance(item, tuple):
        return tuple(_shape(value, place, found) for value in item)
    return item


def _candidates(shapes: Sequence[int], addresses: Sequence[list[tuple[str, int]]], at: int) -> Iterator[tuple[int, int]]:
    """(period, rounds) of the repetitions that begin at a call."""
    for after in range(at + 1, (at + len(shapes)) // 2 + 1):
        if shapes[after] == shapes[at] and (count := _rounds(shapes, addresses, at, after - at)) > 1:
            yield after - at, count


def _rounds(shapes: Sequence[int], addresses: Sequence[list[tuple[str, int]]], at: int, period: int) -> int:
    """How often the calls [at, at + period) repeat with constant strides."""
    count = 1
    strides: list[Any] = [None] * period
    while at + (count + 1) * period <= len(shapes):
        for i in range(period):
            here, before = at + count * period + i, at + (count - 1) * period + i
            if shapes[here] != shapes[before]:
                return count
            moved = [_distance(a, b) for a, b in zip(addresses[before], addresses[here], strict=True)]
            if None in moved or strides[i] not in (None, moved):
                return count
            strides[i] = moved
        count += 1
    return count


def _distance(a: tuple[str, int], b: tuple[str, int]) -> int | None:
    return b[1] - a[1] if a[0] == b[0] else None


def _moving(kernels: Sequence[Kernel | None], addresses: Sequence[list[tuple[str, int]]], i: int, period: int) -> Kernel:
    kernel = kernels[i]
    assert kernel is not None, "a call that repeats has a kernel"
    strides = iter(b[1] - a[1] for a, b in zip(addresses[i], addresses[i + period], strict=True))
    return replace(kernel, args=_with_strides(kernel.args, strides))


def _with_strides(item: Any, strides: Iterator[int]) -> Any:
    if isinstance(item, Operand):
        if item.value is None:
            return item
        return Moving(**{f.name: getattr(item, f.name) for f in fields(item)}, stride=next(strides))
    if isinstance(item, Struct):
        return replace(item, fields=tuple((name, _with_strides(value, strides)) for name, value in item.fields))
    if isinstance(item, tuple):
        return tuple(_with_strides(value, strides) for value in item)
    return item
