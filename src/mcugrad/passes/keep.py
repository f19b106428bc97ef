"""What of an activation is kept for the backward pass: only the channels that weight updates read."""

from __future__ import annotations

from dataclasses import replace

from mcugrad.ir import Builder, Graph, Node, Value, rebuild
from mcugrad.ops.backprop import ClampMask, GradMask
from mcugrad.ops.conv2d import Conv2dWeightGrad
from mcugrad.ops.depthwise import DepthwiseWeightGrad
from mcugrad.ops.select import SelectChannels, SelectGradient


def keep_live_channels(graph: Graph) -> Graph:
    """Copies the channels that partial weight updates read, where nothing else of the activation is read backward.

    The copy is taken after the last forward reader, or before it where that may write over the activation; the activation
    then dies, and a clamp mask of it costs one bit per element.  Left alone where both together would be no smaller than
    the activation.
    """
    build = Builder()
    build.reserve(v.name for n in graph.nodes for v in n.outputs)
    narrow: dict[Node, Value] = {}
    before: dict[Node, list[Node]] = {}
    after: dict[Node, list[Node]] = {}
    for x, readers in graph.consumers().items():
        live = {n: channels for n in readers if (channels := _channels(n, x)) is not None}
        forward = [n for n in readers if n.op.phase == "forward"]
        masked = [n for n in readers if isinstance(n.op, GradMask) and n.inputs[1] is x]
        if not live or not forward or len(live) + len(forward) + len(masked) < len(readers):
            continue
        copies = {channels: _copy(build, x, channels) for channels in dict.fromkeys(live.values())}
        if sum(c.outputs[0].type.nbytes for c in copies.values()) + _mask_bytes(x, masked) < x.type.nbytes:
            narrow |= {n: copies[channels].outputs[0] for n, channels in live.items()}
            side = before if _in_place(forward[-1], x) else after
            side.setdefault(forward[-1], []).extend(copies.values())
    gradients = _narrow_gradients(build, graph, before)
    nodes = [m for n in graph.nodes for m in (*before.get(n, ()), *_reading(build, n, narrow, gradients), *after.get(n, ()))]
    return rebuild(graph, nodes)


def _in_place(node: Node, value: Value) -> bool:
    """May the node write over the value?"""
    return any(node.inputs[i] is value for i, _ in node.op.replaces(node))


def _narrow_gradients(build: Builder, graph: Graph, before: dict[Node, list[Node]]) -> dict[Node, Value]:
    """The copy of h for each partial depthwise weight gradient, where an input gradient may write over h: taken before that."""
    readers, narrow = graph.consumers(), dict[Node, Value]()
    for node in graph.nodes:
        if isinstance(node.op, DepthwiseWeightGrad) and node.op.channels is not None:
            h = node.inputs[1]
            over = next((n for n in readers[h] if _in_place(n, h)), None)
            if over is not None:
                narrow[node] = build.one(SelectGradient(node.op.channels), h, name=f"{h.name}.live")
                before.setdefault(over, []).append(build.nodes[-1])
    return narrow


def _channels(node: Node, x: Value) -> tuple[int, ...] | None:
    """The channels of x that a partial weight gradient reads; None for any other reader."""
    return node.op.channels if isinstance(node.op, Conv2dWeightGrad | DepthwiseWeightGrad) and node.inputs[0] is x else None


def _copy(build: Builder, x: Value, channels: tuple[int, ...]) -> Node:
    build.one(SelectChannels(channels), x, name=f"{x.name}.live")
    return build.nodes[-1]


def _mask_bytes(x: Value, masked: list[Node]) -> int:
    return ClampMask().infer(x.type)[0].nbytes if masked else 0


def _reading(build: Builder, node: Node, narrow: dict[Node, Value], gradients: dict[Node, Value]) -> tuple[Node, ...]:
    """The weight gradient on its narrow copy; that of a depthwise layer, whose kernel knows no order, always, and on as narrow
    a copy of h.  Any other node as it is."""
    op = node.op
    if isinstance(op, Conv2dWeightGrad) and node in narrow:
        return (Node(replace(op, channels=None), (narrow[node], *node.inputs[1:]), node.outputs),)
    if not isinstance(op, DepthwiseWeightGrad) or op.channels is None:
        return (node,)
    x, h, *rest = node.inputs
    made = len(build.nodes)
    select = SelectGradient(op.channels)
    kept = narrow[node] if node in narrow else build.one(select, x, name=f"{x.name}.live")
    copy = gradients[node] if node in gradients else build.one(select, h, name=f"{h.name}.live")
    return (*build.nodes[made:], Node(replace(op, channels=None), (kept, copy, *rest), node.outputs))
