"""The least that is alive at once under any modes of the forward pass, without measuring all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush

from mcugrad.costs import Costs
from mcugrad.ir import Graph
from mcugrad.memory.forward import Forward, can_pull
from mcugrad.memory.schedule import Segment


def smallest_peak(graph: Graph, *, input_rows: bool | None = False) -> int:
    """Bytes alive at most under the leanest modes of the forward pass: what its smallest arena needs, but for gaps.

    input_rows: as for `plan`, None the better of both where the input can be pulled.  A fraction of the time of a plan."""
    forward = Forward(graph, bool(input_rows), Costs())
    pulled = _pulled(forward) if input_rows is None and can_pull(graph) else []
    return least_peak(forward, [*drafts(forward), *pulled])


@dataclass(frozen=True)
class Draft:
    """nodes[start:stop) in some mode.  least: bytes alive in any mode; measure: bytes alive at most in this one, None where
    there is no such mode."""

    start: int
    stop: int
    least: int
    measure: Callable[[], int | None]


def least_peak(forward: Forward, found: Iterable[Draft]) -> int:
    """`Forward.floor`, which measures every block, by a search from the first node that goes on where the least is alive."""
    leaving: dict[int, list[Draft]] = {}
    for draft in found:
        leaving.setdefault(draft.start, []).append(draft)
    settled: set[int] = set()
    queue: list[tuple[int, int, int, Draft | None]] = [(forward.rest(), 0, 0, None)]  # bytes, minus the place, order of entry
    entries = 0
    after: list[tuple[int, int, Draft | None]]
    while queue:
        peak, place, _, measured = heappop(queue)
        if -place in settled:
            continue
        if measured is not None:
            size = measured.measure()
            after = [] if size is None else [(max(peak, size), measured.stop, None)]
        elif -place == forward.stop:
            return peak
        else:
            settled.add(-place)
            after = [(max(peak, d.least), d.stop, d) for d in leaving.get(-place, [])]
        for bytes_, stop, then in after:
            entries += 1
            heappush(queue, (bytes_, -stop, entries, then))
    return forward.rest()


def drafts(forward: Forward) -> Iterator[Draft]:
    """The blocks that `Forward.leaner` measures."""
    at = _between(forward)
    for i in range(int(forward.rows), forward.stop):
        yield Draft(i, i + 1, int(forward.live[i]), partial(int, forward.live[i]))
    for i in forward.high_layers():
        yield Draft(i, i + 1, max(at[i], at[i + 1]), partial(forward.narrow_peak, i))
    for start, stop, pull in forward.row_cuts():
        least = at[stop] if pull else max(at[start], at[stop])
        yield Draft(start, stop, least, partial(_row_peak, forward, start, stop, pull))
    for found, _, nodes in forward.chunked():
        least = max(at[found.start], at[found.stop])
        yield Draft(found.start, found.stop, least, partial(forward.chunk_peak, found, nodes))


def _pulled(forward: Forward) -> Iterator[Draft]:
    """The blocks that pull the input: what follows them is the same as after a resident input."""
    at = _between(forward)
    for stop in (c for cuts in forward.runs if cuts[0] == 0 for c in cuts[1:]):
        yield Draft(0, stop, at[stop], partial(_row_peak, forward, 0, stop, True))


def _between(forward: Forward) -> list[int]:
    """Bytes that are written before and read after each place between two forward nodes: alive whatever the modes."""
    return [forward.lives.passing(i, i, set()) for i in range(forward.stop + 1)]


def _row_peak(forward: Forward, start: int, stop: int, pull: bool) -> int:
    return forward.row_peak(Segment(start, stop), pull)[0]
