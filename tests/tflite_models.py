"""Small TFLite models made by hand with the schema's builder, and their reference outputs by LiteRT."""

import math
import warnings

import flatbuffers
import numpy as np
import tflite

from mcugrad.ir import interpret

NUMPY = {"FLOAT32": np.float32, "FLOAT16": np.float16, "INT32": np.int32, "UINT8": np.uint8, "INT8": np.int8, "INT16": np.int16}
NONE, RELU, RELU_N1_TO_1, RELU6, TANH = range(5)
SAME, VALID = range(2)
VERSIONS = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 5, "DEQUANTIZE": 3}
FIRST = {"HARD_SWISH", "ELU"} | {
    "RESHAPE",
    "SQUEEZE",
    "EXPAND_DIMS",
    "SHAPE",
    "STRIDED_SLICE",
    "PACK",
    "RELU_0_TO_1",
    "RELU_N1_TO_1",
}


class Net:
    """Collects tensors and operators; every method returns the index of a tensor."""

    def __init__(self, shape=(1, 9, 8, 3), dtype="INT8", scale=0.05, zero=3, seed=0):
        self.rng = np.random.default_rng(seed)
        self.tensors, self.nodes, self.custom = [], [], {}
        self.dtype = dtype
        self.input = self.tensor(shape, dtype, scale, zero)

    def tensor(self, shape, dtype=None, scale=None, zero=0, data=None, axis=0):
        """dtype None: that of the net's activations; scale None: not quantized."""
        dtype = dtype or self.dtype
        if dtype == "FLOAT32":
            scale = None
        if dtype == "UINT8" and data is None:
            zero += 128
        self.tensors.append((tuple(shape), dtype, scale, zero, data, axis))
        return len(self.tensors) - 1

    def const(self, data, dtype="INT32", scale=None, zero=0, axis=0):
        data = np.asarray(data, NUMPY[dtype])
        return self.tensor(data.shape, dtype, scale, zero, data, axis)

    def shape(self, index):
        return self.tensors[index][0]

    def step(self, index):
        """The scale of a per-tensor quantized tensor."""
        return float(np.ravel(self.tensors[index][2])[0])

    def op(self, kind, inputs, shape, options=None, *, scale=None, zero=0, dtype=None, **fields):
        """scale None: that of the first input."""
        first = self.tensors[inputs[0]]
        out = self.tensor(shape, dtype or first[1], first[2] if scale is None else scale, zero)
        if scale is None and first[2] is not None:
            self.tensors[out] = (tuple(shape), dtype or first[1], first[2], first[3], None, 0)
        self.nodes.append((kind, list(inputs), [out], options, fields))
        return out

    def weights(self, shape, x, axis, per_channel=True):
        """(weight, bias, natural output scale) for a layer that reads x."""
        outputs, terms = shape[axis], math.prod(shape) // shape[axis]
        real = self.rng.normal(0, 1, shape)
        if self.dtype == "FLOAT32":
            return self.const(real / math.sqrt(terms), "FLOAT32"), self.const(self.rng.normal(0, 0.3, outputs), "FLOAT32"), 1.0
        scale = self.rng.uniform(0.004, 0.02, outputs) if per_channel else np.array([0.01])
        if self.dtype == "UINT8":
            scale = np.array([0.01])
            weight = self.const(self.rng.integers(0, 256, shape), "UINT8", scale, 117)
        else:
            weight = self.const(self.rng.integers(-127, 128, shape), "INT8", scale, axis=axis)
        bias = self.const(self.rng.integers(-900, 900, outputs), "INT32", self.step(x) * scale)
        return weight, bias, self.step(x) * float(np.max(scale)) * 75 * 75 * math.sqrt(terms) / 50

    def conv(self, x, outputs, kernel=3, stride=1, padding=SAME, act=NONE, bias=True, zero=-5, scale=None, **more):
        """CONV_2D, or DEPTHWISE_CONV_2D with `multiplier`."""
        kh, kw = (kernel, kernel) if isinstance(kernel, int) else kernel
        sh, sw = (stride, stride) if isinstance(stride, int) else stride
        _, h, w, c = self.shape(x)
        multiplier, per_channel = more.pop("multiplier", 0), more.pop("per_channel", True)
        inputs = c // more.pop("groups", 1)
        shape, axis = ((1, kh, kw, c * multiplier), 3) if multiplier else ((outputs, kh, kw, inputs), 0)
        weight, shift, natural = self.weights(shape, x, axis, per_channel)
        size = [-(-n // s) if padding == SAME else (n - k) // s + 1 for n, k, s in ((h, kh, sh), (w, kw, sw))]
        kind, options = ("DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions") if multiplier else ("CONV_2D", "Conv2DOptions")
        fields = {"Padding": padding, "StrideH": sh, "StrideW": sw, "FusedActivationFunction": act, **more}
        fields = {"DilationHFactor": 1, "DilationWFactor": 1, **fields}
        if multiplier:
            fields["DepthMultiplier"] = multiplier
        ins = [x, weight, shift] if bias else [x, weight]
        shape = (1, *size, c * multiplier or outputs)
        return self.op(kind, ins, shape, options, scale=scale or natural, zero=zero, **fields)

    def dense(self, x, outputs, act=NONE, bias=True, zero=-5, keep=False, features=None):
        features = features or math.prod(self.shape(x))
        weight, shift, natural = self.weights((outputs, features), x, 0, per_channel=False)
        rows = math.prod(self.shape(x)) // features
        shape = (*self.shape(x)[:-1], outputs) if keep else (rows, outputs)
        ins = [x, weight, shift] if bias else [x, weight]
        fields = {"FusedActivationFunction": act, "KeepNumDims": keep}
        return self.op("FULLY_CONNECTED", ins, shape, "FullyConnectedOptions", scale=natural, zero=zero, **fields)

    def pool(self, kind, x, kernel, stride, padding=VALID, act=NONE):
        _, h, w, c = self.shape(x)
        size = [-(-n // stride) if padding == SAME else (n - k) // stride + 1 for n, k in zip((h, w), kernel, strict=True)]
        fields = {"FilterHeight": kernel[0], "FilterWidth": kernel[1], "StrideH": stride, "StrideW": stride}
        fields |= {"Padding": padding, "FusedActivationFunction": act}
        return self.op(kind, [x], (1, *size, c), "Pool2DOptions", **fields)

    def add(self, a, b, act=NONE, **quant):
        return self.op("ADD", [a, b], self.shape(a), "AddOptions", FusedActivationFunction=act, **quant)

    def mean(self, x, axes, keep=False, **quant):
        shape = tuple(1 if i in axes else n for i, n in enumerate(self.shape(x)) if keep or i not in axes)
        return self.op("MEAN", [x, self.const(axes)], shape, "ReducerOptions", KeepDims=keep, **quant)

    def pad(self, x, *pads):
        shape = [n + sum(p) for n, p in zip(self.shape(x), pads, strict=True)]
        return self.op("PAD", [x, self.const(pads)], shape, "PadOptions")

    def reshape(self, x, shape):
        static = np.empty(self.shape(x), np.int8).reshape(shape).shape
        return self.op("RESHAPE", [x, self.const(shape)], static, "ReshapeOptions")

    def softmax(self, x):
        quant = {} if self.dtype == "FLOAT32" else {"scale": 1 / 256, "zero": -128}
        return self.op("SOFTMAX", [x], self.shape(x), "SoftmaxOptions", Beta=1.0, **quant)

    def save(self, path, *outputs):
        path.write_bytes(self.bytes(*outputs))
        return path

    def bytes(self, *outputs):
        return bytes(_Writer(self).model(outputs))


def table(b, kind, fields):
    getattr(tflite, f"{kind}Start")(b)
    for name, value in fields.items():
        if value is not None:
            getattr(tflite, f"{kind}Add{name}")(b, value)
    return getattr(tflite, f"{kind}End")(b)


class _Writer:
    def __init__(self, net):
        self.net, self.b = net, flatbuffers.Builder(1 << 12)

    def offsets(self, items):
        self.b.StartVector(4, len(items), 4)
        for item in reversed(items):
            self.b.PrependUOffsetTRelative(item)
        return self.b.EndVector()

    def vector(self, data, dtype):
        return self.b.CreateNumpyVector(np.ascontiguousarray(np.ravel(data), dtype))

    def model(self, outputs):
        b, kinds = self.b, list(dict.fromkeys(n[0] for n in self.net.nodes))
        buffers = [table(b, "Buffer", {})]
        tensors = [self.tensor(i, t, buffers) for i, t in enumerate(self.net.tensors)]
        codes = [self.code(kind) for kind in kinds]
        operators = [self.operator(kinds.index(kind), *rest) for kind, *rest in self.net.nodes]
        lists = self.offsets(tensors), self.vector([self.net.input], np.int32), self.vector(outputs, np.int32)
        fields = dict(zip(("Tensors", "Inputs", "Outputs", "Operators"), (*lists, self.offsets(operators)), strict=True))
        graph = self.offsets([table(b, "SubGraph", fields)])
        fields = {"OperatorCodes": self.offsets(codes), "Subgraphs": graph, "Buffers": self.offsets(buffers)}
        b.Finish(table(b, "Model", {"Version": 3, **fields}), b"TFL3")
        return b.Output()

    def code(self, kind):
        number = getattr(tflite.BuiltinOperator, kind, tflite.BuiltinOperator.CUSTOM)
        if number == tflite.BuiltinOperator.CUSTOM:
            name = self.b.CreateString(kind)
            fields = {"DeprecatedBuiltinCode": number, "BuiltinCode": number, "CustomCode": name, "Version": 1}
            return table(self.b, "OperatorCode", fields)
        version = 1 if kind in FIRST else VERSIONS.get(kind, 2)
        return table(
            self.b, "OperatorCode", {"DeprecatedBuiltinCode": min(number, 127), "BuiltinCode": number, "Version": version}
        )

    def tensor(self, index, described, buffers):
        b, (shape, dtype, scale, zero, data, axis) = self.b, described
        fields = {"Shape": self.vector(shape, np.int32), "Type": getattr(tflite.TensorType, dtype), "Buffer": 0}
        fields["Name"] = b.CreateString(f"t{index}")
        if data is not None:
            buffers.append(table(b, "Buffer", {"Data": self.vector(np.frombuffer(data.tobytes(), np.uint8), np.uint8)}))
            fields["Buffer"] = len(buffers) - 1
        if scale is not None:
            scales = np.ravel(scale)
            vectors = self.vector(scales, np.float32), self.vector(np.full(len(scales), zero), np.int64)
            quant = dict(zip(("Scale", "ZeroPoint"), vectors, strict=True)) | {"QuantizedDimension": axis}
            fields["Quantization"] = table(b, "QuantizationParameters", quant)
        return table(b, "Tensor", fields)

    def operator(self, code, inputs, outputs, options, fields):
        b = self.b
        vectors = {"Inputs": self.vector(inputs, np.int32), "Outputs": self.vector(outputs, np.int32)}
        chosen = {}
        if options:
            fields = {k: self.vector(v, np.int32) if isinstance(v, list) else v for k, v in fields.items()}
            kind = getattr(tflite.BuiltinOptions, options)
            chosen = {"BuiltinOptionsType": kind, "BuiltinOptions": table(b, options, fields)}
        return table(b, "Operator", {"OpcodeIndex": code, **vectors, **chosen})


def samples(net, count, seed=1):
    """Inputs of the net in its own type."""
    rng, (shape, dtype, *_) = np.random.default_rng(seed), net.tensors[net.input]
    if dtype == "FLOAT32":
        return rng.normal(size=(count, *shape)).astype(np.float32)
    info = np.iinfo(NUMPY[dtype])
    return rng.integers(info.min, info.max + 1, (count, *shape)).astype(NUMPY[dtype])


class Reference:
    """LiteRT, as users run it, with every tensor readable after a run."""

    def __init__(self, path):
        from ai_edge_litert.interpreter import Interpreter

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.session = Interpreter(model_path=str(path), num_threads=1, experimental_preserve_all_tensors=True)
            self.session.allocate_tensors()
        self.input = self.session.get_input_details()[0]

    def run(self, x):
        self.session.set_tensor(self.input["index"], np.asarray(x, self.input["dtype"]).reshape(self.input["shape"]))
        self.session.invoke()

    def __getitem__(self, index):
        return self.session.get_tensor(index)

    def steps(self, index):
        """int64 of a quantized tensor: what was stored minus the zero point."""
        return self[index].astype(np.int64) - self.session.get_tensor_details()[index]["quantization"][1]


def fed(imported, x):
    """A raw input as the graph's own: uint8 becomes int8."""
    x = (x ^ np.uint8(0x80)).view(np.int8) if x.dtype == np.uint8 else x
    return {imported.graph.inputs[0].name: x.reshape(imported.graph.inputs[0].type.shape)}


def steps(imported, x):
    """int64: the integer features minus their zero point."""
    features = imported.graph.outputs[0]
    return interpret(imported.graph, fed(imported, x))[features].astype(np.int64) - features.type.quant.zero


def real(imported, x):
    """float64: the features of a float graph."""
    return interpret(imported.graph, fed(imported, x), "real")[imported.graph.outputs[0]]
