"""Quantized ONNX models made by onnxruntime's own quantizer, and how far its integers are from ours."""

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from mcugrad.importers.onnx_integer import INTEGERS
from mcugrad.ir import interpret

KINDS = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
LAYERS = {"Gemm", "QGemm", "MatMul", "QLinearMatMul"}
VIEWS = {"DequantizeLinear", "Flatten", "Reshape"}


class Samples(CalibrationDataReader):
    """Hands out the calibration samples one by one."""

    def __init__(self, name, samples):
        self.feeds = iter([{name: x} for x in samples])

    def get_next(self):
        return next(self.feeds, None)


def quantized(
    source, target, samples, *, form="QDQ", activations="uint8", weights="int8", per_channel=True, seven_bits=False, **options
):
    """Writes source, quantized, to target; samples: arrays at batch 1.  seven_bits: of the weights, which onnxruntime
    recommends where it sums products of uint8 and int8 in 16 bits, on processors without VNNI."""
    name = onnx.load(source).graph.input[0].name
    quantize_static(
        source, target, Samples(name, samples), quant_format=QuantFormat[form], per_channel=per_channel,
        reduce_range=seven_bits,
        activation_type=KINDS[activations], weight_type=KINDS[weights], extra_options=options,
    )  # fmt: skip
    return target


class Reference:
    """onnxruntime without optimizations, every tensor readable."""

    def __init__(self, path):
        model = onnx.load(path)
        names = {o.name for o in model.graph.output}
        self.producers = {o: n for n in model.graph.node for o in n.output}
        self.layers = list(model.graph.node)
        self.tensors = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
        model.graph.output.extend(onnx.ValueInfoProto(name=o) for o in self.producers if o not in names)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self.session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        self.outputs = [o.name for o in self.session.get_outputs()]

    def features(self):
        """The integers that the last fully connected layer reads, and their zero point."""
        last = next(n for n in reversed(self.layers) if n.op_type in LAYERS)
        name = last.input[0]
        while name in self.producers and self.producers[name].op_type in VIEWS:
            name = self.producers[name].input[0]
        made = self.producers[name]
        place = 2 if made.op_type == "QuantizeLinear" else INTEGERS[made.op_type].out + 1
        return name, int(self.tensors[made.input[place]])

    def run(self, x):
        """Every tensor of the model by name, for one sample at batch 1."""
        return dict(zip(self.outputs, self.session.run(self.outputs, {self.session.get_inputs()[0].name: x}), strict=True))


def integers(imported, x):
    """int64 features minus their zero point, and the integer graph's input, for a real sample x [1,C,H,W] or [1,F]."""
    (value,) = imported.graph.inputs
    quant = value.type.quant
    fed = x.transpose(0, 2, 3, 1) if x.ndim == 4 else x.reshape(value.type.shape)
    q = np.clip(np.rint(fed / quant.scale[0]) + quant.zero, -128, 127).astype(np.int8)
    features = imported.graph.outputs[0]
    return interpret(imported.graph, {value.name: q})[features].astype(np.int64) - features.type.quant.zero
