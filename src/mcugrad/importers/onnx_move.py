"""ONNX operators that move elements: views, padding, slices, concatenation, upsampling."""

from __future__ import annotations

import math
from itertools import accumulate

import numpy as np

from mcugrad.importers.onnx_fold import axes_of, reshaped
from mcugrad.importers.onnx_state import Act, Blocked, State, plain_map
from mcugrad.importers.source import OnnxNode, optional
from mcugrad.ir import Value
from mcugrad.ops.concat import Concat
from mcugrad.ops.place import Pad, Slice
from mcugrad.ops.pool import MaxPool
from mcugrad.ops.spatial import Window
from mcugrad.ops.upsample import Upsample

FLOATS = {1, 11, 10}  # TensorProto's FLOAT, DOUBLE, FLOAT16
PLACES = {3: {1: 3, 2: 2}, 4: {1: 3, 2: 1, 3: 2}}  # axis of an NHWC value by rank and axis of the ONNX tensor


def view(state: State, node: OnnxNode) -> None:
    """Operators that only rename elements: nothing is emitted, the index map changes."""
    act = state.act(node.inputs[0], padded=node.op in {"Identity", "Dropout"})
    if node.op in {"Identity", "Dropout", "Cast"}:
        if len(node.outputs) > 1 and node.outputs[1] in state.readers:
            raise Blocked("the mask of a dropout is used", "export in evaluation mode: model.eval()")
        if node.op == "Cast" and int(node.attributes["to"]) not in FLOATS:
            raise Blocked("an activation is cast to integers", "export the float model, up to its logits")
        state.acts[node.outputs[0]] = act
        return
    index = state.index(act)
    index = index.transpose(node.attributes.get("perm")) if node.op == "Transpose" else index.reshape(_viewed(state, node, act))
    state.acts[node.outputs[0]] = Act(act.value, index.shape, state.spend(index))


def _viewed(state: State, node: OnnxNode, act: Act) -> tuple[int, ...]:
    """The shape that Flatten, Reshape, Squeeze or Unsqueeze gives."""
    rank, shape = len(act.shape), act.shape
    if node.op == "Flatten":
        axis = int(node.attributes.get("axis", 1))
        axis += rank if axis < 0 else 0
        return math.prod(shape[:axis]), math.prod(shape[axis:])
    if node.op == "Reshape":
        target = state.constant(node.inputs[1]) if optional(node, 1) else np.array(node.attributes["shape"])
        return reshaped(shape, target, bool(node.attributes.get("allowzero", 0)))
    ins = tuple(state.constant(name) if name and i else None for i, name in enumerate(node.inputs))
    if node.op == "Squeeze":
        axes = axes_of(ins, node.attributes, rank)
        drop = [i for i, n in enumerate(shape) if n == 1] if axes is None else axes
        return tuple(n for i, n in enumerate(shape) if i not in drop)
    count = len(node.attributes["axes"]) if "axes" in node.attributes else state.constant(node.inputs[1]).size
    axes = axes_of(ins, node.attributes, rank + count) or ()
    rest = iter(shape)
    return tuple(1 if i in axes else next(rest) for i in range(rank + count))


def pad(state: State, node: OnnxNode) -> None:
    """Padding with a constant.  Zeros around height and width wait for a convolution that takes them."""
    act = state.act(node.inputs[0])
    x, rank = state.map(act), len(act.shape)
    pads = state.constant(node.inputs[1]).reshape(-1).tolist() if optional(node, 1) else list(node.attributes["pads"])
    value = float(state.constant(node.inputs[2]).reshape(-1)[0]) if optional(node, 2) else node.attributes.get("value", 0.0)
    if optional(node, 3):
        axes = [int(a) % rank for a in state.constant(node.inputs[3]).reshape(-1)]
        given, pads = pads, [0] * (2 * rank)
        for i, axis in enumerate(axes):
            pads[axis], pads[axis + rank] = given[i], given[i + len(axes)]
    mode = node.attributes.get("mode", b"constant").decode()
    if mode != "constant" or len(pads) != 2 * rank or min(pads) < 0 or pads[0] or pads[rank]:
        raise Blocked(f"{mode} padding by {pads}", "only constant padding of channels, height and width is supported")
    before, after = ([int(p) for p in (pads[1:rank], pads[rank + 1 :])[i]] for i in (0, 1))
    (front, top, left), (back, bottom, right) = ((b[0], b[1] if rank == 4 else 0, b[-1]) for b in (before, after))
    if front or back or value:
        value_ = state.emit(Pad((top, left, front), (bottom, right, back), value), x, name="pad", node=node)
        state.acts[node.outputs[0]] = plain_map(value_, rank)
        return
    _, h, w, c = x.type.shape
    shape = (1, c, h + top + bottom, w + left + right)
    state.acts[node.outputs[0]] = Act(x, shape if rank == 4 else (1, c, shape[3]), None, (top, left, bottom, right))


def cut(state: State, node: OnnxNode) -> None:
    """Slice with constant limits; steps only where they take every n-th row or column."""
    act = state.act(node.inputs[0])
    numbers = [state.constant(node.inputs[i]).reshape(-1).tolist() if optional(node, i) else None for i in range(1, 5)]
    starts, ends = (n if n is not None else list(node.attributes[k]) for n, k in zip(numbers, ("starts", "ends"), strict=False))
    axes = numbers[2] if numbers[2] is not None else list(node.attributes.get("axes", range(len(starts))))
    steps = numbers[3] or [1] * len(starts)
    pieces = [range(n) for n in act.shape]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        pieces[axis] = pieces[axis][int(start) : int(end) : int(step)]
    if any(p.step < 1 or not p for p in pieces) or len(pieces[0]) != 1 or any(p.step > 1 for p in pieces[:2]):
        raise Blocked(f"a slice {starts} to {ends} by {steps} of {list(act.shape)}", "steps are for height and width only")
    state.acts[node.outputs[0]] = piece(state, node, act, pieces)


def piece(state: State, node: OnnxNode, act: Act, pieces: list[range]) -> Act:
    """The elements at these places of each axis."""
    if len(act.shape) == 2:
        return _of_vector(state, node, act, pieces[1])
    x, rank = state.map(act), len(act.shape)
    places = [range(1), range(1), range(1), range(1)]
    for axis, place in PLACES[rank].items():
        places[place] = pieces[axis]
    begin, size = [(p.start, p[-1] - p.start + 1) for p in places[1:]], x.type.shape[1:]
    corner, extent = tuple(b for b, _ in begin), tuple(n for _, n in begin)
    if extent != size:
        op = Slice((corner[0], corner[1], corner[2]), (extent[0], extent[1], extent[2]))
        x = state.emit(op, x, name="slice", node=node)
    if any(p.step > 1 for p in places[1:3]):
        x = state.emit(MaxPool(Window((1, 1), (places[1].step, places[2].step))), x, name="slice", node=node)
    return plain_map(x, rank)


def _of_vector(state: State, node: OnnxNode, act: Act, places: range) -> Act:
    """A run of a vector's elements, if they lie side by side."""
    found = state.index(act).reshape(-1)[places.start : places.stop : places.step]
    if (np.diff(found) != 1).any():
        raise Blocked("a slice of elements that do not lie side by side", "slice the map before it is flattened")
    x = state.flat(act.value)
    value = state.emit(Slice((0, 0, int(found[0])), (1, 1, len(found))), x, name="slice", node=node)
    return Act(value, (1, len(found)), np.arange(len(found)).reshape(1, -1))


def split(state: State, node: OnnxNode) -> None:
    """Pieces along one axis; sizes as attribute, as input, or equal."""
    act, axis = state.act(node.inputs[0]), int(node.attributes.get("axis", 0))
    axis += len(act.shape) if axis < 0 else 0
    total, count = act.shape[axis], len(node.outputs)
    given = state.constant(node.inputs[1]).reshape(-1).tolist() if optional(node, 1) else node.attributes.get("split")
    sizes = [int(n) for n in given] if given is not None else [-(-total // count)] * (count - 1)
    sizes = sizes if given is not None else [*sizes, total - sum(sizes)]
    if axis == 0 or sum(sizes) != total or len(sizes) != count or min(sizes) < 1:
        raise Blocked(f"a split of {list(act.shape)} into {sizes} along axis {axis}", "split channels, rows or columns")
    for name, start, size in zip(node.outputs, accumulate(sizes, initial=0), sizes, strict=False):
        pieces = [range(n) for n in act.shape]
        pieces[axis] = range(start, start + size)
        state.acts[name] = piece(state, node, act, pieces)


def gather(state: State, node: OnnxNode) -> None:
    """One index along one axis, as x[:, i] is exported."""
    act, index = state.act(node.inputs[0]), state.constant(node.inputs[1])
    axis, rank = int(node.attributes.get("axis", 0)), len(act.shape)
    axis += rank if axis < 0 else 0
    if index.size != 1 or axis == 0:
        raise Blocked(f"{index.size} indices along axis {axis}", "take one index, or a slice, along channels, height or width")
    pieces = [range(n) for n in act.shape]
    place = int(index.reshape(-1)[0]) % act.shape[axis]
    pieces[axis] = range(place, place + 1)
    found = piece(state, node, act, pieces)
    if index.ndim == 0:
        shape = tuple(n for i, n in enumerate(found.shape) if i != axis)
        found = Act(found.value, shape, state.index(found).reshape(shape))
    state.acts[node.outputs[0]] = found


def concat(state: State, node: OnnxNode) -> None:
    """Concatenation of maps, or of vectors in whatever order they hold their elements."""
    rank = max(len(state.acts[n].shape) for n in node.inputs if n in state.acts)
    axis = int(node.attributes["axis"])
    axis += rank if axis < 0 else 0
    if rank not in {2, 3, 4} or axis == 0:
        raise Blocked(f"a concatenation along axis {axis} of rank {rank}", "join channels, rows or columns at batch 1")
    if rank == 2:
        acts = [state.act(n) for n in node.inputs]
        value = state.emit(Concat(3), *(state.flat(a.value) for a in acts), name="concat", node=node)
        offsets = accumulate((a.value.type.elements for a in acts), initial=0)
        index = np.concatenate([state.index(a) + o for a, o in zip(acts, offsets, strict=False)], 1)
        state.acts[node.outputs[0]] = Act(value, index.shape, index)
        return
    values = [state.map(state.act(n)) if n in state.acts else constant_map(state, node, n) for n in node.inputs]
    state.acts[node.outputs[0]] = plain_map(state.emit(Concat(PLACES[rank][axis]), *values, name="concat", node=node), rank)


def constant_map(state: State, node: OnnxNode, name: str, shape: tuple[int, ...] | None = None) -> Value:
    """A stored [1,C,H,W] or [1,C,L] as an NHWC parameter, on the grid that the model gives it.  shape: what it is repeated
    to, so that nothing is repeated at run time."""
    data = state.weight(name)
    data = data if shape is None else np.broadcast_to(data, shape)
    if data.ndim not in {3, 4} or data.shape[0] != 1:
        raise Blocked(f"a constant of shape {list(data.shape)}", "store it as [1, C, H, W]")
    whole = data.reshape(1, data.shape[1], 1 if data.ndim == 3 else data.shape[2], data.shape[-1])
    value = state.parameter(f"{node.op.lower()}_constant", whole.transpose(0, 2, 3, 1), state.origin(node))
    if name in state.grids:
        state.quants[value] = state.grids[name]
    return value


def resize(state: State, node: OnnxNode) -> None:
    """Resize and Upsample by whole factors, nearest neighbour."""
    act = state.act(node.inputs[0])
    x, rank = state.map(act), len(act.shape)
    mode = node.attributes.get("mode", b"nearest").decode()
    place = node.attributes.get("coordinate_transformation_mode", b"half_pixel").decode()
    near = node.attributes.get("nearest_mode", b"round_prefer_floor").decode()
    alike = {("asymmetric", "floor"), ("half_pixel", "round_prefer_floor"), ("pytorch_half_pixel", "round_prefer_floor")}
    plain = node.op == "Upsample" or (place, near) in alike
    if optional(node, 3):
        factors = [m / n for n, m in zip(act.shape, state.constant(node.inputs[3]).reshape(-1).tolist(), strict=True)]
    else:
        i = 1 if node.op == "Upsample" else 2
        factors = state.constant(node.inputs[i]).reshape(-1).tolist() if optional(node, i) else list(node.attributes["scales"])
    whole = len(factors) == rank and factors[:2] == [1, 1] and all(f == int(f) >= 1 for f in factors)
    if mode != "nearest" or not plain or not whole:
        raise Blocked(f"{mode} resizing by {factors} ({place}, {near})", "upsample by whole factors with nearest neighbours")
    high, wide = (1, *(int(f) for f in factors[2:]))[-2:]
    state.acts[node.outputs[0]] = plain_map(state.emit(Upsample((high, wide)), x, name="upsample", node=node), rank)
