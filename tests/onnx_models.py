"""Small ONNX models made by hand, and their reference outputs by onnxruntime."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mcugrad.ir import interpret


class Net:
    """Collects nodes and float initializers; every method returns the name of a tensor."""

    def __init__(self, shape=(1, 3, 9, 9), seed=0, opset=17, name="x"):
        self.rng = np.random.default_rng(seed)
        self.shape, self.opset, self.input = shape, opset, name
        self.nodes, self.tensors = [], []

    def const(self, data, name=None):
        name = name or f"c{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.asarray(data), name))
        return name

    def normal(self, *shape, scale=0.3):
        return self.const(self.rng.normal(0, scale, shape).astype(np.float32))

    def op(self, kind, *inputs, outputs=1, name=None, **attributes):
        names = [f"t{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, name or f"{kind}_{len(self.nodes)}", **attributes))
        return names[0]

    def conv(self, x, inputs, outputs, kernel=3, bias=True, group=1, **attributes):
        kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
        weight = self.normal(outputs, inputs // group, *kernel)
        extra = [self.normal(outputs)] if bias else []
        return self.op("Conv", x, weight, *extra, group=group, **attributes)

    def norm(self, x, channels):
        stats = [self.normal(channels) for _ in range(3)]
        variance = self.const(self.rng.uniform(0.5, 2, channels).astype(np.float32))
        return self.op("BatchNormalization", x, *stats, variance)

    def relu6(self, x):
        return self.op("Clip", x, self.const(np.float32(0)), self.const(np.float32(6)))

    def gemm(self, x, inputs, outputs):
        return self.op("Gemm", x, self.normal(outputs, inputs), self.normal(outputs), transB=1)

    def model(self, *outputs):
        values = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs]
        first = helper.make_tensor_value_info(self.input, TensorProto.FLOAT, self.shape)
        graph = helper.make_graph(self.nodes, "net", [first], values, self.tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        known = {}
        if not any(n.domain for n in self.nodes):
            known = {v.name: v for v in onnx.shape_inference.infer_shapes(model).graph.output}
        for value in model.graph.output:
            shape = helper.make_tensor_type_proto(TensorProto.FLOAT, [1, None]).tensor_type.shape
            inferred = known[value.name].type.tensor_type if value.name in known else None
            value.type.tensor_type.shape.CopyFrom(inferred.shape if inferred and inferred.HasField("shape") else shape)
        return model

    def save(self, path, *outputs):
        path.write_bytes(self.model(*outputs).SerializeToString())
        return path


def residual_net(shape=(1, 3, 17, 13), seed=0):
    """Stem, two inverted residual blocks (batch norm, ReLU6), pool and classifier: (net, output)."""
    net = Net(shape, seed)
    x = net.relu6(net.norm(net.conv("x", 3, 8, bias=False, strides=[2, 2], pads=[1, 1, 1, 1]), 8))
    for stride in (1, 2):
        y = net.relu6(net.norm(net.conv(x, 8, 24, 1, bias=False), 24))
        y = net.conv(y, 24, 24, 3, bias=False, group=24, pads=[1, 1, 1, 1], strides=[stride, stride])
        y = net.norm(net.conv(net.relu6(net.norm(y, 24)), 24, 8, 1, bias=False), 8)
        x = net.op("Add", x, y) if stride == 1 else y
    x = net.op("Flatten", net.op("GlobalAveragePool", x))
    return net, net.gemm(x, 8, 5)


def reference(path, x):
    """onnxruntime's first output for x [N,C,H,W]."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def parse(path):
    return onnx.load_model_from_string(path.read_bytes())


def features(imported, x):
    """float64 NHWC features of x [1,C,H,W] or [1,F]."""
    (value,) = imported.graph.inputs
    fed = np.moveaxis(x, 1, -1) if x.ndim > 2 else x
    return interpret(imported.graph, {value.name: fed.reshape(value.type.shape)}, "real")[imported.graph.outputs[0]]


def logits(imported, x):
    f = features(imported, x)
    return f.reshape(-1) @ imported.classifier.weight + imported.classifier.bias
