"""ONNX pools and means."""

from __future__ import annotations

import math

from mcugrad.importers.onnx_fold import axes_of
from mcugrad.importers.onnx_state import Act, Blocked, State, plain_map
from mcugrad.importers.onnx_window import pair, window_of
from mcugrad.importers.source import OnnxNode
from mcugrad.ops.pool import AvgPool, MaxPool
from mcugrad.ops.spatial import Window


def global_pool(state: State, node: OnnxNode) -> None:
    act = state.act(node.inputs[0])
    x = state.map(act)
    window = Window((x.type.shape[1], x.type.shape[2]))
    op = AvgPool(window) if node.op == "GlobalAveragePool" else MaxPool(window)
    state.acts[node.outputs[0]] = plain_map(state.emit(op, x, name="pool", node=node), len(act.shape))


def pool(state: State, node: OnnxNode) -> None:
    act = state.act(node.inputs[0])
    x = state.map(act)
    if len(node.outputs) > 1 and node.outputs[1] in state.readers:
        raise Blocked("the indices of the maxima are used", "use pooling without return_indices")
    window = window_of(node, (x.type.shape[1], x.type.shape[2]), pair(node, "kernel_shape", (1, 0)))
    if node.op == "AveragePool" and node.attributes.get("count_include_pad", 0) and any(window.padding):
        raise Blocked("average pooling that counts its padding", "set count_include_pad=False")
    op = AvgPool(window) if node.op == "AveragePool" else MaxPool(window)
    state.acts[node.outputs[0]] = plain_map(state.emit(op, x, name="pool", node=node), len(act.shape))


def reduce_mean(state: State, node: OnnxNode) -> None:
    """The mean over all positions, or over rows or columns: an average pool."""
    act = state.act(node.inputs[0])
    ins = tuple(state.constant(name) if name and i else None for i, name in enumerate(node.inputs))
    rank = len(act.shape)
    axes = axes_of(ins, node.attributes, rank)
    if axes is None or not axes:
        axes = () if node.attributes.get("noop_with_empty_axes", 0) else tuple(range(rank))
    if rank == 4 and set(axes) in ({2}, {3}):
        _mean_along(state, node, act, 2 in axes)
        return
    kept = [i for i in range(rank) if i not in axes]
    _, height, width, channels = act.value.type.shape
    rows = state.index(act).transpose(*kept, *axes).reshape(-1, math.prod(act.shape[a] for a in axes)) % channels
    if rows.shape != (channels, height * width) or (rows != rows[:, :1]).any():
        raise Blocked(f"a mean over axes {list(axes)} of {list(act.shape)}", "only the mean over height and width is supported")
    value = state.emit(AvgPool(Window((height, width))), act.value, name="pool", node=node)
    keep = bool(node.attributes.get("keepdims", 1))
    shape = tuple(1 if i in axes else n for i, n in enumerate(act.shape) if keep or i not in axes)
    state.acts[node.outputs[0]] = Act(value, shape, rows[:, 0].reshape(shape))


def _mean_along(state: State, node: OnnxNode, act: Act, rows: bool) -> None:
    """The mean of a map [1,C,H,W] over its rows, or over its columns."""
    x = state.map(act)
    window = Window((x.type.shape[1], 1) if rows else (1, x.type.shape[2]))
    found = plain_map(state.emit(AvgPool(window), x, name="pool", node=node))
    if not node.attributes.get("keepdims", 1):
        shape = tuple(n for i, n in enumerate(found.shape) if i != (2 if rows else 3))
        found = Act(found.value, shape, state.index(found).reshape(shape))
    state.acts[node.outputs[0]] = found
