"""What needs bytes in the arena, and from which step to which: the input of the memory planner."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from mcugrad.errors import McugradError
from mcugrad.ir import Graph, Node, Value
from mcugrad.memory.buffer import ALIGN, Buffer
from mcugrad.memory.overlap import Overlap, find_overlaps
from mcugrad.memory.schedule import LoadRows, Schedule, Step, ring_rows

STATE_ALIGN = {"s16": 2, "s32": 4, "f32": 4}  # bytes; other types are read byte by byte


class MemoryProblemError(McugradError):
    """The memory of a graph cannot be planned; the message names the value."""


class Home(Enum):
    """Where the bytes of a value are."""

    ARENA = "arena"
    STATE = "state"  # mutable parameters
    FLASH = "flash"  # frozen parameters
    CALLER = "caller"  # inputs after the first: scalars that the caller passes


@dataclass(frozen=True)
class Storage:
    """Home of every value, and the value whose bytes it names (itself, or the one that an aliasing op renames)."""

    home: Mapping[Value, Home]
    root: Mapping[Value, Value]


@dataclass(frozen=True)
class Problem:
    """Buffers to place; times are indices of `schedule`, and len(schedule) for what must outlive the last step.

    overlaps: pairs that may share bytes though both are alive."""

    graph: Graph
    schedule: Schedule
    buffers: tuple[Buffer, ...]
    overlaps: tuple[Overlap, ...] = ()


def storage(graph: Graph) -> Storage:
    """Homes and roots of all values.  Raises MemoryProblemError when an update is not in the bytes of its parameter."""
    params = {p.value for p in graph.params}
    home = {v: Home.CALLER for v in graph.inputs[1:]} | {v: Home.FLASH for v in params}
    home |= {p.value: Home.STATE for p in graph.mutable()}
    home |= {v: Home.ARENA for v in graph.inputs[:1]}
    root: dict[Value, Value] = {v: v for v in home}
    for node in graph.nodes:
        source = {out: node.inputs[i] for i, out in node.op.aliased}
        for index, value in enumerate(node.outputs):
            root[value] = root[source[index]] if index in source else value
            home[value] = home[root[value]] if index in source else Home.ARENA
    for old, new in graph.updates:
        if root[new] is not old:
            raise MemoryProblemError(
                f"{old.name}: its next value {new.name} is computed elsewhere, not in place; fuse the update"
            )
    return Storage(home, root)


def scratch_sizes(graph: Graph) -> dict[Node, int]:
    """Bytes of scratch memory of each node whose kernel needs any."""
    kernels = {n: n.op.kernel(n) for n in graph.nodes}
    return {n: k.scratch for n, k in kernels.items() if k is not None and k.scratch}


def build(
    graph: Graph,
    schedule: Schedule,
    *,
    align: int = ALIGN,
    scratch: Mapping[Node, int] | None = None,
    in_place: bool = True,
) -> Problem:
    """Lifetimes, in-place merges, overlaps, rings and scratch of a scheduled graph.

    align: bytes.  scratch: `scratch_sizes(graph)`, for callers that build many problems of one graph.  in_place: False shows
    what the merges bring.  Values of zero bytes get no buffer.  Raises MemoryProblemError as `storage` does.
    """
    store = storage(graph)
    arena = {v for v, h in store.home.items() if h is Home.ARENA}
    rings = {v: n for v, n in ring_rows(graph, schedule).items() if v in arena}
    groups = _Groups({v: store.root[v] for v in arena}, _lives(graph, schedule, arena))
    for index, step in enumerate(schedule):
        if in_place and isinstance(step, Step) and step.segment is None:
            _merge_in_place(step.node, index, groups, rings)
    buffers = [_buffer(group, rings, align) for group in groups.all()]
    work = _scratch(schedule, scratch_sizes(graph) if scratch is None else scratch, align)
    placed = (*(b for b in buffers if b.size), *work)
    return Problem(graph, schedule, placed, find_overlaps(schedule, placed))


def _lives(graph: Graph, schedule: Schedule, arena: set[Value]) -> dict[Value, tuple[int, int]]:
    """First and last step of each value; an output of the graph lives on after the last step."""
    lives: dict[Value, tuple[int, int]] = {}
    if not any(isinstance(s, LoadRows) for s in schedule):
        lives = {v: (0, 0) for v in graph.inputs[:1]}
    for index, step in enumerate(schedule):
        for value in (*step.inputs, *step.outputs):
            if value in arena:
                lives[value] = (lives.get(value, (index, index))[0], index)
    for value in graph.outputs:
        if value in arena:
            lives[value] = (lives[value][0], len(schedule))
    return lives


class _Groups:
    """Values that share bytes, as disjoint lists in the order of writing."""

    def __init__(self, root: Mapping[Value, Value], lives: Mapping[Value, tuple[int, int]]) -> None:
        self.lives = lives
        self.members: dict[Value, list[Value]] = {}
        for value in sorted(lives, key=lambda v: lives[v][0]):
            if root[value] in self.members:
                self.members[root[value]].append(value)
                self.members[value] = self.members[root[value]]
            else:
                self.members[value] = [value]

    def merge(self, into: Value, value: Value) -> None:
        self.members[into] += self.members[value]
        for member in self.members[value]:
            self.members[member] = self.members[into]

    def last(self, value: Value) -> int:
        return max(self.lives[v][1] for v in self.members[value])

    def all(self) -> Iterable[tuple[tuple[Value, ...], int, int]]:
        """(values, first step, last step) of each group."""
        for group in {id(g): g for g in self.members.values()}.values():
            yield tuple(group), min(self.lives[v][0] for v in group), max(self.lives[v][1] for v in group)


def _merge_in_place(node: Node, index: int, groups: _Groups, rings: Mapping[Value, int]) -> None:
    """Lets each output take the bytes of an input of its size that dies here, where the op allows it."""
    taken: set[int] = set()
    for source, target in node.op.replaces(node):
        x, y = node.inputs[source], node.outputs[target]
        if target in taken or x in rings or y in rings or not _same_place(x, y, groups):
            continue
        sharing = [i for i, v in enumerate(node.inputs) if v in groups.members and groups.members[v] is groups.members[x]]
        if groups.last(x) == index and all((i, target) in node.op.replaces(node) for i in sharing):
            groups.merge(x, y)
            taken.add(target)


def _same_place(x: Value, y: Value, groups: _Groups) -> bool:
    """Both are in the arena, in separate buffers of one size."""
    known = x in groups.members and y in groups.members and groups.members[x] is not groups.members[y]
    return known and x.type.nbytes == y.type.nbytes


def _buffer(group: tuple[tuple[Value, ...], int, int], rings: Mapping[Value, int], align: int) -> Buffer:
    values, first, last = group
    ring = rings.get(values[0])
    size = max(v.type.nbytes for v in values) if ring is None else ring * values[0].type.row_bytes
    return Buffer(values, first, last, _up(size, align), align, ring)


def _scratch(schedule: Schedule, sizes: Mapping[Node, int], align: int) -> list[Buffer]:
    """One buffer per node that runs whole, and one that the nodes of a segment or of a group share."""
    lives: dict[Node | int | str, tuple[int, int]] = {}
    nodes: dict[Node | int | str, dict[Node, None]] = {}
    for index, step in enumerate(schedule):
        if isinstance(step, Step) and step.node in sizes:
            key = (step.node.op.scratch_group or step.node) if step.segment is None else step.segment
            lives[key] = (lives.get(key, (index, index))[0], index)
            nodes.setdefault(key, {})[step.node] = None
    return [
        Buffer((), first, last, _up(max(sizes[n] for n in nodes[key]), align), align, None, tuple(nodes[key]))
        for key, (first, last) in lives.items()
    ]


def _up(size: int, align: int) -> int:
    return (size + align - 1) // align * align


@dataclass(frozen=True)
class StateLayout:
    """Byte offsets in the state block of every mutable parameter, and of the values that its updates compute in place."""

    offsets: Mapping[Value, int]
    total: int


def state_layout(graph: Graph) -> StateLayout:
    """Mutable parameters one after the other: first those that begin with contents, then those that begin at zero, which
    flash need not hold; of both, those of wide types first, otherwise in graph order."""
    store = storage(graph)
    order = sorted(graph.mutable(), key=lambda p: (not p.data.any(), -STATE_ALIGN.get(p.value.type.dtype, 1)))
    old = [p.value for p in order]
    offsets: dict[Value, int] = {}
    end = 0
    for value in old:
        offsets[value] = _up(end, STATE_ALIGN.get(value.type.dtype, 1))
        end = offsets[value] + value.type.nbytes
    for value, root in store.root.items():
        if root in offsets:
            offsets[value] = offsets[root]
    return StateLayout(offsets, _up(end, ALIGN))
