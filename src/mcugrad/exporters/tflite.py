"""A learned network in its own TFLite file: what did not change stays byte by byte, the learned head is new."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tflite

from mcugrad.errors import McugradError
from mcugrad.exporters.learned import Learned, classifier, parameter, quant_of, real_of
from mcugrad.exporters.tflite_build import Extension
from mcugrad.importers.tflite_read import ABSENT, Source, Tensor, TfliteNode, read
from mcugrad.ir import Array, Node, Quant, Value
from mcugrad.ops.depthwise import DepthwiseConv2d
from mcugrad.ops.head import Head

MARK = "mcugrad.export"
OUTPUT = "logits"
LAYERS = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}
OTHERWISE = "use --to onnx"


@dataclass(frozen=True, eq=False)
class Change:
    """New contents of a tensor; scale None: float, or on the grid the file has.  zero: of all channels."""

    data: Array
    scale: Array | None = None
    axis: int = 0
    zero: int = 0


def tflite_model(learned: Learned) -> bytes:
    """The file the network came from with its learned layers and head; the output is float logits [1,K].

    Raises McugradError when the run did not start from a TFLite file, or a layer learned that the file does not hold."""
    if learned.original is None:
        raise McugradError(
            f"{learned.folder} came from {learned.file} ({learned.format}), no TFLite file: use --to onnx, or "
            "--to graph for the training graph"
        )
    source = read(learned.original)
    return _Writer(learned, source, learned.original.read_bytes()).result()


def changed_tensors(learned: Learned, source: Source) -> dict[int, Change]:
    """By tensor index of the file: weights and biases of all layers of which a part learned."""
    found: dict[int, Change] = {}
    for node in learned.graph.nodes:
        if node.op.weight_axis is None or not learned.changed.intersection(v.name for v in node.inputs[1:3]):
            continue
        operator = operator_of(learned, source, node.outputs[0])
        name = node.inputs[1].name.rsplit("_", 1)[0]
        if operator.op not in LAYERS or not name.startswith("conv") or len(operator.inputs) < 3 or operator.inputs[2] == ABSENT:
            raise McugradError(
                f"{name} ({node.outputs[0].origin}) learned, but the file has no weight and bias of its own for it: {OTHERWISE}"
            )
        for index, change in zip(operator.inputs[1:3], _layer(learned, source, node, operator), strict=True):
            if index in found:
                raise McugradError(f"{name} shares its weights with another layer of the file, and both learned: {OTHERWISE}")
            if change is not None:
                found[index] = change
    return found


def operator_of(learned: Learned, source: Source, value: Value) -> TfliteNode:
    """The operator of the file that computes a value of the graph."""
    number = value.origin.removeprefix(f"{learned.file}:#").split(" ")[0]
    if not number.isdigit() or int(number) >= len(source.nodes):
        raise McugradError(f"{value.name}: its origin {value.origin!r} is not in {learned.file}: {OTHERWISE}")
    return source.nodes[int(number)]


def _layer(learned: Learned, source: Source, node: Node, operator: TfliteNode) -> tuple[Change | None, Change | None]:
    """Weight and bias as the file stores them, each float or integer; None where nothing changes."""
    x, weight, bias = node.inputs
    first, second = (source.tensors[i] for i in operator.inputs[1:3])
    data, shift = parameter(learned.graph, weight), parameter(learned.graph, bias)
    grid = np.broadcast_to(np.array(quant_of(weight).scale), shift.data.shape)
    step = quant_of(x).scale[0]
    if first.dtype == "FLOAT32":
        real = _stored(real_of(data, quant_of(weight)), node, operator, first)
        return Change(real.astype(np.float32)), Change((shift.data * (grid * step)).astype(np.float32))
    own = step if second.dtype == "FLOAT32" else input_scale(learned, source, x)
    if first.dtype == "UINT8" and first.scale.size == 1 and second.dtype == "INT32":
        real = _stored(real_of(data, quant_of(weight)), node, operator, first) * (step / own)
        return _unsigned(real, shift.data * (grid * step), own, first)
    if first.dtype != "INT8":
        raise McugradError(f"{operator.name} stores {first.dtype} weights, which cannot hold the learned ones: {OTHERWISE}")
    scale = grid * (step / own)
    stored = _stored(data.data, node, operator, first)
    axis = 3 if operator.op == "DEPTHWISE_CONV_2D" else 0
    one = _unless_same(Change(stored, None if _same(first, scale) else scale, axis), first)
    if second.dtype == "FLOAT32":
        return one, Change((shift.data * (grid * step)).astype(np.float32))
    return one, _unless_same(Change(shift.data, None if _same(second, scale * own) else scale * own), second)


def _unsigned(real: Array, bias: Array, step: float, tensor: Tensor) -> tuple[Change, Change]:
    """An asymmetric weight of one scale, and its bias at that times `step`: rounded to the file's grid where that reaches all
    of it, otherwise to the least one that does."""
    scale, zero = float(tensor.scale[0]), int(tensor.zero[0])
    stored = np.rint(real / scale) + zero
    moved = bool(stored.min() < 0 or stored.max() > 255)
    if moved:
        low, high = min(float(real.min()), 0.0), max(float(real.max()), 0.0)
        scale = (high - low) / 255
        zero = round(-low / scale)
        stored = np.clip(np.rint(real / scale) + zero, 0, 255)
    scales = (np.array([scale]), np.array([scale * step])) if moved else (None, None)
    whole = np.rint(bias / (scale * step)).astype(np.int32)
    return Change(stored.astype(np.uint8), scales[0], 0, zero), Change(whole, scales[1])


def input_scale(learned: Learned, source: Source, x: Value) -> float:
    """The scale in the file of a layer's input; images of 0..255 are read as 0..1, on the same integers."""
    if x is not learned.graph.inputs[0]:
        return quant_of(x).scale[0]
    return file_quant(source).scale[0]


def file_quant(source: Source) -> Quant:
    """The int8 quantization that the file gives its input (after a first QUANTIZE)."""
    index = source.input
    readers = [n for n in source.nodes if index in n.inputs]
    if readers and all(n.op == "QUANTIZE" for n in readers):
        index = readers[0].outputs[0]
    tensor = source.tensors[index]
    zero = int(tensor.zero[0]) if tensor.zero.size else 0
    return Quant((float(tensor.scale[0]),), zero - (128 if tensor.dtype == "UINT8" else 0))


def _stored(data: Array, node: Node, operator: TfliteNode, tensor: Tensor) -> Array:
    """A weight of ours ([1,kh,kw,C] or OHWI) in the order and shape of the file."""
    ohwi = data.transpose(3, 1, 2, 0) if isinstance(node.op, DepthwiseConv2d) else data
    stored = ohwi.transpose(3, 1, 2, 0) if operator.op == "DEPTHWISE_CONV_2D" else ohwi
    return stored.reshape(tensor.shape)


def _same(tensor: Tensor, scale: Array) -> bool:
    """Whether the file's grid is that one, as far as float32 tells."""
    return bool(np.allclose(np.broadcast_to(tensor.scale.astype(np.float64), scale.shape), scale, rtol=1e-6, atol=0))


def _unless_same(change: Change, tensor: Tensor) -> Change | None:
    same = change.scale is None and tensor.data is not None and change.data.tobytes() == bytes(tensor.data)
    return None if same else change


class _Writer:
    """One file; `tensors` lists the offsets of all tensor tables, old and new, `buffers` those of all buffers."""

    def __init__(self, learned: Learned, source: Source, old: bytes) -> None:
        self.learned, self.source = learned, source
        changes = changed_tensors(learned, source)
        patched = bytearray(old)
        model = tflite.Model.GetRootAs(old, 0)
        inside = {i for i, c in changes.items() if _patch(patched, model, i, c)}
        self.extension = extension = Extension(bytes(patched))
        self.model, self.graph = model, model.Subgraphs(0)
        if any(model.Buffers(i).Offset() > 1 for i in range(model.BuffersLength())):
            raise McugradError(f"{learned.file} keeps its weights behind the flatbuffer: {OTHERWISE}")
        self.codes = [extension.old(model.OperatorCodes(i)) for i in range(model.OperatorCodesLength())]
        self.buffers = [extension.old(model.Buffers(i)) for i in range(model.BuffersLength())]
        self.tensors = [extension.old(self.graph.Tensors(i)) for i in range(self.graph.TensorsLength())]
        for index, change in changes.items():
            if change.scale is not None or index not in inside:
                self.tensors[index] = self._tensor_like(self.graph.Tensors(index), change, index in inside)

    def result(self) -> bytes:
        features = self._features()
        kept = self._needed(features)
        output, added = self._head(features)
        extension, old = self.extension, self.graph
        operators = extension.tables([*(extension.old(old.Operators(i)) for i in kept), *added])
        fields = {
            "Tensors": extension.tables(self.tensors),
            "Inputs": extension.field(old, 1),
            "Outputs": extension.numbers(np.array([output], np.int32)),
            "Operators": operators,
            **self._kept(old, {"Name": 4}),
        }
        graphs = [extension.table("SubGraph", fields)]
        graphs += [extension.old(self.model.Subgraphs(i)) for i in range(1, self.model.SubgraphsLength())]
        return extension.finish(self._model(graphs, output))

    def _model(self, graphs: list[int], output: int) -> int:
        extension, model = self.extension, self.model
        self.buffers.append(extension.buffer(np.frombuffer(self.learned.sha256.encode(), np.uint8)))
        entry = {"Name": extension.text(MARK), "Buffer": len(self.buffers) - 1}
        metadata = [extension.old(model.Metadata(i)) for i in range(model.MetadataLength())]
        fields = {
            "Version": model.Version(),
            "OperatorCodes": extension.tables(self.codes),
            "Subgraphs": extension.tables(graphs),
            "Description": extension.text(f"learned on the device with mcugrad, from {self.learned.file}"),
            "Buffers": extension.tables(self.buffers),
            "Metadata": extension.tables([*metadata, extension.table("Metadata", entry)]),
            "SignatureDefs": extension.tables(self._signatures(output)),
            **self._kept(model, {"MetadataBuffer": 5}),
        }
        return extension.table("Model", fields)

    def _kept(self, accessor: Any, slots: dict[str, int]) -> dict[str, int]:
        """Fields of an old table that stay, as far as it has them."""
        found = {name: self.extension.field(accessor, slot) for name, slot in slots.items()}
        return {name: offset for name, offset in found.items() if offset}

    def _signatures(self, output: int) -> Iterable[int]:
        """The file's signatures of the network with their inputs, and the new output."""
        extension, model = self.extension, self.model
        result = []
        for i in range(model.SignatureDefsLength()):
            old = model.SignatureDefs(i)
            if old.SubgraphIndex() != 0:
                result.append(extension.old(old))
                continue
            entry = extension.table("TensorMap", {"Name": extension.text(OUTPUT), "TensorIndex": output})
            fields = {"Outputs": extension.tables([entry]), **self._kept(old, {"Inputs": 0, "SignatureKey": 2})}
            result.append(extension.table("SignatureDef", fields))
        return result

    def _features(self) -> int:
        """The tensor that the head reads."""
        last = self.learned.graph.nodes[-1]
        if not isinstance(last.op, Head):
            raise McugradError(f"{last.where}: only networks that end in a classifier are written as TFLite yet: {OTHERWISE}")
        (index,) = operator_of(self.learned, self.source, last.inputs[0]).outputs
        if int(np.prod(self.source.tensors[index].shape)) != last.inputs[0].type.elements:
            raise McugradError(f"{last.inputs[0].name}: the features are not the tensor {index} of the file: {OTHERWISE}")
        return index

    def _needed(self, features: int) -> list[int]:
        """Operators that the features depend on, in order."""
        wanted, kept = {features}, []
        for number, node in reversed(list(enumerate(self.source.nodes))):
            if wanted.intersection(node.outputs):
                wanted.update(node.inputs)
                kept.append(number)
        return kept[::-1]

    def _head(self, features: int) -> tuple[int, list[int]]:
        """(output tensor, operators) of the classifier: float, which holds its int16 weights exactly."""
        _, weight, bias = self.learned.graph.nodes[-1].inputs
        count, operators = weight.type.shape[1], []
        if self.source.tensors[features].dtype != "FLOAT32":
            real = self._tensor("features_real", self.source.tensors[features].shape)
            operators.append(self._operator("DEQUANTIZE", 2, "Dequantize", [features], real))
            features = real
        found = classifier(self.learned.graph, self.learned.graph.nodes[-1], self.learned.units, channels_first=False)
        pairs = ((weight, found[0].T), (bias, found[1]))
        constants = [self._tensor(v.name, d.shape, np.ascontiguousarray(d, np.float32)) for v, d in pairs]
        output = self._tensor(OUTPUT, (1, count))
        operators.append(self._operator("FULLY_CONNECTED", 1, "FullyConnected", [features, *constants], output))
        return output, operators

    def _tensor(self, name: str, shape: tuple[int, ...], data: Array | None = None) -> int:
        """The index of a new float tensor."""
        extension, buffer = self.extension, 0
        if data is not None:
            self.buffers.append(extension.buffer(data))
            buffer = len(self.buffers) - 1
        fields = {"Shape": extension.numbers(np.array(shape, np.int32)), "Type": tflite.TensorType.FLOAT32, "Buffer": buffer}
        self.tensors.append(extension.table("Tensor", {**fields, "Name": extension.text(name)}))
        return len(self.tensors) - 1

    def _operator(self, kind: str, version: int, options: str, inputs: list[int], output: int) -> int:
        extension, number = self.extension, getattr(tflite.BuiltinOperator, kind)
        codes = [self.model.OperatorCodes(i).BuiltinCode() for i in range(self.model.OperatorCodesLength())]
        if number not in codes:
            fields = {"DeprecatedBuiltinCode": number, "BuiltinCode": number, "Version": version}
            self.codes.append(extension.table("OperatorCode", fields))
        vectors = [extension.numbers(np.array(v, np.int32)) for v in (inputs, [output])]
        fields = {
            "OpcodeIndex": codes.index(number) if number in codes else len(self.codes) - 1,
            "Inputs": vectors[0],
            "Outputs": vectors[1],
            "BuiltinOptionsType": getattr(tflite.BuiltinOptions, f"{options}Options"),
            "BuiltinOptions": extension.table(f"{options}Options", {}),
        }
        return extension.table("Operator", fields)

    def _tensor_like(self, old: Any, change: Change, inside: bool) -> int:
        """The table of a tensor with new contents, patched already or in a buffer of its own, and perhaps on a new grid."""
        extension, buffer = self.extension, old.Buffer()
        if not inside:
            self.buffers.append(extension.buffer(change.data))
            buffer = len(self.buffers) - 1
        fields = {"Type": old.Type(), "Buffer": buffer, **self._kept(old, {"Shape": 0, "Name": 3, "ShapeSignature": 7})}
        if change.scale is None:
            fields |= self._kept(old, {"Quantization": 4})
        else:
            scale = change.scale.astype(np.float32)
            vectors = {
                "Scale": extension.numbers(scale),
                "ZeroPoint": extension.numbers(np.full(scale.shape, change.zero, np.int64)),
            }
            fields["Quantization"] = extension.table("QuantizationParameters", {**vectors, "QuantizedDimension": change.axis})
        return extension.table("Tensor", fields)


def _patch(file: bytearray, model: Any, index: int, change: Change) -> bool:
    """Replaces a tensor's bytes where they stand; False when another tensor has them too."""
    graphs = [model.Subgraphs(i) for i in range(model.SubgraphsLength())]
    uses = Counter(g.Tensors(i).Buffer() for g in graphs for i in range(g.TensorsLength()))
    number = model.Subgraphs(0).Tensors(index).Buffer()
    buffer = model.Buffers(number)
    if uses[number] != 1 or buffer.DataLength() != change.data.nbytes:
        return False
    start = buffer._tab.Vector(buffer._tab.Offset(4))
    file[start : start + change.data.nbytes] = np.ascontiguousarray(change.data).tobytes()
    return True
