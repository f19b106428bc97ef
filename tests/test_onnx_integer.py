"""Quantized ONNX against onnxruntime: the model's own numbers are kept, whichever way it was quantized."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from mcugrad.errors import McugradError
from mcugrad.importers import check, load
from mcugrad.ir import verify
from mcugrad.ops.depthwise import DepthwiseConv2d
from mcugrad.prepare import prepare
from mcugrad.preprocess import Input
from onnx_models import Net, residual_net
from onnx_quantized import Reference, integers, quantized

pytest.importorskip("onnxruntime", reason="onnxruntime quantizes and is the reference")

WAYS = {
    "QDQ": {},
    "QDQ int8": {"activations": "int8"},
    "QDQ one weight scale": {"per_channel": False},
    "QDQ asymmetric weights": {"weights": "uint8", "per_channel": False},
    "QDQ symmetric activations": {"activations": "int8", "ActivationSymmetric": True},
    "QDQ weights stored as float": {"AddQDQPairToWeight": True},
    "QOperator": {"form": "QOperator", "seven_bits": True},
    "QOperator int8": {"form": "QOperator", "activations": "int8"},
    "QOperator asymmetric weights": {"form": "QOperator", "weights": "uint8", "per_channel": False},
}


def samples(shape, count=16, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for _ in range(count)]


def plain_net(shape=(1, 3, 17, 13)):
    """Convolutions with ReLU and ReLU6, a pool, a flattened map and a matrix product, without batch norm: (net, output)."""
    net = Net(shape)
    x = net.op("Relu", net.conv("x", 3, 8, strides=[2, 2], pads=[1, 1, 1, 1]))
    y = net.relu6(net.conv(x, 8, 8, group=8, pads=[1, 1, 1, 1]))
    x = net.op("Relu", net.op("Add", net.conv(y, 8, 8, 1), x))
    x = net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = net.op("Reshape", x, net.const(np.array([1, -1])))
    return net, net.op("MatMul", net.op("Relu", net.gemm(x, 96, 12)), net.normal(12, 5))


def branching_net(shape=(1, 3, 12, 10)):
    """Hard swish, a gate, branches joined and upsampled: (net, output)."""
    net = Net(shape)
    x = net.op("HardSwish", net.conv("x", 3, 8, strides=[2, 2], pads=[1, 1, 1, 1]))
    gate = net.op("Relu", net.conv(net.op("GlobalAveragePool", x), 8, 4, 1))
    x = net.op("Mul", x, net.op("Sigmoid", net.conv(gate, 4, 8, 1)))
    x = net.op("Concat", net.op("Tanh", net.conv(x, 8, 4, 1)), net.op("LeakyRelu", net.conv(x, 8, 4, 1)), axis=1)
    x = net.op("Resize", x, "", net.const(np.float32([1, 1, 2, 2])), mode="nearest",
               coordinate_transformation_mode="asymmetric", nearest_mode="floor")  # fmt: skip
    return net, net.gemm(net.op("Flatten", net.op("GlobalAveragePool", net.op("Relu", net.conv(x, 8, 8)))), 8, 5)


def differences(path, xs):
    """|ours - onnxruntime's| for every feature of every sample, and the imported model."""
    imported, reference = load(path), Reference(path)
    verify(imported.graph)
    name, zero = reference.features()
    found = []
    for x in xs:
        want = reference.run(x)[name].astype(np.int64) - zero
        want = want.transpose(0, 2, 3, 1) if want.ndim == 4 else want
        found.append(np.abs(integers(imported, x).reshape(-1) - want.reshape(-1)))
    return np.concatenate(found), imported


@pytest.mark.parametrize("build", [plain_net, residual_net, branching_net])
@pytest.mark.parametrize("way", WAYS)
def test_integers_are_those_of_onnxruntime(tmp_path, way, build):
    from onnxruntime.quantization.shape_inference import quant_pre_process

    net, out = build()
    quant_pre_process(str(net.save(tmp_path / "float.onnx", out)), str(tmp_path / "folded.onnx"))
    xs = samples(net.shape)
    found, imported = differences(quantized(tmp_path / "folded.onnx", tmp_path / "m.onnx", xs, **WAYS[way]), xs)
    nine_bits = "asymmetric" in way  # a weight minus its zero point does not always fit int8
    assert (found <= 1).mean() >= (0.97 if nine_bits else 0.99)
    assert (found == 0).mean() >= (0.75 if nine_bits else 0.95)
    assert imported.report.ok and imported.classifier.weight.shape == ((12, 5) if build is plain_net else (8, 5))


def test_scales_and_zero_points_of_the_file_are_kept(tmp_path):
    net, out = plain_net()
    xs = samples(net.shape)
    imported = load(quantized(net.save(tmp_path / "f.onnx", out), tmp_path / "m.onnx", xs))
    reference = Reference(tmp_path / "m.onnx")
    weight = next(p for p in imported.graph.params if p.value.name == "conv0_weight")
    assert np.array_equal(weight.data.transpose(0, 3, 1, 2), reference.tensors["c0_quantized"])
    np.testing.assert_array_equal(np.float32(weight.value.type.quant.scale), reference.tensors["c0_scale"])
    assert np.float32(imported.graph.inputs[0].type.quant.scale[0]) == reference.tensors["x_scale"]
    assert imported.graph.inputs[0].type.quant.zero == int(reference.tensors["x_zero_point"]) - 128


def test_an_average_with_its_own_scale_is_rounded_once(tmp_path):
    net, out = residual_net()
    imported = load(quantized(net.save(tmp_path / "f.onnx", out), tmp_path / "m.onnx", samples(net.shape)))
    last = imported.graph.nodes[-1]
    assert isinstance(last.op, DepthwiseConv2d) and last.outputs[0].type.shape == (1, 1, 1, 8)


@pytest.mark.parametrize("zero", [128, 125])
def test_a_windowed_average_rounds_ties_as_onnxruntime(tmp_path, zero):
    """At a scale that is a power of two, so that halves are halves in floating point as well."""
    net = Pairs((1, 3, 8, 6))
    x = net.layer(net.grid("x", 0.02, 120), 3, 4, scale=0.125, zero=zero)
    x = net.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 1])
    x = net.grid(x, 0.125, zero)
    found, _ = differences(net.save(tmp_path / "m.onnx", net.gemm(net.op("Flatten", x), 80, 3)), samples(net.shape))
    assert found.max() == 0


def test_training_continues_from_its_own_classifier(tmp_path):
    net, out = plain_net()
    imported = load(quantized(net.save(tmp_path / "f.onnx", out), tmp_path / "m.onnx", samples(net.shape)))
    prepared = prepare(imported, keep_head=True)
    assert prepared.classes == 5
    assert prepared.preprocess.kind is Input.FLOAT


# --- written by hand ---


class Pairs(Net):
    """A net whose activations are uint8 from the first."""

    def grid(self, x, scale, zero, kind=np.uint8):
        """x through QuantizeLinear and DequantizeLinear."""
        grid = self.const(np.float32(scale)), self.const(kind(zero))
        return self.op("DequantizeLinear", self.op("QuantizeLinear", x, *grid), *grid)

    def layer(self, x, inputs, outputs, scale=0.1, zero=128):
        steps = self.const(self.rng.uniform(0.01, 0.02, outputs).astype(np.float32))
        weight = self.const(self.rng.integers(-127, 128, (outputs, inputs, 1, 1)).astype(np.int8))
        return self.grid(self.op("Conv", x, self.op("DequantizeLinear", weight, steps, axis=0)), scale, zero)


def stored(net, path, output, kind=TensorProto.UINT8):
    """The net with an input of 8-bit integers."""
    model = net.model(output)
    model.graph.input[0].type.tensor_type.elem_type = kind
    path.write_bytes(model.SerializeToString())
    return path


def test_an_input_of_integers_is_pixels_minus_128(tmp_path):
    net = Pairs((1, 3, 4, 4))
    x = net.op("DequantizeLinear", "x", net.const(np.float32(1 / 255)), net.const(np.uint8(0)))
    out = net.gemm(net.op("Flatten", net.layer(x, 3, 4)), 64, 3)
    imported = load(stored(net, tmp_path / "m.onnx", out))
    assert imported.preprocess.kind is Input.INT8
    assert imported.graph.inputs[0].type.quant.zero == -128


def test_a_second_grid_requantizes(tmp_path):
    net = Pairs((1, 3, 4, 4))
    x = net.grid(net.layer(net.grid("x", 0.02, 120), 3, 4), 0.2, 100)
    path = net.save(tmp_path / "m.onnx", net.gemm(net.op("Flatten", x), 64, 3))
    found, _ = differences(path, samples(net.shape))
    assert found.max() <= 1


def test_transposed_input_and_weights(tmp_path):
    net = Pairs((1, 4, 4, 3))
    x = net.op("Transpose", net.grid("x", 0.02, 120), perm=[0, 3, 1, 2])
    x = net.op("Flatten", net.layer(x, 3, 4))
    weight = net.const(net.rng.integers(-127, 128, (6, 64)).astype(np.int8))
    weight = net.op("DequantizeLinear", weight, net.const(np.full(6, 0.01, np.float32)), axis=0)
    x = net.grid(net.op("MatMul", x, net.op("Transpose", weight)), 0.3, 128)
    imported = load(net.save(tmp_path / "m.onnx", net.gemm(x, 6, 3)))
    assert imported.graph.inputs[0].type.shape == (1, 4, 4, 3)
    assert np.allclose(imported.graph.params[-2].value.type.quant.scale, 0.01)


def test_an_activation_that_is_not_quantized_is_named(tmp_path):
    net = Pairs((1, 3, 4, 4))
    x = net.conv(net.layer(net.grid("x", 0.02, 120), 3, 4), 4, 4, 1)
    x = net.layer(x, 4, 4)
    report = check(net.save(tmp_path / "m.onnx", net.gemm(net.op("Flatten", x), 64, 3)))
    (blocker,) = report.blockers
    assert blocker.node == "Conv_6" and "not quantized" in blocker.reason and "quantize every activation" in blocker.remedy


@pytest.mark.parametrize(
    ("kind", "scale", "message"),
    [
        (np.uint16, 0.1, "activations of type uint16"),
        (np.uint8, np.full(3, 0.1, np.float32), "3 scales"),
        (np.uint8, -0.1, "1 scales"),
    ],
)
def test_grids_that_cannot_be_kept_are_blockers(tmp_path, kind, scale, message):
    net = Pairs((1, 3, 4, 4), opset=21)
    zero = np.zeros(np.shape(scale), kind)
    x = net.op("QuantizeLinear", "x", net.const(np.asarray(scale, np.float32)), net.const(zero))
    x = net.op("DequantizeLinear", x, net.const(np.asarray(scale, np.float32)), net.const(zero))
    path = net.save(tmp_path / "m.onnx", net.layer(x, 3, 4))
    with pytest.raises(McugradError, match=message):
        load(path)


def test_weight_scales_along_the_inputs_are_a_blocker(tmp_path):
    net = Pairs((1, 3, 4, 4))
    weight = net.const(np.ones((4, 3, 1, 1), np.int8))
    weight = net.op("DequantizeLinear", weight, net.const(np.float32([0.1, 0.2, 0.3])), axis=1)
    x = net.grid(net.op("Conv", net.grid("x", 0.02, 120), weight), 0.1, 0)
    with pytest.raises(McugradError, match="differ within an output channel"):
        load(net.save(tmp_path / "m.onnx", x))


def test_dynamic_quantization_is_a_blocker_with_its_remedy(tmp_path):
    from onnxruntime.quantization import quantize_dynamic

    net, out = plain_net()
    quantize_dynamic(net.save(tmp_path / "f.onnx", out), tmp_path / "m.onnx")
    report = check(tmp_path / "m.onnx")
    assert not report.ok
    assert any(b.op == "DynamicQuantizeLinear" and "quantize_static" in b.remedy for b in report.blockers)


def test_absurd_grids_never_crash(tmp_path):
    net, out = plain_net()
    path = quantized(net.save(tmp_path / "f.onnx", out), tmp_path / "m.onnx", samples(net.shape, 4))
    model, rng = onnx.load(path), np.random.default_rng(0)
    for round_ in range(40):
        damaged = onnx.ModelProto()
        damaged.CopyFrom(model)
        tensor = damaged.graph.initializer[int(rng.integers(len(damaged.graph.initializer)))]
        data = numpy_helper.to_array(tensor)
        values = [np.zeros_like(data), np.full_like(data, 127), data.reshape(-1)[:0], np.stack([data, data])]
        tensor.CopyFrom(numpy_helper.from_array(values[round_ % 4], tensor.name))
        path.write_bytes(damaged.SerializeToString())
        try:
            load(path)
        except McugradError as error:
            assert str(error)
