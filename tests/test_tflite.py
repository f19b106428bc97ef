"""The TFLite importer against LiteRT: every supported operator, int8, uint8 and float."""

import numpy as np
import pytest

from mcugrad.importers import load
from mcugrad.ir import interpret, verify
from mcugrad.ops.clamp import Clamp
from mcugrad.ops.conv2d import Conv2d
from mcugrad.ops.depthwise import DepthwiseConv2d
from mcugrad.preprocess import Input
from mcugrad.training.head import attach_head
from tflite_models import NONE, RELU, RELU6, RELU_N1_TO_1, SAME, VALID, Net, Reference, fed, real, samples, steps

pytest.importorskip("ai_edge_litert", reason="LiteRT is the reference")

KINDS = ["INT8", "FLOAT32"]


def same(net, path, output, features=None, equal=0.99, count=4):
    """Imports the net and compares its features, held by tensor `features`, with LiteRT's; returns what was imported.

    equal: least share of integer elements that must be the same; the others may be off by one."""
    net.save(path / "model.tflite", output)
    imported, reference = load(path / "model.tflite"), Reference(path / "model.tflite")
    verify(imported.graph)
    index = output if features is None else features
    differences = []
    for x in samples(net, count):
        reference.run(x)
        if imported.graph.outputs[0].type.dtype == "f32":
            np.testing.assert_allclose(real(imported, x).reshape(-1), reference[index].reshape(-1), atol=2e-4, rtol=1e-4)
        else:
            differences.append(np.abs(steps(imported, x).reshape(-1) - reference.steps(index).reshape(-1)))
    if differences:
        found = np.concatenate(differences)
        assert found.max() <= 1
        assert (found == 0).mean() >= equal
    return imported


CONVS = {
    "3x3": {},
    "1x1": {"kernel": 1},
    "even kernel": {"kernel": (2, 4)},
    "stride": {"stride": (2, 3)},
    "stride 1 over an even map": {"stride": 2, "kernel": 2},
    "valid": {"padding": VALID, "kernel": (3, 5)},
    "dilation": {"kernel": (3, 2), "DilationHFactor": 2, "DilationWFactor": 3},
    "one scale": {"per_channel": False},
    "groups": {"groups": 3},
    "relu": {"act": RELU, "zero": -128},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", CONVS.values(), ids=CONVS)
def test_convolution(tmp_path, kind, options):
    net = Net(dtype=kind)
    imported = same(net, tmp_path, net.conv(net.input, 6, **options))
    first = imported.graph.nodes[0]
    assert isinstance(first.op, Conv2d)
    assert [v.name for v in first.inputs] == ["input", "conv0_weight", "conv0_bias"]
    assert first.outputs[0].origin.startswith("model.tflite:#0 t")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("channels", "multiplier", "op"), [(3, 1, DepthwiseConv2d), (1, 1, Conv2d), (1, 4, Conv2d), (3, 2, Conv2d)]
)
def test_depthwise(tmp_path, kind, channels, multiplier, op):
    net = Net((1, 9, 8, channels), kind)
    imported = same(net, tmp_path, net.conv(net.input, 0, multiplier=multiplier, stride=2))
    assert isinstance(imported.graph.nodes[0].op, op)


@pytest.mark.parametrize("kind", KINDS)
def test_grouped_convolution_of_single_channels_is_depthwise(tmp_path, kind):
    net = Net(dtype=kind)
    imported = same(net, tmp_path, net.conv(net.input, 3, groups=3))
    assert isinstance(imported.graph.nodes[0].op, DepthwiseConv2d)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [True, False])
def test_fully_connected_covers_the_map(tmp_path, kind, bias):
    net = Net(dtype=kind)
    hidden = net.dense(net.input, 10, RELU, zero=-128, bias=bias)
    imported = same(net, tmp_path, net.dense(hidden, 4), hidden)
    assert imported.graph.nodes[0].op.window.kernel == (9, 8)
    assert imported.classifier.weight.shape == (10, 4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", [True, False])
def test_fully_connected_over_rows_is_pointwise(tmp_path, kind, keep):
    net = Net(dtype=kind)
    imported = same(net, tmp_path, net.dense(net.input, 5, features=3, keep=keep))
    assert imported.graph.outputs[0].type.shape == (1, 1, 72, 5)
    assert imported.classifier is None


@pytest.mark.parametrize("kind", KINDS)
def test_residual_addition(tmp_path, kind):
    net = Net(dtype=kind)
    a, b = net.conv(net.input, 4), net.conv(net.input, 4, 1, zero=20)
    scale = None if kind == "FLOAT32" else net.step(a) * 1.1873
    imported = same(net, tmp_path, net.add(a, b, RELU, scale=scale, zero=-128), equal=0.97)
    assert "add" in [n.op.name for n in imported.graph.nodes]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pool", ["AVERAGE_POOL_2D", "MAX_POOL_2D"])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [((3, 3), 2, VALID), ((2, 3), 1, SAME), ((9, 8), 1, VALID)])
def test_pools(tmp_path, kind, pool, kernel, stride, padding):
    """LiteRT rounds a tie of an average away from zero, and so does the graph: an even number of elements has ties."""
    net = Net(dtype=kind)
    same(net, tmp_path, net.pool(pool, net.input, kernel, stride, padding), equal=1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("axes", [[1, 2], [2], [-2, -3]])
def test_mean_over_positions(tmp_path, kind, keep, axes):
    net = Net(dtype=kind)
    x = net.conv(net.input, 4)
    shape = [a % 4 for a in axes]
    y = net.op("MEAN", [x, net.const(axes)], net.shape(net.mean(x, shape, keep)), "ReducerOptions", KeepDims=keep)
    del net.nodes[-2]
    imported = same(net, tmp_path, y, equal=1)
    assert imported.graph.nodes[-1].op.name == "avg_pool"


def test_mean_with_a_scale_of_its_own_is_rounded_once(tmp_path):
    net = Net()
    x = net.conv(net.input, 4)
    imported = same(net, tmp_path, net.mean(x, [1, 2], scale=net.step(x) / 7, zero=-3), count=50)
    assert imported.graph.nodes[-1].op.window.kernel == (9, 8)


CLAMPS = {  # fused activation, zero point, output scale: whether a clamp of its own is needed
    "relu at the end of the range": (RELU, -128, 0.1, 0),
    "relu above the end of the range": (RELU, -90, 0.1, 1),
    "relu6 that the range cuts": (RELU6, -128, 6 / 255, 0),
    "relu6 within the range": (RELU6, -128, 0.1, 1),
    "relu6 inside the range": (RELU6, -100, 0.05, 1),
    "relu n1 to 1": (RELU_N1_TO_1, 3, 0.05, 1),
}


@pytest.mark.parametrize(("act", "zero", "scale", "clamps"), CLAMPS.values(), ids=CLAMPS)
@pytest.mark.parametrize("layer", ["conv", "add", "pool"])
def test_fused_clamps_are_exact(tmp_path, act, zero, scale, clamps, layer):
    net = Net(scale=scale, zero=zero) if layer == "pool" else Net()
    if layer == "pool":
        y = net.pool("MAX_POOL_2D", net.input, (2, 2), 1, act=act)
    elif layer == "add":
        y = net.add(
            net.conv(net.input, 4, scale=scale * 1.2743), net.conv(net.input, 4, scale=scale), act, scale=scale, zero=zero
        )
    else:
        y = net.conv(net.input, 4, act=act, zero=zero, scale=scale)
    imported = same(net, tmp_path, y, equal=0.97 if layer == "add" else 1)
    found = sum(isinstance(n.op, Clamp) for n in imported.graph.nodes)
    assert found == clamps if layer != "pool" else found <= 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("op", ["RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1"])
def test_activations_as_operators(tmp_path, kind, op):
    net = Net(dtype=kind)
    y = net.op(op, [net.conv(net.input, 4, zero=-20, scale=0.1)], (1, 9, 8, 4), scale=0.09, zero=-30)
    same(net, tmp_path, y, equal=0.97)


@pytest.mark.parametrize("kind", KINDS)
def test_pad_joins_the_convolution(tmp_path, kind):
    net = Net(dtype=kind)
    x = net.pad(net.input, (0, 0), (1, 0), (2, 1), (0, 0))
    imported = same(net, tmp_path, net.conv(x, 4, padding=VALID, stride=2))
    assert imported.graph.nodes[0].op.window.padding == (1, 2, 0, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_pad_before_anything_else_is_applied(tmp_path, kind):
    net = Net(dtype=kind)
    x = net.pad(net.input, (0, 0), (1, 0), (2, 1), (0, 0))
    imported = same(net, tmp_path, net.pool("MAX_POOL_2D", x, (3, 3), 2), equal=1)
    assert [n.outputs[0].name for n in imported.graph.nodes] == ["pad", "pool"]


@pytest.mark.parametrize("kind", KINDS)
def test_pad_of_channels(tmp_path, kind):
    net = Net(dtype=kind)
    a = net.pad(net.conv(net.input, 4), (0, 0), (0, 0), (0, 0), (1, 2))
    b = net.conv(net.input, 7, 1)
    scale = None if kind == "FLOAT32" else net.step(a)
    imported = same(net, tmp_path, net.add(a, b, scale=scale, zero=1), equal=0.97)
    assert "pad" in [n.op.name for n in imported.graph.nodes]


def test_quantize_inside_the_model_changes_the_scale(tmp_path):
    net = Net()
    x = net.op("QUANTIZE", [net.conv(net.input, 4)], (1, 9, 8, 4), "QuantizeOptions", scale=1.7, zero=11)
    imported = same(net, tmp_path, net.pool("MAX_POOL_2D", x, (2, 2), 1), equal=0.9)
    assert [n.op.name for n in imported.graph.nodes] == ["conv2d", "clamp", "max_pool"]


def test_unsigned_ends_of_a_signed_model(tmp_path):
    net = Net(dtype="UINT8", scale=0.05, zero=3)
    net.dtype = "INT8"
    x = net.op("QUANTIZE", [net.input], (1, 9, 8, 3), "QuantizeOptions", dtype="INT8", scale=0.05, zero=3)
    hidden = net.conv(x, 4)
    y = net.op("QUANTIZE", [net.dense(hidden, 5)], (1, 5), "QuantizeOptions", dtype="UINT8", scale=0.3, zero=7)
    imported = same(net, tmp_path, y, hidden)
    assert [n.op.name for n in imported.graph.nodes] == ["conv2d"]


def test_float_ends_of_an_integer_model(tmp_path):
    net = Net(dtype="FLOAT32")
    net.dtype = "INT8"
    x = net.op("QUANTIZE", [net.input], (1, 9, 8, 3), "QuantizeOptions", dtype="INT8", scale=0.05, zero=3)
    y = net.op("DEQUANTIZE", [net.dense(net.conv(x, 4), 5)], (1, 5), dtype="FLOAT32")
    imported = load(net.save(tmp_path / "m.tflite", y))
    assert str(imported.graph.inputs[0].type) == "s8[1,9,8,3] q(0.05,3)"
    assert imported.classifier.weight.shape == (9 * 8 * 4, 5)


VIEWS = {
    "reshape": lambda n, x: n.reshape(x, [1, -1]),
    "two reshapes": lambda n, x: n.reshape(n.reshape(x, [1, 8, 36]), [1, 288]),
    "new shape in the options": lambda n, x: n.op("RESHAPE", [x], (1, 288), "ReshapeOptions", NewShape=[1, 288]),
    "squeeze": lambda n, x: n.op("SQUEEZE", [n.reshape(x, [1, 1, 288, 1])], (1, 288), "SqueezeOptions", SqueezeDims=[1, 3]),
    "expand": lambda n, x: n.op("EXPAND_DIMS", [n.reshape(x, [1, 288]), n.const([1])], (1, 1, 288)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_views_cost_nothing(tmp_path, kind, view):
    net = Net(dtype=kind)
    hidden = net.conv(net.input, 4)
    imported = same(net, tmp_path, net.softmax(net.dense(view(net, hidden), 5)), hidden)
    assert [n.op.name for n in imported.graph.nodes] == ["conv2d"]


def test_a_shape_computed_at_run_time(tmp_path):
    net = Net()
    hidden = net.conv(net.input, 4)
    size = net.op("SHAPE", [hidden], (4,), "ShapeOptions", dtype="INT32", OutType=2)
    first = net.op("STRIDED_SLICE", [size, net.const([0]), net.const([1]), net.const([1])], (), "StridedSliceOptions",
                   dtype="INT32", ShrinkAxisMask=1)  # fmt: skip
    net.tensors[first] = ((), "INT32", None, 0, None, 0)
    target = net.op("PACK", [first, net.const(288)], (2,), "PackOptions", dtype="INT32", ValuesCount=2)
    y = net.op("RESHAPE", [hidden, target], (1, 288), scale=net.step(hidden), zero=-5)
    same(net, tmp_path, net.dense(y, 3), hidden)


def test_an_input_that_is_only_reshaped_into_a_map_is_that_map(tmp_path):
    net = Net((1, 96))
    imported = same(net, tmp_path, net.conv(net.reshape(net.input, [1, 8, 4, 3]), 4))
    assert [n.op.name for n in imported.graph.nodes] == ["conv2d"]
    assert imported.graph.inputs[0].type.shape == (1, 8, 4, 3)


def test_half_precision_and_integer_weights_of_float_models(tmp_path):
    net = Net(dtype="FLOAT32")
    half = net.const(net.rng.normal(size=(4, 3, 3, 3)), "FLOAT16")
    weight = net.op("DEQUANTIZE", [half], (4, 3, 3, 3), dtype="FLOAT32")
    fields = {"Padding": SAME, "StrideH": 1, "StrideW": 1, "DilationHFactor": 1, "DilationWFactor": 1}
    x = net.op("CONV_2D", [net.input, weight, net.const(np.zeros(4), "FLOAT32")], (1, 9, 8, 4), "Conv2DOptions", **fields)
    same(net, tmp_path, x)
    integers = net.const(net.rng.integers(-127, 128, (2, 288)), "INT8", [0.01])
    y = net.op("FULLY_CONNECTED", [x, integers], (1, 2), "FullyConnectedOptions")
    imported = load(net.save(tmp_path / "m.tflite", y))
    assert np.abs(imported.classifier.weight).max() == pytest.approx(1.27)
    assert "weights stored as integers were dequantized" in imported.report.notes[-1]


def test_unsigned_model(tmp_path):
    """Asymmetric uint8 weights lose up to a bit as symmetric int8; the report says how much."""
    net = Net(dtype="UINT8")
    x = net.conv(net.input, 5, act=RELU, zero=-128)
    net.save(tmp_path / "m.tflite", x)
    imported, reference = load(tmp_path / "m.tflite"), Reference(tmp_path / "m.tflite")
    assert imported.graph.inputs[0].type.quant.zero == 3
    found = []
    for sample in samples(net, 8):
        reference.run(sample)
        found.append(np.abs(steps(imported, sample) - reference.steps(x)))
    assert np.concatenate(found).max() <= 3
    assert "of 5 output channels do not fit symmetric int8" in imported.report.notes[0]


def test_unsigned_weights_within_127_of_their_zero_point_are_kept(tmp_path):
    net = Net(dtype="UINT8")
    y = net.conv(net.input, 5)
    weight = net.nodes[0][1][1]
    shape, dtype, scale, zero, data, axis = net.tensors[weight]
    net.tensors[weight] = (shape, dtype, scale, zero, np.clip(data, 0, 244).astype(np.uint8), axis)
    imported = same(net, tmp_path, y)
    assert imported.report.notes == ()


def test_dead_channels_keep_their_bias(tmp_path):
    net = Net()
    y = net.conv(net.input, 4, scale=0.2)
    weight, bias = net.nodes[0][1][1:]
    dead = np.array([0.01, 2e-9, 0.01, 3e-10])
    stored = np.array([5, 2_000_000_000, -7, -1_900_000_000], np.int32)
    net.tensors[weight] = (*net.tensors[weight][:2], dead, 0, net.tensors[weight][4], 0)
    net.tensors[bias] = ((4,), "INT32", dead * 0.05, 0, stored, 0)
    imported = same(net, tmp_path, y)
    assert min(imported.graph.nodes[0].inputs[1].type.quant.scale) == pytest.approx(0.01)
    assert "2 dead channels repaired" in imported.report.notes[0]


def logits(imported, x):
    """Logits of the model's own head in int16, in real units."""
    own = imported.classifier
    graph = attach_head(imported.graph, len(own.bias), own.weight, own.bias)
    scale = imported.graph.outputs[0].type.quant.scale[0] / 4096
    return interpret(graph, fed(imported, x))[graph.outputs[0]].reshape(-1) * scale


def test_the_own_head_gives_the_same_logits(tmp_path):
    net = Net()
    pooled = net.mean(net.conv(net.input, 16, act=RELU, zero=-128), [1, 2])
    y = net.dense(pooled, 5)
    net.save(tmp_path / "m.tflite", net.softmax(y))
    imported, reference = load(tmp_path / "m.tflite"), Reference(tmp_path / "m.tflite")
    assert imported.report.layers[-1].kind == "fully connected"
    for x in samples(net, 8):
        reference.run(x)
        np.testing.assert_allclose(logits(imported, x), reference.steps(y)[0] * net.step(y), atol=1.6 * net.step(y))


def test_a_sigmoid_with_one_output_becomes_two_classes(tmp_path):
    net = Net()
    y = net.dense(net.conv(net.input, 4), 1)
    imported = load(net.save(tmp_path / "m.tflite", net.op("LOGISTIC", [y], (1, 1), scale=1 / 256, zero=-128)))
    assert imported.classifier.weight.shape == (288, 2)
    assert not imported.classifier.weight[:, 0].any() and imported.classifier.bias[0] == 0


def test_a_last_layer_with_an_activation_is_no_classifier(tmp_path):
    net = Net()
    imported = same(net, tmp_path, net.dense(net.conv(net.input, 4), 6, RELU, zero=-128))
    assert imported.classifier is None and imported.graph.outputs[0].type.shape == (1, 1, 1, 6)


IMAGES = [((1, 9, 8, 3), -128, True), ((1, 9, 8, 3), 0, True), ((1, 9, 8, 1), 83, False), ((1, 60), -128, False)]


@pytest.mark.parametrize(("shape", "zero", "image"), IMAGES)
def test_preprocessing_of_images(tmp_path, shape, zero, image):
    net = Net(shape, zero=zero)
    found = load(net.save(tmp_path / "m.tflite", net.dense(net.input, 4, NONE))).preprocess
    assert (found is not None and found.kind is Input.INT8) == image


def test_an_image_of_0_to_255_is_read_as_0_to_1_with_the_same_integers(tmp_path):
    net = Net(scale=1.0, zero=-128)
    a, b = net.conv(net.input, 4), net.conv(net.input, 4, 1)
    imported = same(net, tmp_path, net.add(a, b, scale=net.step(a) * 1.1873), equal=0.97)
    assert imported.graph.inputs[0].type.quant.scale == (1 / 256,)
    for node in imported.graph.nodes[:2]:
        product = np.array(node.inputs[1].type.quant.scale) / 256
        stored = net.tensors[net.nodes[imported.graph.nodes.index(node)][1][1]][2]
        np.testing.assert_allclose(product, stored.astype(np.float32), rtol=2e-7)


def test_a_layer_multiplies_by_the_float32_of_litert(tmp_path):
    net = Net(dtype="INT8")
    imported = same(net, tmp_path, net.conv(net.input, 4))
    (layer,) = imported.graph.nodes
    x, weight, y = (v.type.quant for v in (layer.inputs[0], layer.inputs[1], layer.outputs[0]))
    for scale in weight.scale:
        product = x.scale[0] * scale / y.scale[0]
        assert abs(product - float(np.float32(product))) < 1e-14 * product
