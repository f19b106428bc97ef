"""Learned weights as a state dict of the user's own module: real numbers under the names its parameters have."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass

import numpy as np

from mcugrad.errors import McugradError
from mcugrad.exporters.learned import Learned, classifier, parameter, quant_of, real_of
from mcugrad.exporters.onnx_build import MARK
from mcugrad.importers.torch_read import Call, Program, Tensor, read
from mcugrad.ir import Array, Node
from mcugrad.ops.depthwise import DepthwiseConv2d
from mcugrad.ops.head import Head

OTHERWISE = "use --to onnx"
LAYERS = ("aten.conv", "aten.linear")
NORM = "batch_norm"


def state_dict(learned: Learned) -> dict[str, Array]:
    """float32 by the names of the user's module.

    Layers of which nothing learned stay as they were.  Batch norm had been folded into its convolution, so a learned pair
    comes back as the folded weight (and a bias of zero) and a batch norm that only adds the learned bias.  Raises
    McugradError when the run did not start from PyTorch, or the module has no place for what was learned."""
    program = source(learned)
    state = {name: np.array(data) for name, data in program.stored.items()}
    for node in learned.graph.nodes:
        changed = learned.changed.intersection(v.name for v in node.inputs[1:3])
        if isinstance(node.op, Head):
            state.update(_classifier(learned, program, node))
        elif node.op.weight_axis is not None and changed:
            state.update(_layer(learned, program, node))
    return state


def source(learned: Learned) -> Program:
    """The exported program that the run came from."""
    if learned.original is None or learned.original.suffix != ".pt2":
        raise McugradError(f"{learned.folder} came from {learned.file} ({learned.format}), not from PyTorch: {OTHERWISE}")
    return read(learned.file, learned.original)


def saved(learned: Learned) -> bytes:
    """What torch.save makes of the state dict: torch.load(file, weights_only=True) reads it."""
    try:
        import torch
    except ImportError:
        raise McugradError("PyTorch is not installed: pip install 'mcugrad[torch]'") from None
    state = {name: torch.from_numpy(data.copy()) for name, data in state_dict(learned).items()}
    file = io.BytesIO()
    torch.save(state, file)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(f"{archive.namelist()[0].split('/')[0]}/{MARK}", learned.sha256)
    return file.getvalue()


@dataclass(frozen=True)
class Place:
    """Names of a layer's parameters in the module; bias and norm (by role, with its epsilon) may be absent."""

    weight: str
    bias: str | None
    norm: dict[str, str] | None
    epsilon: float


def _layer(learned: Learned, program: Program, node: Node) -> dict[str, Array]:
    """New contents of the parameters of a learned layer and of the batch norm that follows it."""
    _, weight, bias = node.inputs
    call = _call(learned, program, node.outputs[0].origin)
    real = real_of(parameter(learned.graph, weight), quant_of(weight))
    grid = np.broadcast_to(np.array(quant_of(weight).scale), bias.type.shape)
    shift = parameter(learned.graph, bias).data * (grid * quant_of(node.inputs[0]).scale[0])
    if NORM in call.target:
        names, epsilon = _roles(program, call)
        return _norm(program, names, epsilon, shift, real.reshape(-1))
    place = _place(program, call)
    oihw = real.transpose(3, 0, 1, 2) if isinstance(node.op, DepthwiseConv2d) else real.transpose(0, 3, 1, 2)
    found = {place.weight: oihw.reshape(program.stored[place.weight].shape)}
    if place.norm is not None:
        found.update(_norm(program, place.norm, place.epsilon, shift))
        if place.bias is not None:
            found[place.bias] = np.zeros_like(shift)
    elif place.bias is not None:
        found[place.bias] = shift
    elif shift.any():
        raise McugradError(f"{place.weight}: its layer has no bias in the module, but learned one: {OTHERWISE}")
    return {name: data.astype(np.float32) for name, data in found.items()}


def _norm(program: Program, names: dict[str, str], epsilon: float, shift: Array, gain: Array | None = None) -> dict[str, Array]:
    """A batch norm y = gain * x + shift."""
    if "bias" not in names or (gain is not None and "weight" not in names):
        raise McugradError(f"{next(iter(names.values()))}: a batch norm without affine parameters learned: {OTHERWISE}")
    ones = np.ones(shift.shape)
    values = {"weight": ones if gain is None else gain, "bias": shift, "running_mean": 0 * ones, "running_var": ones - epsilon}
    return {names[role]: values[role].astype(program.stored[names[role]].dtype) for role in names}


def _classifier(learned: Learned, program: Program, node: Node) -> dict[str, Array]:
    """The head under the names of the module's own last layer; its rows are classes."""
    place = _place(program, _call(learned, program, learned.classifier))
    q12, shift = classifier(learned.graph, node, learned.units, channels_first=True)
    if place.bias is None:
        raise McugradError(f"{place.weight}: the module's classifier has no bias: {OTHERWISE}")
    rank = program.stored[place.weight].ndim
    found = {place.weight: q12.T.reshape(len(shift), -1, *[1] * (rank - 2)), place.bias: shift}
    return {name: data.astype(np.float32) for name, data in found.items()}


def _call(learned: Learned, program: Program, origin: str) -> Call:
    """The one call of the program that stands at a place in the module."""
    path = origin.removeprefix(f"{learned.file}:")
    found = [c for c in program.calls if c.name == path and any(k in c.target for k in (*LAYERS, NORM))]
    if len(found) != 1:
        many = "no layer" if not found else "a layer that is used more than once"
        raise McugradError(f"{path or learned.file}: {many} of the module, but it learned: {OTHERWISE}")
    return found[0]


def _place(program: Program, call: Call) -> Place:
    weight = _name(program, call, "weight")
    if weight is None:
        raise McugradError(f"{call.name}: its weight is computed, not a parameter of the module: {OTHERWISE}")
    readers = [c for c in program.calls for a in c.arguments.values() if isinstance(a, Tensor) and a.name in call.outputs]
    norm, epsilon = _roles(program, readers[0]) if len(readers) == 1 and NORM in readers[0].target else (None, 0.0)
    return Place(weight, _name(program, call, "bias"), norm, epsilon)


def _roles(program: Program, call: Call) -> tuple[dict[str, str], float]:
    """Parameters and buffers of a batch norm by role, and its epsilon."""
    roles = ("weight", "bias", "running_mean", "running_var")
    names = {role: name for role in roles if (name := _name(program, call, role)) is not None}
    return names, float(call.arguments.get("eps", 1e-5))


def _name(program: Program, call: Call, argument: str) -> str | None:
    """What an argument is called in the module; None when it is absent or computed."""
    value = call.arguments.get(argument)
    return program.names.get(value.name) if isinstance(value, Tensor) else None
