"""What a float graph goes through before quantization: batch norm folded, identities and dead nodes removed."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from mcugrad.ir import Array, Graph, Node, Param, TensorType, Value, rebuild
from mcugrad.ops.batch_norm import BatchNorm
from mcugrad.ops.clamp import Clamp
from mcugrad.ops.conv2d import Conv2d
from mcugrad.ops.depthwise import DepthwiseConv2d
from mcugrad.ops.place import Pad, Slice
from mcugrad.ops.pool import AvgPool, MaxPool
from mcugrad.ops.reshape import Reshape
from mcugrad.ops.spatial import Window
from mcugrad.ops.transpose import Transpose
from mcugrad.ops.upsample import Upsample


def fold_batch_norm(graph: Graph) -> Graph:
    """Moves each batch norm into the float convolution that feeds only it: w * scale[o], b * scale[o] + shift[o]."""
    readers = graph.consumers()
    data = {p.value: p.data for p in graph.params}
    carriers: dict[Value, Node] = {}  # value -> the convolution that computes it, folded norms included
    folded: dict[Node, Value] = {}
    for node in graph.nodes:
        x = node.inputs[0]
        if isinstance(node.op, (Conv2d, DepthwiseConv2d)) and node.op.out is None:
            if all(v in data and readers[v] == [node] for v in node.inputs[1:]):
                carriers[node.outputs[0]] = node
        elif isinstance(node.op, BatchNorm) and x in carriers and readers[x] == [node] and x not in graph.outputs:
            conv = carriers[x]
            _scale(conv, data, *(data[v].astype(np.float64) for v in node.inputs[1:]))
            folded[node], carriers[node.outputs[0]] = conv.outputs[0], conv
    params = tuple(replace(p, data=data[p.value]) for p in graph.params)
    return _without(replace(graph, params=params), folded)


def _scale(conv: Node, data: dict[Value, Array], gain: Array, shift: Array) -> None:
    weight, bias = conv.inputs[1:3]
    per_output = gain.reshape([-1 if i == conv.op.weight_axis else 1 for i in range(4)])
    data[weight] = (data[weight] * per_output).astype(np.float32)
    data[bias] = (data[bias] * gain + shift).astype(np.float32)


def norms_to_layers(graph: Graph) -> Graph:
    """Each batch norm that no convolution could carry as a float 1x1 layer of one weight per channel."""
    data = {p.value: p.data for p in graph.params}
    params = dict(data)
    nodes: list[Node] = []
    for node in graph.nodes:
        if not isinstance(node.op, BatchNorm):
            nodes.append(node)
            continue
        x, gain, shift = node.inputs
        shape = (1, 1, 1, gain.type.elements)
        weight = Value(f"{gain.name}_weight", TensorType(shape, "f32"), gain.origin)
        bias = Value(f"{shift.name}_bias", shift.type, shift.origin)
        params[weight], params[bias] = data[gain].reshape(shape), data[shift]
        op = DepthwiseConv2d(Window((1, 1))) if shape[3] > 1 else Conv2d(Window((1, 1)))
        nodes.append(Node(op, (x, weight, bias), node.outputs))
    return rebuild(replace(graph, params=tuple(Param(v, d) for v, d in params.items())), nodes)


def drop_identities(graph: Graph) -> Graph:
    """Removes the nodes that return their input: reshapes and moves that change nothing, unlimited clamps, 1x1 pooling."""
    return _without(graph, {n: n.inputs[0] for n in graph.nodes if _is_identity(n)})


def _is_identity(node: Node) -> bool:
    if isinstance(node.op, Reshape):
        return node.op.shape == node.inputs[0].type.shape
    if isinstance(node.op, (Pad, Slice, Upsample)):
        return node.outputs[0].type.shape == node.inputs[0].type.shape
    if isinstance(node.op, Transpose):
        return node.op.perm == tuple(range(len(node.op.perm)))
    if isinstance(node.op, Clamp):
        return node.op.out is None and (node.op.low, node.op.high) == (-math.inf, math.inf)
    return isinstance(node.op, (AvgPool, MaxPool)) and node.op.window == Window((1, 1))


def remove_dead(graph: Graph) -> Graph:
    """Removes the nodes (and the parameters) that lead to no output and no update."""
    live = set(graph.outputs) | {new for _, new in graph.updates}
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if live.intersection(node.outputs):
            live.update(node.inputs)
            kept.append(node)
    return rebuild(graph, reversed(kept))


def _without(graph: Graph, removed: dict[Node, Value]) -> Graph:
    """The graph without some nodes, whose readers read the given value instead."""
    instead: dict[Value, Value] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        if node in removed:
            value = removed[node]
            instead[node.outputs[0]] = instead.get(value, value)
            continue
        inputs = tuple(instead.get(v, v) for v in node.inputs)
        nodes.append(node if inputs == node.inputs else Node(node.op, inputs, node.outputs))
    outputs = tuple(instead.get(v, v) for v in graph.outputs)
    return rebuild(graph, nodes, outputs=outputs)


CLEAN = (
    fold_batch_norm,  # a convolution's own scale and bias can carry it
    drop_identities,  # exporters leave them behind
    remove_dead,  # branches that no output needs
)
