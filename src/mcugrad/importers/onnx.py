"""Float ONNX to a float graph: NHWC, batch 1, batch norm folded, ending in the features."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from mcugrad.errors import McugradError
from mcugrad.importers.image_units import in_unit_range, own_preprocess, unit_of
from mcugrad.importers.integer_layers import loss_notes
from mcugrad.importers.model import Blocker, Classifier, Imported, Report, count_ops, layer_table
from mcugrad.importers.onnx_fold import FOLDS
from mcugrad.importers.onnx_given import Given, Unassigned
from mcugrad.importers.onnx_integer import INTEGERS, expanded, fold, quantize
from mcugrad.importers.onnx_ops import HANDLERS
from mcugrad.importers.onnx_state import MAX_ACTIVATION, Blocked, State, bounded_activation, plain_map, vector
from mcugrad.importers.source import Array, OnnxNode, Source
from mcugrad.ir import Graph, GraphError, Op, Quant, TensorType, Value, rebuild
from mcugrad.ops.conv2d import Conv2d
from mcugrad.ops.head import Head
from mcugrad.passes.clean import CLEAN, norms_to_layers
from mcugrad.passes.run import run
from mcugrad.preprocess import Input, Preprocess

FORMAT = "onnx"
PREPROCESS_KEY = "mcugrad.preprocess"
DYNAMIC = "activations need fixed scales: quantize statically (onnxruntime.quantization.quantize_static)"
CONTROL = "export a network without data-dependent control flow"
REMEDIES = {
    **dict.fromkeys(("ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"), DYNAMIC),
    **dict.fromkeys(("ArgMax", "TopK"), "export the network up to its logits"),
    **dict.fromkeys(("If", "Loop", "Scan"), CONTROL),
    "ConvTranspose": "upsample by nearest neighbours and convolve",
    **dict.fromkeys(("LSTM", "GRU", "RNN"), "use a convolutional network"),
    **dict.fromkeys(("LayerNormalization", "InstanceNormalization", "GroupNormalization"), "use batch norm"),
}
DEFAULT_REMEDY = "replace it by convolution, ReLU6, addition or pooling"
UNQUANTIZED = "quantize every activation between two layers (quantize_static with the QDQ format does)"
TWO_CLASSES = "its sigmoid with one output becomes two classes: 0 (no) and 1 (yes)"
PAIR = {"QuantizeLinear", "DequantizeLinear"}
OPERATORS_ON_INTEGERS = {*INTEGERS, "QLinearConcat"}
DOMAINS, CONTRIBUTED = {"", "ai.onnx"}, "com.microsoft"
VIEWS = {"Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
KEEP = (norms_to_layers, *CLEAN)  # folding a batch norm would change stored integers
MALFORMED = (ValueError, IndexError, KeyError, TypeError, ArithmeticError, AttributeError)


def load_onnx(path: Path) -> Imported:
    """The float model in `path`; raises McugradError for an unreadable file, and for blockers, naming all of them."""
    from mcugrad.importers.onnx_read import read

    return Translation(read(path), FORMAT).result()


def check_onnx(path: Path) -> Report:
    """Layers and blockers of the model in `path`; raises McugradError for an unreadable file only."""
    from mcugrad.importers.onnx_read import read

    return Translation(read(path), FORMAT).report


class Translation:
    """One translation: every node is tried, also after a blocker, so that the report is complete."""

    def __init__(self, source: Source, format_: str) -> None:
        self.source, self.format = source, format_
        self.state = State(source)
        self.blockers: list[Blocker] = []
        self.supported: list[str] = []
        self.graph: Graph | None = None
        self.features: Graph | None = None
        self.classifier: Classifier | None = None
        self._input()
        for node in source.nodes:
            self._try(node)
        self._finish()
        nodes = self.graph.nodes if self.graph else self.state.builder.nodes
        self.report = Report(
            source.name, format_, layer_table(nodes), tuple(self.blockers), tuple(self.state.notes), count_ops(self.supported)
        )

    def result(self) -> Imported:
        self.report.require()
        assert self.features is not None
        graph, preprocess = self.features, stored_preprocess(self.source)
        if self.state.quants and preprocess is None:
            preprocess = own_preprocess(graph, self.source.input_type != "float32")
            graph = in_unit_range(graph) if preprocess and preprocess.kind is Input.INT8 else graph
        unit = unit_of(self.features, graph)
        return Imported(graph, Path(self.source.name).stem, self.format, preprocess, self.classifier, self.report, unit=unit)

    def _block(self, node: str, op: str, reason: str, remedy: str) -> None:
        self.blockers.append(Blocker(node, op, reason, remedy))

    def _input(self) -> None:
        try:
            self._stand_in(self.source.input, self._input_shape(), "input")
        except Blocked as blocked:
            self._block(self.source.input, "input", blocked.reason, blocked.remedy)

    def _input_shape(self) -> tuple[int, ...]:
        shape = self.source.input_shape
        bounded_activation(shape)
        if len(shape) not in {1, 2, 3, 4}:
            raise Blocked(
                f"the input has shape {list(shape)}",
                "use [1, C, H, W], [1, H, W, C] followed by a Transpose, [1, C, L] or [1, F]",
            )
        return shape

    def _stand_in(self, name: str, shape: tuple[int, ...], label: str) -> None:
        """An input of the graph: the model's own, or in place of what a blocked node would give."""
        readers = list(self._readers(name))
        origin = f"{self.source.name}:{name}"
        if len(shape) == 3 and shape[0] == 1:
            whole = TensorType((1, 1, shape[2], shape[1]), "f32")
            self.state.acts[name] = plain_map(self.state.builder.input(label, whole, origin), 3)
        elif len(shape) != 4 or shape[0] != 1:
            value = self.state.builder.input(label, TensorType((1, 1, 1, math.prod(shape)), "f32"), origin)
            self.state.acts[name] = vector(value, shape)
        elif readers and all(n.op == "Transpose" and list(n.attributes.get("perm", ())) == [0, 3, 1, 2] for n in readers):
            value = self.state.builder.input(label, TensorType(shape, "f32"), origin)
            self.state.acts[name] = vector(value, shape)
        else:
            _, c, h, w = shape
            self.state.acts[name] = plain_map(self.state.builder.input(label, TensorType((1, h, w, c), "f32"), origin))

    def _readers(self, name: str) -> Iterator[OnnxNode]:
        """The nodes that read a value, also through QuantizeLinear and DequantizeLinear."""
        for node in self.state.readers.get(name, []):
            if node.op in PAIR:
                yield from self._readers(node.outputs[0])
            else:
                yield node

    def _try(self, node: OnnxNode) -> None:
        try:
            if self._translate(node):
                self.supported.append(node.op)
            return
        except Blocked as blocked:
            self._block(node.name, node.op, blocked.reason, blocked.remedy)
        except GraphError as error:
            self._block(node.name, node.op, str(error), "change this layer in the model")
        except MALFORMED as error:
            self._block(node.name, node.op, f"the node is malformed ({error})", "export the model again")
        for name in node.outputs:
            shape = self.source.shapes.get(name)
            if shape and math.prod(shape) <= MAX_ACTIVATION:
                self._stand_in(name, shape, "blocked")

    def _translate(self, node: OnnxNode) -> bool:
        """True when the node's outputs are known afterwards; False when its inputs are not."""
        state = self.state
        self._require_operator(node)
        if not all(state.known(name) for name in node.inputs if name):
            return False
        if node.op in OPERATORS_ON_INTEGERS:
            for part in expanded(node):
                self._translate(part)
        elif node.op == "Shape":
            state.constants[node.outputs[0]] = _shape_of(state, node)
        elif all(state.is_constant(name) for name in node.inputs if name):
            self._fold(node)
        elif node.op in PAIR:
            quantize(state, node)
        else:
            if node.op not in HANDLERS:
                raise Blocked(f"{node.op} of an activation is not supported", REMEDIES.get(node.op, DEFAULT_REMEDY))
            HANDLERS[node.op](state, node)
        return True

    def _require_operator(self, node: OnnxNode) -> None:
        if node.domain not in DOMAINS and not (node.domain == CONTRIBUTED and node.op in OPERATORS_ON_INTEGERS | PAIR):
            raise Blocked(f"the operator belongs to {node.domain}", "export with standard operators, functions inlined")
        if not {node.op} & (HANDLERS.keys() | FOLDS.keys() | PAIR | OPERATORS_ON_INTEGERS | {"Shape"}):
            raise Blocked(f"{node.op} is not supported", REMEDIES.get(node.op, DEFAULT_REMEDY))
        if not node.outputs:
            raise Blocked("the node has no output", "export the model again")

    def _fold(self, node: OnnxNode) -> None:
        if node.op in PAIR:
            fold(self.state, node)
            return
        if node.op not in FOLDS:
            raise Blocked(f"{node.op} of constants is not folded", "run onnxsim or constant folding at export")
        inputs = tuple(self.state.constant(name) for name in node.inputs)
        self.state.store(node.outputs[0], FOLDS[node.op](inputs, node.attributes))
        if node.op in VIEWS and node.inputs[0] in self.state.steps:
            inputs = (self.state.steps[node.inputs[0]], *inputs[1:])
            self.state.steps[node.outputs[0]] = FOLDS[node.op](inputs, node.attributes)

    def _finish(self) -> None:
        """Cleans the graph and turns what is left over into blockers."""
        source, state = self.source, self.state
        if len(source.outputs) != 1:
            names = ", ".join(source.outputs)
            self._block(names, "output", f"{len(source.outputs)} outputs", "export a model with one output, the logits")
        if source.outputs[0] not in state.acts:
            if not self.blockers:
                self._block(source.outputs[0], "output", "the output does not depend on the input", "export the model again")
            return
        act = state.act(source.outputs[0])
        self.graph = run(state.builder.graph([act.value]), KEEP if state.quants else (*CLEAN, norms_to_layers))
        for value, reason in integer_limits(self.graph):
            self._block(value.origin.removeprefix(f"{source.name}:"), "layer", reason, "pool or project its input first")
        self.features, self.classifier = split_classifier(self.graph)
        if "Sigmoid" in state.ends and self.classifier is not None and len(self.classifier.bias) == 1:
            state.notes.append(TWO_CLASSES)
            self.classifier = two_classes(self.classifier)
        if state.quants and not self.blockers:
            self._settle(self.features)

    def _settle(self, graph: Graph) -> None:
        """The integer graph of a quantized model."""
        try:
            given = Given(graph, self.state.quants, self.state.weight_steps)
        except Unassigned as error:
            self._block(error.value.origin.removeprefix(f"{self.source.name}:"), "layer", error.reason, UNQUANTIZED)
            return
        self.features = given.result()
        self.state.notes += loss_notes(given.layers)
        if given.estimated:
            self.state.notes.append(f"{given.estimated} layers had float weights: quantized here, per output channel")


def stored_preprocess(source: Source) -> Preprocess | None:
    """The preprocessing in the model's metadata (JSON of `Preprocess.to_dict`), if there is one."""
    text = source.metadata.get(PREPROCESS_KEY)
    if text is None:
        return None
    try:
        return Preprocess.from_dict(json.loads(text))
    except (McugradError, ValueError, TypeError, RecursionError) as error:
        raise McugradError(
            f"{source.name}: its metadata {PREPROCESS_KEY} cannot be used ({error}): remove or correct it"
        ) from None


def _shape_of(state: State, node: OnnxNode) -> Array:
    name = node.inputs[0]
    shape = state.constant(name).shape if state.is_constant(name) else state.act(name, padded=True).shape
    return np.array(shape[slice(node.attributes.get("start", 0), node.attributes.get("end"))], np.int64)


def integer_limits(graph: Graph) -> list[tuple[Value, str]]:
    """Layers that no quantization can fit into int32 accumulators, and a classifier with too many features for the head."""
    unit, (output,) = Quant((1.0,), -128), graph.outputs
    found = []
    for node in graph.nodes:
        if not isinstance(node.op, Conv2d):
            continue
        x, weight, bias = (v.type for v in node.inputs)
        op: Op = replace(node.op, out=unit)
        types = [replace(x, dtype="s8", quant=unit), replace(weight, dtype="s8", quant=unit), replace(bias, dtype="s32")]
        if node.outputs[0] is output and _covers(node.op, node.inputs[0]):
            op, types[1] = Head(), TensorType((x.elements, bias.shape[0]), "s16")
        try:
            op.infer(*types)
        except GraphError as error:
            found.append((node.outputs[0], str(error)))
    return found


def two_classes(one: Classifier) -> Classifier:
    """Logits [0, a] in place of a: their softmax is [1 - sigmoid(a), sigmoid(a)]."""
    weight, bias = (np.concatenate([np.zeros_like(a), a], axis=-1) for a in (one.weight, one.bias))
    return replace(one, weight=weight, bias=bias)


def split_classifier(graph: Graph) -> tuple[Graph, Classifier | None]:
    """The graph up to the features, and the last layer if it is fully connected (a kernel that covers the whole map)."""
    (output,) = graph.outputs
    last = graph.producers().get(output)
    if last is None or not isinstance(last.op, Conv2d) or not _covers(last.op, last.inputs[0]):
        return graph, None
    weight, bias = (graph.param(v) for v in last.inputs[1:3])
    assert weight is not None and bias is not None
    flat = weight.data.reshape(weight.data.shape[0], -1).T.astype(np.float64)
    classifier = Classifier(flat, bias.data.astype(np.float64), output.origin)
    return rebuild(graph, [n for n in graph.nodes if n is not last], outputs=(last.inputs[0],)), classifier


def _covers(op: Conv2d, x: Value) -> bool:
    return op.window.kernel == x.type.shape[1:3] and not any(op.window.padding) and op.groups == 1
