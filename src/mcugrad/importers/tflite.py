"""TFLite to a graph: full-integer models keep their quantization, float ones become a float graph; ends in the features."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from mcugrad.importers.image_units import image_preprocess, in_unit_range, unit_of
from mcugrad.importers.integer_layers import loss_notes
from mcugrad.importers.model import TFLITE, Blocker, Classifier, Imported, Layer, Report, count_ops, layer_table
from mcugrad.importers.onnx import MALFORMED, TWO_CLASSES, integer_limits, split_classifier, two_classes
from mcugrad.importers.onnx_state import Blocked, bounded_activation
from mcugrad.importers.source import AGAIN
from mcugrad.importers.tflite_ops import HANDLERS
from mcugrad.importers.tflite_read import ABSENT, Source, TfliteNode, read
from mcugrad.importers.tflite_state import Act, State
from mcugrad.ir import Graph, GraphError, TensorType, Value
from mcugrad.ops.head import HEAD_ONE, Head, weight_limit
from mcugrad.passes.clean import CLEAN
from mcugrad.passes.run import run

CONTROL = "export a network without data-dependent control flow"
REMEDIES = {
    **dict.fromkeys(("GATHER", "UNPACK", "PACK"), "use a slice or a concatenation"),
    **dict.fromkeys(("DIV", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE"), "use sums and products"),
    **dict.fromkeys(("IF", "WHILE", "CALL", "CALL_ONCE"), CONTROL),
    **dict.fromkeys(("RESIZE_BILINEAR", "TRANSPOSE_CONV"), "upsample by nearest neighbours, then convolve"),
    **dict.fromkeys(("BATCH_TO_SPACE_ND", "SPACE_TO_BATCH_ND"), "they stand for a dilated convolution: convert it as one"),
    **dict.fromkeys(("ARG_MAX", "TOPK_V2"), "export the model up to its logits"),
    **dict.fromkeys(("LSTM", "SVDF", "UNIDIRECTIONAL_SEQUENCE_LSTM"), "use a convolutional network"),
}
DEFAULT_REMEDY = "replace it by convolution, ReLU6, addition or pooling"


def load_tflite(path: Path) -> Imported:
    """The model in `path`; raises McugradError for an unreadable file, and for blockers, naming all of them."""
    return replace(_Import(read(path)).result(), data=path.read_bytes())


def check_tflite(path: Path) -> Report:
    """Layers and blockers of the model in `path`; raises McugradError for an unreadable file only."""
    return _Import(read(path)).report


class _Import:
    """One translation: every operator is tried, also after a blocker, so that the report is complete."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.state = State(source)
        self.blockers: list[Blocker] = []
        self.supported: list[str] = []
        self.graph: Graph | None = None
        self._input()
        for node in source.nodes:
            self._try(node)
        self._finish()
        nodes = self.graph.nodes if self.graph and not self.blockers else self.state.builder.nodes
        self.features, self.classifier = self._split()
        notes = (*self.state.notes, *loss_notes(self.state.integer_layers))
        layers = (*layer_table(nodes), *self._head_row())
        self.report = Report(source.name, TFLITE, layers, tuple(self.blockers), notes, count_ops(self.supported))

    def result(self) -> Imported:
        self.report.require()
        assert self.features is not None
        preprocess, graph = image_preprocess(self.features), in_unit_range(self.features)
        unit = unit_of(self.features, graph)
        return Imported(graph, Path(self.source.name).stem, TFLITE, preprocess, self.classifier, self.report, unit=unit)

    def _block(self, node: str, op: str, reason: str, remedy: str) -> None:
        self.blockers.append(Blocker(node, op, reason, remedy))

    def _input(self) -> None:
        """The graph's input; one that is only quantized, or only reshaped into a map, becomes the result itself."""
        index = self.source.input
        readers = [n for n in self.source.nodes if index in n.inputs]
        typed = readers[0].outputs[0] if readers and all(n.op == "QUANTIZE" for n in readers) else index
        shaped = readers[0].outputs[0] if len(readers) == 1 and readers[0].op == "RESHAPE" else index
        try:
            self._stand_in(index, typed, "input", self.source.tensors[shaped].shape)
        except Blocked as blocked:
            self._block(self.source.tensors[index].name, "input", blocked.reason, blocked.remedy)

    def _stand_in(self, index: int, typed: int, label: str, map_: tuple[int, ...] = ()) -> None:
        """An input of the graph: the model's own, or in place of what a blocked operator would give.

        typed: the tensor whose quantization it has; map_: the shape in which it is stored, if that is a map."""
        tensor, quant = self.state.tensor(index), self.state.quant(typed)
        shape = tensor.shape
        if min(shape, default=1) < 1 or len(shape) > 4 or (len(shape) > 1 and shape[0] != 1):
            raise Blocked(f"the {label} has shape {list(shape)}", "export at batch 1 with a fixed size: [1, H, W, C] or [1, F]")
        bounded_activation(shape)
        whole = next((m for m in (shape, map_) if len(m) == 4 and m[0] == 1 and min(m) > 0), (1, 1, 1, math.prod(shape)))
        whole = whole if math.prod(whole) == math.prod(shape) else (1, 1, 1, math.prod(shape))
        kind = "f32" if quant is None else "s8"
        value = self.state.builder.input(label, TensorType(whole, kind, quant), f"{self.source.name}:{tensor.name}")
        self.state.acts[index] = Act(value, shape)

    def _try(self, node: TfliteNode) -> None:
        try:
            if self._translate(node):
                self.supported.append(node.op)
            return
        except Blocked as blocked:
            self._block(node.name, node.op, blocked.reason, blocked.remedy)
        except GraphError as error:
            self._block(node.name, node.op, str(error), "change this layer in the model")
        except (*MALFORMED, ArithmeticError) as error:
            self._block(node.name, node.op, f"the operator is malformed ({error})", AGAIN)
        for index in node.outputs:
            try:
                self._stand_in(index, index, "blocked")
            except (Blocked, GraphError):  # what reads it is skipped
                continue

    def _translate(self, node: TfliteNode) -> bool:
        """True when the operator's outputs are known afterwards; False when its inputs are not."""
        state, inputs = self.state, [i for i in node.inputs if i != ABSENT]
        if not all(state.known(i) for i in inputs):
            return False
        if node.op == "SHAPE" or (state.shapes.intersection(inputs) and not any(i in state.acts for i in inputs)):
            state.shapes.update(node.outputs)
            return True
        if node.op not in HANDLERS:
            raise Blocked(f"{node.op} is not supported", REMEDIES.get(node.op, DEFAULT_REMEDY))
        HANDLERS[node.op](state, node)
        return True

    def _finish(self) -> None:
        """Cleans the graph and turns what is left over into blockers."""
        source, state = self.source, self.state
        if len(source.outputs) != 1:
            names = ", ".join(source.tensors[i].name for i in source.outputs)
            self._block(names, "output", f"{len(source.outputs)} outputs", "export a model with one output, the logits")
        name = source.tensors[source.outputs[0]].name
        if source.outputs[0] not in state.acts:
            if not self.blockers:
                self._block(name, "output", "the output does not depend on the input", AGAIN)
            return
        try:
            value = state.act(source.outputs[0]).value
        except Blocked as blocked:
            self._block(name, "output", blocked.reason, blocked.remedy)
            return
        self.graph = run(state.builder.graph([value]), CLEAN)
        if not self.graph.nodes and not self.blockers:
            self._block(name, "output", "no layer lies between input and output", AGAIN)
        if value.type.quant is None:
            if state.hybrid:
                state.notes.append("weights stored as integers were dequantized: this is a float model, give --calibrate DATA")
            for wide, reason in integer_limits(self.graph):
                self._block(wide.origin.removeprefix(f"{source.name}:"), "layer", reason, "pool or project its input first")

    def _split(self) -> tuple[Graph | None, Classifier | None]:
        """The graph up to the features, and the model's last layer if it is fully connected, in real numbers."""
        own = self.state.float_head
        if self.graph is not None and own is not None:
            self._require_head(self.graph.outputs[0], own)
            return self.graph, own
        if self.graph is None or self.graph.outputs[0] in self.state.clamped:
            return self.graph, None
        features, classifier = split_classifier(self.graph)
        if classifier is None:
            return features, None
        x, last = features.outputs[0], self.graph.producers()[self.graph.outputs[0]]
        weights = last.inputs[1].type.quant
        if x.type.quant is not None and weights is not None:
            scale = np.array(weights.scale)
            step = x.type.quant.scale[0]
            classifier = replace(classifier, weight=classifier.weight * scale, bias=classifier.bias * scale * step)
            self._require_head(x, classifier)
        if "LOGISTIC" in self.state.ends and len(classifier.bias) == 1:
            self.state.notes.append(TWO_CLASSES)
            classifier = two_classes(classifier)
        self._note_end(features, classifier)
        return features, classifier

    def _head_row(self) -> tuple[Layer, ...]:
        """The row of a classifier that is no node of the graph."""
        own = self.state.float_head
        if own is None:
            return ()
        features, classes = own.weight.shape
        params, macs = own.weight.size + own.bias.size, own.weight.size
        return (Layer("classifier", "fully connected", own.origin, (1, features), (1, classes), params, macs),)

    def _require_head(self, features: Value, classifier: Classifier) -> None:
        """A blocker for too many features, a note for weights that a Q12 head clips."""
        weight = TensorType(classifier.weight.shape, "s16"), TensorType(classifier.bias.shape, "s32")
        try:
            Head().infer(features.type, *weight)
        except GraphError as error:
            self._block(classifier.origin.removeprefix(f"{self.source.name}:"), "layer", str(error), "pool its input first")
            return
        limit, largest = weight_limit(features.type) / HEAD_ONE, float(np.abs(classifier.weight).max())
        if largest > limit:
            self.state.notes.append(f"--keep-head clips classifier weights to +-{limit:.3g}; the largest is {largest:.3g}")

    def _note_end(self, features: Graph, classifier: Classifier) -> None:
        outputs, inputs = len(classifier.bias), features.inputs[0].type.elements
        if not self.state.ends and outputs == inputs:
            self.state.notes.append(
                f"{outputs} outputs for {inputs} inputs: an autoencoder. --loss autoencoder trains it as one; --classes N "
                f"trains a classifier on its {features.outputs[0].type.elements} features, --keep-head would take the outputs "
                "for classes"
            )
