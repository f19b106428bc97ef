"""Scratch memory that costs nothing: nodes that run in fewer instructions with more of it take what is free while they run,
and pieces that share a buffer as much as the largest of them needs."""

from __future__ import annotations

from dataclasses import replace

from mcugrad.ir import Graph, Node
from mcugrad.memory.buffer import Buffer
from mcugrad.memory.schedule import Schedule, Step
from mcugrad.memory.solve import MemoryPlan

Placed = tuple[Buffer, int]


def use_gaps(graph: Graph, schedule: Schedule, plan: MemoryPlan) -> tuple[Graph, Schedule, MemoryPlan]:
    """The same computation in the same arena, the scratch memory of some nodes larger and elsewhere."""
    grown: dict[Node, Node] = {}
    placed = list(plan.placed)
    for i, (buffer, at) in enumerate(plan.placed):
        if len(buffer.scratch) == 1 and buffer.first == buffer.last:
            found = _grow(buffer, _largest_gap(placed[:i] + placed[i + 1 :], buffer, plan.arena))
            if found is not None:
                grown[buffer.scratch[0]], placed[i] = found
        elif buffer.scratch:
            more = {n: replace(n, op=op) for n in buffer.scratch if (op := n.op.roomier(n, buffer.size)) is not None}
            placed[i] = replace(buffer, scratch=tuple(more.get(n, n) for n in buffer.scratch)), at
            grown |= more
    if not grown:
        return graph, schedule, plan
    nodes = tuple(grown.get(n, n) for n in graph.nodes)
    steps = tuple(replace(s, node=grown.get(s.node, s.node)) if isinstance(s, Step) else s for s in schedule)
    scratch = {n: at for buffer, at in placed for n in buffer.scratch}
    return replace(graph, nodes=nodes), steps, replace(plan, scratch=scratch, placed=tuple(placed))


def _grow(buffer: Buffer, gap: tuple[int, int]) -> tuple[Node, Placed] | None:
    """The node with its scratch memory in [start, end), if it takes more than it has."""
    node, (start, end) = buffer.scratch[0], gap
    op = node.op.roomier(node, end - start)
    if op is None:
        return None
    grown = replace(node, op=op)
    kernel = op.kernel(grown)
    assert kernel is not None and buffer.size < kernel.scratch <= end - start, f"scratch memory of {node.where}"
    size = -(-kernel.scratch // buffer.align) * buffer.align
    return grown, (replace(buffer, scratch=(grown,), size=size), start)


def _largest_gap(placed: list[Placed], buffer: Buffer, arena: int) -> tuple[int, int]:
    """The most bytes [start, end) that no other buffer has at the buffer's step; both aligned."""
    taken = sorted((at, at + b.size) for b, at in placed if b.first <= buffer.first <= b.last)
    best, at = (0, 0), 0
    for start, end in (*taken, (arena, arena)):
        if start // buffer.align * buffer.align - at > best[1] - best[0]:
            best = at, start // buffer.align * buffer.align
        at = max(at, -(-end // buffer.align) * buffer.align)
    return best
