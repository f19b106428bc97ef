"""ONNX operators beyond convolutions against onnxruntime: element by element, moved elements, several branches."""

import numpy as np
import pytest

from mcugrad.importers import load
from mcugrad.ir import interpret
from mcugrad.preprocess import quantize
from mcugrad.quant.assign import assign
from mcugrad.quant.observe import observe
from onnx_models import Net, reference

pytest.importorskip("onnxruntime", reason="onnxruntime is the reference")


def ints(net, *values):
    return net.const(np.array(values, np.int64))


def sliced(net, x, starts, ends, axes, steps=None):
    return net.op("Slice", x, *(ints(net, *v) for v in (starts, ends, axes, steps or [1] * len(axes))))


def gate(net, x, channels):
    """Squeeze and excite as MobileNetV3 has it."""
    pooled = net.op("GlobalAveragePool", x)
    gate = net.conv(net.op("Relu", net.conv(pooled, channels, 2, 1)), 2, channels, 1)
    return net.op("Mul", x, net.op("HardSigmoid", gate, alpha=1 / 6, beta=0.5))


def shuffled(net, x):
    """[1,4,7,7] through a transposition of height and channels."""
    return net.op("Transpose", x, perm=[0, 2, 1, 3])


UNARY = {
    **{op: {} for op in ("Sigmoid", "Tanh", "HardSwish", "HardSigmoid", "LeakyRelu", "Elu", "Selu", "Softplus", "Abs", "Exp")},
    "LeakyRelu steep": {"alpha": 0.3},
}
NETS = {
    **{k: lambda n, k=k, a=a: n.conv(n.op(k.split()[0], n.conv("x", 3, 4), **a), 4, 3) for k, a in UNARY.items()},
    "prelu": lambda n: n.op("PRelu", n.conv("x", 3, 4), n.const(np.float32([0.25]))),
    "prelu per channel": lambda n: n.op("PRelu", n.conv("x", 3, 4), n.normal(4, 1, 1)),
    "sub": lambda n: n.op("Sub", n.conv("x", 3, 4), n.conv("x", 3, 4)),
    "mul": lambda n: n.op("Mul", n.conv("x", 3, 4), n.conv("x", 3, 4)),
    "constant minus activation": lambda n: n.op("Sub", n.normal(1, 4, 7, 7), n.conv("x", 3, 4)),
    "times a map": lambda n: n.op("Mul", n.normal(1, 4, 7, 7), n.conv("x", 3, 4)),
    "plus a row of the map": lambda n: n.op("Add", n.conv("x", 3, 4), n.normal(7)),
    "plus a column for each channel": lambda n: n.op("Add", n.normal(1, 4, 7, 1), n.conv("x", 3, 4)),
    "times a map for all channels": lambda n: n.op("Mul", n.conv("x", 3, 4), n.normal(1, 1, 7, 7)),
    "gate": lambda n: gate(n, n.conv("x", 3, 4), 4),
    "gate first": lambda n: n.op("Mul", n.op("Sigmoid", n.op("GlobalAveragePool", c := n.conv("x", 3, 4))), c),
    "one gate for all channels": lambda n: n.op("Mul", n.conv("x", 3, 4), n.op("Sigmoid", n.conv("x", 3, 1))),
    "sum with a mean": lambda n: n.op("Add", c := n.conv("x", 3, 4), n.op("GlobalAveragePool", c)),
    "swish": lambda n: n.op("Mul", c := n.conv("x", 3, 4), n.op("Sigmoid", c)),
    "concat": lambda n: n.op("Concat", n.conv("x", 3, 4), n.op("Relu", n.conv("x", 3, 2)), axis=1),
    "concat rows": lambda n: n.op("Concat", n.conv("x", 3, 4), n.conv("x", 3, 4), axis=-2),
    "concat with a constant": lambda n: n.op("Concat", n.normal(1, 2, 7, 7), n.conv("x", 3, 4), axis=1),
    "concat of vectors": lambda n: n.gemm(
        n.op("Concat", n.op("Flatten", c := n.conv("x", 3, 4)), n.op("Flatten", n.op("GlobalMaxPool", c)), axis=1), 200, 3
    ),
    "slice channels": lambda n: sliced(n, n.conv("x", 3, 6), [1], [5], [1]),
    "slice rows and columns": lambda n: sliced(n, n.conv("x", 3, 4), [1, -5], [6, 2**31], [2, 3], [1, 2]),
    "slice of a vector": lambda n: n.gemm(sliced(n, n.gemm(n.op("Flatten", "x"), 243, 8), [2], [7], [1]), 5, 3),
    "split": lambda n: n.op("Sub", s := n.op("Split", n.conv("x", 3, 6), ints(n, 3, 3), outputs=2, axis=1), s[:-1] + "1"),
    "gather": lambda n: n.op("Gather", n.conv("x", 3, 6), ints(n, 2), axis=2),
    "pad with a number": lambda n: n.op("Pad", n.conv("x", 3, 4), ints(n, 0, 1, 2, 0, 0, 0, 1, 3), n.const(np.float32(0.5))),
    "pad before a pool": lambda n: n.op(
        "MaxPool", n.op("Pad", n.op("Relu", n.conv("x", 3, 4)), ints(n, 0, 0, 1, 1, 0, 0, 1, 1)), kernel_shape=[3, 3]
    ),
    "pad along an axis": lambda n: n.op(
        "Pad", n.conv("x", 3, 4), ints(n, 2, 1), n.const(np.float32(0)), ints(n, -1)
    ),
    "resize": lambda n: n.op("Resize", n.conv("x", 3, 4), "", n.const(np.float32([1, 1, 2, 3])), mode="nearest",
                             coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
    "resize as by default": lambda n: n.op("Resize", n.conv("x", 3, 4), "", "", ints(n, 1, 4, 14, 14), mode="nearest"),
    "transposed map": lambda n: n.conv(shuffled(n, n.conv("x", 3, 4)), 7, 2),
    "softmax over channels": lambda n: n.conv(n.op("Softmax", n.conv("x", 3, 4), axis=1), 4, 2),
    "mean over rows": lambda n: n.op("ReduceMean", n.conv("x", 3, 4), axes=[2], keepdims=1),
    "mean over columns": lambda n: n.op("ReduceMean", n.conv("x", 3, 4), axes=[-1], keepdims=0),
    "rows times a matrix": lambda n: n.op("MatMul", n.op("Transpose", n.op(
        "Reshape", n.conv("x", 3, 4), ints(n, 1, 4, 49)), perm=[0, 2, 1]), n.normal(4, 5)),
    "autoencoder": lambda n: n.op("Sigmoid", n.conv("x", 3, 3, pads=[1, 1, 1, 1])),
}  # fmt: skip


@pytest.mark.parametrize("build", NETS.values(), ids=NETS)
def test_operator_gives_what_onnxruntime_gives(tmp_path, build):
    net = Net(opset=18 if build is NETS["pad along an axis"] or build is NETS["split"] else 14)
    path = net.save(tmp_path / "m.onnx", build(net))
    imported = load(path)
    (value,), (out,) = imported.graph.inputs, imported.graph.outputs
    xs = [net.rng.normal(size=net.shape).astype(np.float32) for _ in range(8)]
    exact = []
    for x in xs:
        want = reference(path, x)
        got = interpret(imported.graph, {value.name: x.transpose(0, 2, 3, 1)}, "real")[out]
        if imported.classifier is not None:
            got = got.reshape(-1) @ imported.classifier.weight + imported.classifier.bias
        elif want.ndim == 4:
            got = got.transpose(0, 3, 1, 2)
        elif want.ndim == 3 and build is not NETS["rows times a matrix"]:
            got = np.squeeze(got.transpose(0, 3, 1, 2), {"gather": 2}.get(_name(build), 3))
        np.testing.assert_allclose(got.reshape(want.shape), want, atol=1e-4, rtol=1e-4)
        exact.append(interpret(imported.graph, {value.name: x.transpose(0, 2, 3, 1)}, "real")[out])
    _quantized_stays_close(imported.graph, xs, exact)


def _name(build):
    return next(name for name, b in NETS.items() if b is build)


def _quantized_stays_close(graph, xs, exact):
    """The int8 graph gives the float result with at least 25 dB."""
    samples = [x[0].transpose(1, 2, 0) for x in xs]
    ranges = observe(graph, samples)
    integer = assign(graph, ranges)
    (value,), (out,) = integer.inputs, integer.outputs
    quant, grid = value.type.quant, out.type.quant
    signal = noise = 0.0
    for sample, want in zip(samples, exact, strict=True):
        q = quantize(sample[None], quant.scale[0], quant.zero)
        got = (interpret(integer, {value.name: q})[out].astype(np.float64) - grid.zero) * grid.scale[0]
        signal, noise = signal + (want**2).sum(), noise + ((got - want) ** 2).sum()
    assert 10 * np.log10(signal / noise) > 25


def test_one_output_with_a_sigmoid_becomes_two_classes(tmp_path):
    net = Net()
    pooled = net.op("Flatten", net.op("GlobalAveragePool", net.conv("x", 3, 4)))
    path = net.save(tmp_path / "m.onnx", net.op("Sigmoid", net.gemm(pooled, 4, 1)))
    imported = load(path)
    x = net.rng.normal(size=net.shape).astype(np.float32)
    f = interpret(imported.graph, {"input": x.transpose(0, 2, 3, 1)}, "real")[imported.graph.outputs[0]].reshape(-1)
    logits = f @ imported.classifier.weight + imported.classifier.bias
    p = np.exp(logits) / np.exp(logits).sum()
    assert p[1] == pytest.approx(float(reference(path, x).reshape(())), abs=1e-5)
    assert any("two classes" in note for note in imported.report.notes)
