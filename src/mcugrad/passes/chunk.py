"""The backward pass of an inverted bottleneck in chunks of its expanded channels, of which only one chunk is in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from mcugrad.ir import Builder, GraphError, Node, Op, Value
from mcugrad.ops.backprop import Chain, GradQuantize
from mcugrad.ops.conv2d import Conv2dInputGrad, Conv2dWeightGrad, is_pointwise
from mcugrad.ops.depthwise import DepthwiseInputGrad
from mcugrad.ops.share import PartOfSum, Share, TakeGradient
from mcugrad.ops.update import BiasGrad, BiasStep, Update, WeightStep

GRAIN = 8
"""Channels that a chunk is a multiple of: those of a mask's byte."""

CHUNKS = (2, 4, 8, 16)
"""In how many the expanded channels of a bottleneck may run."""


def chunk_widths(channels: int) -> list[int]:
    """Channels per chunk that are worth trying, few chunks first."""
    return list(dict.fromkeys(-(-channels // (n * GRAIN)) * GRAIN for n in CHUNKS if channels >= n * GRAIN))


@dataclass(frozen=True)
class Bottleneck:
    """Input gradients of a projection, a depthwise convolution and an expansion in the backward pass, and the updates that
    read the gradients between them."""

    project: Node
    depthwise: Node
    expand: Node
    updates: tuple[Node, ...]

    @property
    def channels(self) -> int:
        """Expanded ones."""
        return self.project.outputs[0].type.shape[3]

    @property
    def nodes(self) -> tuple[Node, ...]:
        return (self.project, self.depthwise, self.expand, *self.updates)


def bottleneck(body: Sequence[Node], outside: set[Value]) -> Bottleneck | None:
    """The first bottleneck of the nodes that can run in chunks.  outside: values that other nodes read."""
    readers: dict[Value, list[Node]] = {}
    for node in body:
        for value in dict.fromkeys(node.inputs):
            readers.setdefault(value, []).append(node)
    for project in body:
        if _is_link(project, Conv2dInputGrad):
            depthwise = _next(project, readers, outside)
            expand = (
                None if depthwise is None or not _is_link(depthwise, DepthwiseInputGrad) else _next(depthwise, readers, outside)
            )
            if depthwise is not None and expand is not None and _is_pointwise(expand):
                inner = (project.outputs[0], depthwise.outputs[0])
                updates = tuple(n for v in inner for n in readers[v] if n not in (depthwise, expand))
                found = Bottleneck(project, depthwise, expand, updates)
                if all(map(_in_rows, updates)) and _apart(found, body):
                    return found
    return None


def _next(node: Node, readers: dict[Value, list[Node]], outside: set[Value]) -> Node | None:
    """The chain whose producer alone goes on with what the node leaves."""
    value = node.outputs[0]
    chains = [n for n in readers.get(value, ()) if isinstance(n.op, Chain)]
    alone = len(chains) == 1 and value not in outside and chains[0].inputs.count(value) == 1
    return chains[0] if alone and chains[0].inputs[0] is value else None


def _is_pointwise(node: Node) -> bool:
    """Is it the input gradient of a 1x1 convolution, of a chain?"""
    op = node.op.producer if isinstance(node.op, Chain) else None
    return isinstance(op, Conv2dInputGrad) and is_pointwise(op.window, op.groups, op.shape, node.inputs[0].type.shape)


def _is_link(node: Node, kind: type[Op]) -> bool:
    """Is the node a chain of this kind, of a whole weight, that stores one gradient after at most a mask?"""
    if not isinstance(node.op, Chain) or not isinstance(node.op.producer, kind) or len(node.op.stages) != 1:
        return False
    (stage,), producer = node.op.stages, node.op.producer
    whole = isinstance(producer, Conv2dInputGrad | DepthwiseInputGrad) and producer.channels is None
    channels = node.outputs[0].type.shape[3]
    return whole and not stage.add and channels % GRAIN == 0 and (kind is DepthwiseInputGrad or _is_pointwise(node))


def _in_rows(node: Node) -> bool:
    """Does the update of a parameter take a chunk of h for as many of its rows?"""
    if not isinstance(node.op, Update) or node.op.step.hold is not None:
        return False
    if isinstance(node.op.grad, BiasGrad):
        return True
    step = node.op.step
    rows = isinstance(node.op.grad, Conv2dWeightGrad) and node.op.grad.groups == 1
    return rows and isinstance(step, WeightStep) and not step.centred


def _apart(found: Bottleneck, body: Sequence[Node]) -> bool:
    """May the other nodes up to the expansion run after all of these?"""
    others = [n for n in body[: body.index(found.expand)] if n not in found.nodes and body.index(n) > body.index(found.project)]
    made = {v for n in others for v in n.outputs}
    return not any(v in made for n in found.nodes for v in n.inputs)


def chunked(body: Sequence[Node], found: Bottleneck, width: int, names: Builder) -> list[Node]:
    """The nodes with the bottleneck in chunks of `width` channels.  Raises GraphError unless that is a multiple of GRAIN."""
    if width <= 0 or width % GRAIN:
        raise GraphError(f"chunks must be a multiple of {GRAIN} channels, got {width}")
    start = body.index(found.project)
    rest = [n for n in body[start:] if n not in found.nodes]
    return [*body[:start], *_Chunks(found, width, names).nodes(), *rest]


@dataclass
class _Chunks:
    """current: per value, what stands for it after the chunks so far."""

    found: Bottleneck
    width: int
    names: Builder
    current: dict[Value, Value] = field(default_factory=dict)
    total: Value | None = None

    def nodes(self) -> Iterator[Node]:
        """Per chunk: h of the depthwise convolution and of the expansion, their biases, the share of the input gradient,
        then the weights that it has read."""
        f = self.found
        for first in range(0, f.channels, self.width):
            last = min(first + self.width, f.channels)
            for node in (f.project, *self._readers(f.project), f.depthwise, *self._readers(f.depthwise, BiasGrad)):
                yield from self._update(node, first, last) if isinstance(node.op, Update) else self._link(node, first, last)
            yield self._sum(first, last)
            for node in self._readers(f.depthwise, Conv2dWeightGrad):
                yield from self._update(node, first, last)

    def _readers(self, node: Node, *kinds: type[Op]) -> list[Node]:
        """The updates that read what the node leaves."""
        readers = [n for n in self.found.updates if isinstance(n.op, Update) and node.outputs[0] in n.inputs]
        return [n for n in readers if not kinds or isinstance(n.op.grad, kinds)]  # type: ignore[attr-defined]

    def _taken(self, value: Value, first: int, last: int) -> tuple[list[Node], Value]:
        op = TakeGradient(first, last)
        (type_,) = op.infer(value.type)
        part = Value(self.names.unique(f"{value.name}.to{last}"), type_, value.origin)
        return [Node(op, (value,), (part,))], part

    def _link(self, node: Node, first: int, last: int) -> Iterator[Node]:
        """Channels [first, last) of what the node leaves, and of the operands that have them."""
        chain = node.op
        assert isinstance(chain, Chain)
        inputs = [self.current.get(v, v) for v in node.inputs]
        masks = range(chain.producer_inputs + 1, len(inputs))
        for index in masks if isinstance(chain.producer, Conv2dInputGrad) else (1, *masks):
            nodes, inputs[index] = self._taken(inputs[index], first, last)
            yield from nodes
        op: Op = _linked(chain, first, last)
        count = node.outputs[1]
        if count in self.current:
            op = Share(op, (), count=len(inputs))
            inputs.append(self.current[count])
        types = op.infer(*(v.type for v in inputs))
        complete = last == self.found.channels
        h = Value(self.names.unique(f"{node.outputs[0].name}.to{last}"), types[0], node.outputs[0].origin)
        so_far = count if complete else Value(self.names.unique(f"{count.name}.to{last}"), types[1], count.origin)
        yield Node(op, tuple(inputs), (h, so_far))
        self.current |= {node.outputs[0]: h, count: so_far}

    def _sum(self, first: int, last: int) -> Node:
        """The share of channels [first, last) in the input gradient of the expansion; its last one is requantized."""
        node, complete = self.found.expand, last == self.found.channels
        chain = node.op
        assert isinstance(chain, Chain)
        n = chain.producer_inputs
        part = PartOfSum(chain, first == 0, complete)
        before = [] if self.total is None else [self.total]
        rest = node.inputs[n:] if complete else ()
        inputs = [self.current.get(v, v) for v in (*node.inputs[:n], *before, *rest)]
        op = Share(part, tuple(range(1, n)), first, last)
        types = op.infer(*(v.type for v in inputs))
        if complete:
            return Node(op, tuple(inputs), node.outputs)
        self.total = Value(self.names.unique(f"{node.outputs[0].name}.sum{last}"), types[0], node.outputs[0].origin)
        return Node(op, tuple(inputs), (self.total,))

    def _update(self, node: Node, first: int, last: int) -> Iterator[Node]:
        """Moves rows [first, last) of a parameter."""
        update = node.op
        assert isinstance(update, Update)
        inputs = tuple(self.current.get(v, v) for v in node.inputs)
        aliased = tuple(i for i, _ in update.aliased)
        op = Share(replace(update, step=_rows_of(update.step, node, first, last)), aliased, first, last)
        types = op.infer(*(v.type for v in inputs))
        complete = last == self.found.channels
        outputs = tuple(
            v if complete else Value(self.names.unique(f"{v.name}.to{last}"), t, v.origin)
            for v, t in zip(node.outputs, types, strict=True)
        )
        yield Node(op, inputs, outputs)
        self.current |= {node.inputs[i]: outputs[o] for i, o in update.aliased}


def _linked(chain: Chain, first: int, last: int) -> Chain:
    """The chain on channels [first, last) of its input gradient."""
    producer = chain.producer
    assert isinstance(producer, Conv2dInputGrad | DepthwiseInputGrad)
    shape = (*producer.shape[:3], last - first)
    if isinstance(producer, Conv2dInputGrad):
        made: Op = replace(producer, shape=shape, first=first)
    else:
        made = replace(producer, shape=shape)
    (stage,) = chain.stages
    assert isinstance(stage.out, GradQuantize)
    factor = stage.out.factor if len(stage.out.factor) == 1 else stage.out.factor[first:last]
    return replace(chain, producer=made, stages=(replace(stage, out=GradQuantize(factor, stage.out.exponent)),))


def _rows_of(step: BiasStep | WeightStep, node: Node, first: int, last: int) -> BiasStep | WeightStep:
    """The step on rows [first, last) of its parameter."""
    base = step.base[first:last]
    if isinstance(step, BiasStep):
        return replace(step, base=base, forward=())
    weight = node.outputs[0].type.shape
    return replace(step, base=base, forward=(), first=first * weight[1] * weight[2] * (step.total or weight[3]))
