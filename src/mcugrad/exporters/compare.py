"""The exported model beside the device: the same real samples through both, and what differs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mcugrad.build import build_host
from mcugrad.devices.host import Host
from mcugrad.errors import McugradError
from mcugrad.exporters.learned import Learned, quant_of
from mcugrad.ir import Array
from mcugrad.ops.head import HEAD_ONE, Head
from mcugrad.ops.losses import Logits

PRECISE = "session.x64quantprecision"
"""Of onnxruntime: without it, its 8-bit products saturate at 16 bits on x86 processors without VNNI."""

STEPS = 255  # of an 8-bit grid over the range of the logits: one of them is 1 LSB


@dataclass(frozen=True)
class Agreement:
    """top1: share of samples with the same top class.  within: share of logits that differ by at most 1 LSB, which is
    1/255 of the range of the device's logits over these samples.  largest: difference in LSB.  accuracies: of samples
    with labels, None without."""

    runtime: str
    samples: int
    top1: float
    within: float
    largest: float
    lsb: float
    device_accuracy: float | None = None
    exported_accuracy: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


class NoRuntime(Exception):
    """The runtime that would execute the exported model is not installed."""


def compare(device: Array, exported: Array, runtime: str, labels: Array | None = None) -> Agreement:
    """Of logits [N,K] in the same real units; labels [N]."""
    lsb = float(np.ptp(device)) / STEPS or 1.0
    difference = np.abs(device - exported) / lsb
    ours, theirs = device.argmax(1), exported.argmax(1)
    known = {} if labels is None else {
        "device_accuracy": float((ours == labels).mean()),
        "exported_accuracy": float((theirs == labels).mean()),
    }  # fmt: skip
    same, within = float((ours == theirs).mean()), float((difference <= 1).mean())
    return Agreement(runtime, len(device), same, within, float(difference.max()), lsb, **known)


def device_logits(learned: Learned, x: Array) -> Array:
    """float64 [N,K] logits of the host twin, in real units, for int8 inputs x: the bits of the device."""
    last = learned.graph.nodes[-1]
    if not isinstance(last.op, Head | Logits):
        raise McugradError(f"{last.where}: only networks that end in logits can be compared")
    step = quant_of(last.inputs[0]).scale[0] / (HEAD_ONE if isinstance(last.op, Head) else 1)
    with Host.load(build_host(learned.folder)) as twin:
        twin.write_params(learned.state)
        return twin.infer_many(np.ascontiguousarray(x)) * step * learned.units.spread + learned.units.mean


def real_input(learned: Learned, x: Array) -> Array:
    """float32 [N,H,W,C]: what int8 inputs stand for."""
    quant = learned.input_quant
    return ((x.astype(np.float64) - quant.zero) * quant.scale[0]).astype(np.float32)


def run_onnx(model: bytes, learned: Learned, x: Array) -> Array:
    """float64 [N,K] logits by onnxruntime.  Raises NoRuntime when it is not installed."""
    try:
        import onnxruntime
    except ImportError:
        raise NoRuntime("onnxruntime is not installed: pip install 'mcugrad[export]'") from None
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(PRECISE, "1")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    images = real_input(learned, x).transpose(0, 3, 1, 2)
    return np.stack([session.run(None, {name: image[None]})[0].reshape(-1) for image in images]).astype(np.float64)


def run_tflite(model: bytes, learned: Learned, x: Array) -> Array:
    """float64 [N,K] logits by LiteRT.  Raises NoRuntime when it is not installed."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise NoRuntime("LiteRT is not installed: pip install 'mcugrad[export]'") from None
    session = Interpreter(model_content=model, num_threads=1)
    session.allocate_tensors()
    first, last = session.get_input_details()[0], session.get_output_details()[0]
    rows = []
    for sample in _fed(learned, x, np.dtype(first["dtype"])):
        session.set_tensor(first["index"], sample.reshape(first["shape"]))
        session.invoke()
        rows.append(session.get_tensor(last["index"]).reshape(-1))
    return np.stack(rows).astype(np.float64)


def _fed(learned: Learned, x: Array, dtype: np.dtype[Any]) -> Array:
    """int8 inputs as the file's own input type."""
    if dtype == np.int8:
        return x
    if dtype == np.uint8:
        return (x.view(np.uint8) ^ np.uint8(0x80)).astype(np.uint8)
    if learned.original is None:
        return real_input(learned, x)
    from mcugrad.exporters.tflite import file_quant
    from mcugrad.importers.tflite_read import read

    source = read(learned.original)
    if not source.tensors[source.input].scale.size and not any(n.op == "QUANTIZE" for n in source.nodes[:1]):
        return real_input(learned, x)
    quant = file_quant(source)
    return ((x.astype(np.float64) - quant.zero) * quant.scale[0]).astype(np.float32)


def run_torch(_model: bytes, learned: Learned, x: Array) -> Array:
    """float64 [N,K] logits of the exported program with the learned state dict, by PyTorch."""
    try:
        import torch
    except ImportError:
        raise NoRuntime("PyTorch is not installed: pip install 'mcugrad[torch]'") from None
    from mcugrad.exporters.torch import source, state_dict

    program, state = source(learned), state_dict(learned)
    assert learned.original is not None, "source() has read it"
    module = torch.export.load(learned.original).module()
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if name in state:
            tensor.data = torch.from_numpy(state[name].copy())
    images = np.moveaxis(real_input(learned, x), -1, 1).reshape(len(x), *program.shapes[program.input])
    with torch.no_grad():
        rows = [module(torch.from_numpy(image.copy())).numpy().reshape(-1) for image in images]
    return np.stack(rows).astype(np.float64)


RUNNERS: dict[str, Callable[[bytes, Learned, Array], Array]] = {
    "onnx": run_onnx,
    "onnx-exact": run_onnx,
    "tflite": run_tflite,
    "torch": run_torch,
}
