"""The forward pass of an inverted bottleneck in chunks of its expanded channels, of which only one chunk is in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from mcugrad.ir import Builder, Graph, GraphError, Node, Op, Value
from mcugrad.ops.backprop import ClampMask
from mcugrad.ops.conv2d import Conv2d, is_pointwise
from mcugrad.ops.conv2d_sum import Conv2dSum, RequantizeSum
from mcugrad.ops.depthwise import DepthwiseConv2d
from mcugrad.ops.share import Put, Share, Take
from mcugrad.passes.chunk import GRAIN
from mcugrad.passes.recompute import taken_names


@dataclass(frozen=True)
class Expansion:
    """nodes[start:stop): an expansion, a depthwise convolution and a projection, of whose inner values nothing is kept but the
    clamp masks, and others that read neither."""

    start: int
    stop: int
    expand: Node
    depthwise: Node
    project: Node

    @property
    def channels(self) -> int:
        """Expanded ones."""
        return self.expand.outputs[0].type.shape[3]

    @property
    def inner(self) -> tuple[Value, Value]:
        return self.expand.outputs[0], self.depthwise.outputs[0]


def expansions(graph: Graph) -> Iterator[Expansion]:
    """The inverted bottlenecks of the forward pass that can run in chunks, in order."""
    readers, at = graph.consumers(), {n: i for i, n in enumerate(graph.nodes)}
    for start, expand in enumerate(graph.nodes):
        if _is_pointwise(expand) and expand.outputs[0].type.shape[3] % GRAIN == 0:
            depthwise = _reader(expand, readers, graph)
            project = None if depthwise is None or not _is_depthwise(depthwise) else _reader(depthwise, readers, graph)
            if depthwise is not None and project is not None and _is_pointwise(project, in_one_piece=True):
                found = Expansion(start, at[project] + 1, expand, depthwise, project)
                if all(at[n] < found.stop for v in found.inner for n in readers[v]) and _apart(found, graph):
                    yield found


def _is_pointwise(node: Node, in_one_piece: bool = False) -> bool:
    """Is it a quantized 1x1 convolution?  in_one_piece: its weight."""
    op = node.op
    if not isinstance(op, Conv2d) or op.out is None or (in_one_piece and op.channels is not None):
        return False
    return is_pointwise(op.window, op.groups, node.inputs[0].type.shape, node.outputs[0].type.shape)


def _is_depthwise(node: Node) -> bool:
    """Is it a quantized depthwise convolution whose weight is in one piece?"""
    return isinstance(node.op, DepthwiseConv2d) and node.op.out is not None and node.op.channels is None


def _reader(node: Node, readers: dict[Value, list[Node]], graph: Graph) -> Node | None:
    """The one node that reads what the node leaves, but for clamp masks."""
    value = node.outputs[0]
    found = [n for n in readers.get(value, ()) if not isinstance(n.op, ClampMask)]
    alone = len(found) == 1 and value not in graph.outputs and found[0].inputs.count(value) == 1
    return found[0] if alone and found[0].inputs[0] is value else None


def _apart(found: Expansion, graph: Graph) -> bool:
    """May the other nodes of the range run after all of these?"""
    own = (found.expand, found.depthwise, found.project)
    made = {v for n in graph.nodes[found.start : found.stop] if n not in own for v in n.outputs}
    return not any(v in made for n in own for v in n.inputs)


def in_chunks(graph: Graph, found: Expansion, width: int, names: Builder) -> list[Node]:
    """What takes the place of the bottleneck's nodes.  Raises GraphError unless width is a multiple of GRAIN channels."""
    if width <= 0 or width % GRAIN:
        raise GraphError(f"chunks must be a multiple of {GRAIN} channels, got {width}")
    body = graph.nodes[found.start : found.stop]
    masks = [n for n in body if isinstance(n.op, ClampMask) and n.inputs[0] in found.inner]
    rest = [n for n in body if n not in (found.expand, found.depthwise, found.project, *masks)]
    return [*_Chunks(found, masks, width, names).nodes(), *rest]


def chunk_forward(graph: Graph, parts: Sequence[tuple[Expansion, int]]) -> Graph:
    """The graph with each of these bottlenecks in chunks of so many channels."""
    names, nodes = taken_names(graph), list(graph.nodes)
    for found, width in sorted(parts, key=lambda p: -p[0].start):
        nodes[found.start : found.stop] = in_chunks(graph, found, width, names)
    return replace(graph, nodes=tuple(nodes))


@dataclass
class _Chunks:
    """current: the masks and the sum of the projection, so far."""

    found: Expansion
    masks: Sequence[Node]
    width: int
    names: Builder
    current: dict[Value, Value] = field(default_factory=dict)

    def nodes(self) -> Iterator[Node]:
        """Per chunk: expansion, depthwise convolution, the bits of both masks, the share of the projection's sum."""
        expand, depthwise, project = self.found.expand, self.found.depthwise, self.found.project
        for first in range(0, self.found.channels, self.width):
            last = min(first + self.width, self.found.channels)
            outputs = Share(expand.op, tuple(range(1, len(expand.inputs))), first, last)
            yield (wide := self._node(outputs, expand.inputs, expand.outputs[0], last))
            yield from self._masked(expand, wide, first, last)
            yield (weight := self._node(Take(first, last), depthwise.inputs[1:2], depthwise.inputs[1], last))
            layer = Share(depthwise.op, tuple(range(2, len(depthwise.inputs))), first, last)
            inputs = (*wide.outputs, *weight.outputs, *depthwise.inputs[2:])
            yield (filtered := self._node(layer, inputs, depthwise.outputs[0], last))
            yield from self._masked(depthwise, filtered, first, last)
            yield self._sum(filtered, first, last)
        op, total = project.op, self.current[project.outputs[0]]
        assert isinstance(op, Conv2d) and op.out is not None
        yield Node(RequantizeSum(op.out, op.delta), (total, *project.inputs[2:]), project.outputs)

    def _node(self, op: Op, inputs: Sequence[Value], like: Value, last: int) -> Node:
        """One output, named after a whole value and the channel after its last."""
        (type_,) = op.infer(*(v.type for v in inputs))
        return Node(op, tuple(inputs), (Value(self.names.unique(f"{like.name}.to{last}"), type_, like.origin),))

    def _masked(self, layer: Node, part: Node, first: int, last: int) -> Iterator[Node]:
        """The bits of channels [first, last) in the masks of what the layer leaves."""
        for mask in (m for m in self.masks if m.inputs == layer.outputs):
            (whole,) = mask.outputs
            yield (bits := self._node(mask.op, part.outputs, whole, last))
            put, before = Put(first, self.found.channels), [self.current[whole]] if first else []
            made = self._node(put, (*bits.outputs, *before), whole, last)
            yield replace(made, outputs=mask.outputs) if last == self.found.channels else made
            self.current[whole] = made.outputs[0]

    def _sum(self, part: Node, first: int, last: int) -> Node:
        (y,), before = self.found.project.outputs, [self.current[self.found.project.outputs[0]]] if first else []
        made = self._node(Conv2dSum(first), (*part.outputs, self.found.project.inputs[1], *before), y, last)
        self.current[y] = made.outputs[0]
        return made
