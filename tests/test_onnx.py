"""The ONNX importer against onnxruntime: every supported operator, small nets, exports of PyTorch."""

import json
import math

import numpy as np
import pytest
from onnx import TensorProto

from mcugrad.errors import McugradError
from mcugrad.importers import load
from mcugrad.ir import interpret, verify
from mcugrad.ops.conv2d import Conv2d
from mcugrad.ops.depthwise import DepthwiseConv2d
from mcugrad.preprocess import Input, Preprocess
from onnx_models import Net, features, logits, reference, residual_net

pytest.importorskip("onnxruntime", reason="onnxruntime is the reference")


def same(net, path, *outputs, samples=2):
    """Imports the net and compares features or logits with onnxruntime; returns what was imported."""
    net.save(path / "model.onnx", *outputs)
    imported = load(path / "model.onnx")
    verify(imported.graph)
    for _ in range(samples):
        x = net.rng.normal(size=net.shape).astype(np.float32)
        want = reference(path / "model.onnx", x)
        if imported.classifier is not None:
            got = logits(imported, x).reshape(want.shape)
        else:
            got = features(imported, x)
            got = (got.transpose(0, 3, 1, 2) if want.ndim == 4 else got).reshape(want.shape)
        np.testing.assert_allclose(got, want, atol=1e-4, rtol=1e-4)
    return imported


CONVS = {
    "3x3": {"kernel": 3},
    "no bias": {"kernel": 3, "bias": False},
    "1x1": {"kernel": 1},
    "even kernel": {"kernel": (2, 4)},
    "stride": {"kernel": 3, "strides": [2, 3]},
    "asymmetric pads": {"kernel": (3, 5), "pads": [0, 1, 2, 3]},
    "same upper": {"kernel": 4, "auto_pad": "SAME_UPPER", "strides": [2, 2]},
    "same lower": {"kernel": 4, "auto_pad": "SAME_LOWER", "strides": [2, 1]},
    "valid": {"kernel": 3, "auto_pad": "VALID"},
    "dilation": {"kernel": (3, 2), "dilations": [2, 3], "pads": [1, 2, 0, 1]},
}


@pytest.mark.parametrize("options", CONVS.values(), ids=CONVS)
def test_convolution(tmp_path, options):
    net = Net((1, 4, 11, 8))
    same(net, tmp_path, net.conv("x", 4, 6, **options))


@pytest.mark.parametrize(("group", "outputs", "op"), [(2, 6, Conv2d), (4, 8, Conv2d), (4, 4, DepthwiseConv2d)])
def test_groups_and_depthwise(tmp_path, group, outputs, op):
    net = Net((1, 4, 7, 9))
    imported = same(net, tmp_path, net.conv("x", 4, outputs, group=group, pads=[1, 0, 1, 2], strides=[2, 1]))
    assert isinstance(imported.graph.nodes[0].op, op)
    assert imported.graph.params[0].value.name == "conv0_weight"
    assert imported.graph.nodes[0].outputs[0].origin == "model.onnx:Conv_0"


def test_batch_norm_and_constants_are_folded(tmp_path):
    net = Net((1, 3, 6, 5))
    x = net.norm(net.conv("x", 3, 4), 4)
    for kind, shape in (("Mul", (4, 1, 1)), ("Add", (1, 4, 1, 1)), ("Sub", ()), ("Div", (4, 1, 1))):
        x = net.op(kind, x, net.const(net.rng.uniform(0.5, 2, shape).astype(np.float32)))
    x = net.op("Sub", net.const(np.float32(1)), x)
    imported = same(net, tmp_path, net.op("Relu", net.norm(x, 4)))
    assert [n.op.name for n in imported.graph.nodes] == ["conv2d", "clamp"]


def test_clamps(tmp_path):
    net = Net((1, 3, 6, 5))
    x = net.op("Relu", net.conv("x", 3, 4))
    x = net.op("Clip", net.conv(x, 4, 4), net.const(np.float32(-0.5)))
    x = net.op("Clip", net.conv(x, 4, 4, 1), "", net.const(np.float32(0.25)))
    imported = same(net, tmp_path, net.relu6(net.conv(x, 4, 4, 1)))
    clamps = [(n.op.low, n.op.high) for n in imported.graph.nodes if n.op.name == "clamp"]
    assert clamps == [(0, math.inf), (-0.5, math.inf), (-math.inf, 0.25), (0, 6)]


def test_clip_limits_as_attributes(tmp_path):
    net = Net((1, 3, 6, 5), opset=10)
    same(net, tmp_path, net.op("Clip", net.conv("x", 3, 4), min=0.0, max=0.5))


POOLS = {
    "average": ("AveragePool", {"kernel_shape": [2, 3], "strides": [2, 2]}),
    "average, padding not counted": ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    "average, ceil": ("AveragePool", {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    "max": ("MaxPool", {"kernel_shape": [3, 2], "strides": [1, 2]}),
    "max, pads": ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 0, 1, 1]}),
    "max, ceil": ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    "max, ceil, nothing in the last window": (
        "MaxPool",
        {"kernel_shape": [2, 2], "strides": [3, 3], "pads": [0, 0, 1, 1], "ceil_mode": 1},
    ),
    "max, same": ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    "global average": ("GlobalAveragePool", {}),
    "global max": ("GlobalMaxPool", {}),
}


@pytest.mark.parametrize(("kind", "options"), POOLS.values(), ids=POOLS)
@pytest.mark.parametrize("size", [(8, 7), (9, 10)])
def test_pools(tmp_path, kind, options, size):
    net = Net((1, 3, *size))
    same(net, tmp_path, net.op(kind, "x", **options))


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("opset", [13, 18])
def test_mean_over_positions(tmp_path, keepdims, opset):
    net = Net((1, 3, 6, 5), opset=opset)
    x = net.conv("x", 3, 4)
    axes = {"axes": [-1, 2]} if opset < 18 else {}
    extra = [net.const(np.array([2, 3]))] if opset >= 18 else []
    x = net.op("ReduceMean", x, *extra, keepdims=keepdims, **axes)
    imported = same(net, tmp_path, net.gemm(x if keepdims == 0 else net.op("Flatten", x), 4, 3))
    assert imported.graph.nodes[-1].op.name == "avg_pool"


FLATTENS = {
    "flatten": lambda net, x: net.op("Flatten", x),
    "reshape": lambda net, x: net.op("Reshape", x, net.const(np.array([0, -1]))),
    "two reshapes": lambda net, x: net.op("Flatten", net.op("Reshape", x, net.const(np.array([1, 2, -1, 5])))),
    "transposed": lambda net, x: net.op("Flatten", net.op("Transpose", x, perm=[0, 2, 3, 1])),
    "unsqueezed": lambda net, x: net.op("Flatten", net.op("Unsqueeze", x, net.const(np.array([1])))),
}


@pytest.mark.parametrize("flatten", FLATTENS.values(), ids=FLATTENS)
def test_fully_connected_on_a_map_covers_it(tmp_path, flatten):
    net = Net((1, 3, 6, 5))
    imported = same(net, tmp_path, net.gemm(flatten(net, net.op("Relu", net.conv("x", 3, 4, pads=[1, 1, 1, 1]))), 120, 7))
    assert imported.graph.outputs[0].type.shape == (1, 6, 5, 4)
    assert imported.classifier.weight.shape == (120, 7)
    assert imported.classifier.origin.startswith("model.onnx:Gemm")


def test_shape_chain_around_a_flatten(tmp_path):
    """As torch.onnx writes x.view(x.size(0), -1)."""
    net = Net((1, 3, 6, 5))
    x = net.conv("x", 3, 4)
    size = net.op("Gather", net.op("Shape", x), net.const(np.int64(0)))
    parts = [net.op("Unsqueeze", s, net.const(np.array([0]))) for s in (size, net.const(np.int64(-1)))]
    x = net.op("Reshape", x, net.op("Concat", *parts, axis=0))
    same(net, tmp_path, net.gemm(x, 4 * 4 * 3, 2))


def test_multilayer_perceptron_of_matmul_and_add(tmp_path):
    net = Net((1, 10))
    x = net.op("Relu", net.op("Add", net.op("MatMul", "x", net.normal(10, 6)), net.normal(6)))
    x = net.op("Add", net.normal(3), net.op("MatMul", x, net.normal(6, 3)))
    imported = same(net, tmp_path, net.op("Softmax", x, axis=1), samples=0)
    assert [n.op.name for n in imported.graph.nodes] == ["conv2d", "clamp"]
    assert "Softmax at the end" in imported.report.notes[0]
    same(net, tmp_path, x)


def test_gemm_alpha_beta_and_untransposed(tmp_path):
    net = Net((1, 10))
    x = net.op("Gemm", "x", net.normal(10, 6), net.normal(1, 6), alpha=0.5, beta=2.0)
    same(net, tmp_path, net.op("Gemm", x, net.normal(6, 3)))


def test_image_into_perceptron(tmp_path):
    net = Net((1, 2, 4, 5))
    same(net, tmp_path, net.gemm(net.op("Relu", net.gemm(net.op("Flatten", "x"), 40, 6)), 6, 3))


def test_channels_last_input(tmp_path):
    """As TensorFlow's exporters write it."""
    net = Net((1, 6, 5, 3))
    x = net.conv(net.op("Transpose", "x", perm=[0, 3, 1, 2]), 3, 4)
    net.save(tmp_path / "m.onnx", net.op("Transpose", net.op("Relu", x), perm=[0, 2, 3, 1]))
    imported = load(tmp_path / "m.onnx")
    x = net.rng.normal(size=net.shape).astype(np.float32)
    got = interpret(imported.graph, {"input": x}, "real")[imported.graph.outputs[0]]
    np.testing.assert_allclose(got, reference(tmp_path / "m.onnx", x), atol=1e-5)


def test_pad_joins_the_convolution(tmp_path):
    net = Net((1, 3, 6, 5))
    x = net.op("Pad", "x", net.const(np.array([0, 0, 0, 1, 0, 0, 2, 1])))
    imported = same(net, tmp_path, net.conv(x, 3, 4, pads=[1, 0, 0, 0], strides=[2, 2]))
    assert imported.graph.nodes[0].op.window.padding == (1, 1, 2, 1)


@pytest.mark.parametrize("size", [(17, 13), (16, 16), (5, 31)])
def test_residual_depthwise_net(tmp_path, size):
    net, out = residual_net((1, 3, *size), seed=sum(size))
    imported = same(net, tmp_path, out)
    names = [p.value.name for p in imported.graph.params]
    assert names == [f"conv{i}_{part}" for i in range(7) for part in ("weight", "bias")]
    assert imported.report.params == 3 * 8 * 9 + 8 + 2 * (8 * 24 + 24 + 9 * 24 + 24 + 24 * 8 + 8) + 8 * 5 + 5
    assert imported.report.layers[-1].kind == "fully connected"


def test_convolution_as_classifier_and_model_without_one(tmp_path):
    net = Net((1, 3, 6, 5))
    pooled = net.op("GlobalAveragePool", net.conv("x", 3, 4))
    imported = same(net, tmp_path, net.op("Flatten", net.conv(pooled, 4, 9, 1)))
    assert imported.classifier.weight.shape == (4, 9)
    net = Net((1, 3, 6, 5))
    imported = same(net, tmp_path, net.op("GlobalAveragePool", net.op("Relu", net.conv("x", 3, 4))))
    assert imported.classifier is None
    assert imported.graph.outputs[0].type.shape == (1, 1, 1, 4)


@pytest.mark.parametrize("options", [{"kernel": 3, "pads": [1, 1, 1, 1], "strides": [3, 3]}, {"kernel": 3, "group": 2}])
def test_padded_or_grouped_layers_are_no_classifier(tmp_path, options):
    net = Net((1, 4, 3, 3))
    assert same(net, tmp_path, net.conv("x", 4, 6, **options)).classifier is None


def test_batch_is_taken_as_one(tmp_path):
    net = Net((4, 3, 6, 5))
    net.save(tmp_path / "m.onnx", net.conv("x", 3, 4))
    imported = load(tmp_path / "m.onnx")
    assert imported.graph.inputs[0].type.shape == (1, 6, 5, 3)
    assert imported.report.notes == ("the model's batch of 4 is taken as 1",)


def test_half_precision_weights_and_dead_branches(tmp_path):
    net = Net((1, 3, 6, 5))
    weight = net.op("Cast", net.const(net.rng.normal(size=(4, 3, 3, 3)).astype(np.float16)), to=TensorProto.FLOAT)
    net.op("Relu", net.conv("x", 3, 8))
    imported = same(net, tmp_path, net.op("Conv", "x", weight))
    assert len(imported.graph.nodes) == 1


def test_digits_asset_imports(tmp_path):
    from importlib.resources import files

    asset = files("mcugrad") / "assets" / "digits.onnx"
    if not asset.is_file():
        pytest.skip("the digits network is not in this checkout")
    (tmp_path / "d.onnx").write_bytes(asset.read_bytes())
    imported = load(tmp_path / "d.onnx")
    x = np.random.default_rng(0).uniform(size=(1, 1, 16, 16)).astype(np.float32)
    np.testing.assert_allclose(logits(imported, x)[None], reference(tmp_path / "d.onnx", x), atol=1e-4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("dynamo", [False, True])
def test_torch_exports(tmp_path, dynamo):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if dynamo:
        pytest.importorskip("onnxscript", reason="the dynamo exporter needs onnxscript")
    nn = torch.nn
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(), nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.Hardtanh(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(8, 5),
    ).eval()  # fmt: skip
    x = torch.randn(1, 3, 16, 16)
    torch.onnx.export(net, (x,), str(tmp_path / "m.onnx"), dynamo=dynamo)
    np.testing.assert_allclose(logits(load(tmp_path / "m.onnx"), x.numpy())[None], net(x).detach().numpy(), atol=1e-5)


def test_preprocessing_stored_with_the_model(tmp_path):
    net = Net()
    wanted = Preprocess(Input.FLOAT, scale=1 / 255, mean=(0.5,), std=(0.25,), size=(9, 9))
    model = net.model(net.conv("x", 3, 4))
    entry = model.metadata_props.add(key="mcugrad.preprocess", value=json.dumps(wanted.to_dict()))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert load(tmp_path / "m.onnx").preprocess == wanted
    entry.value = "{}"
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(McugradError, match=r"m.onnx: its metadata mcugrad.preprocess cannot be used"):
        load(tmp_path / "m.onnx")


@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_norm_that_no_convolution_can_carry_is_a_layer(tmp_path, channels):
    net = Net((1, channels, 5, 4))
    x = net.op("Relu", net.norm("x", channels))
    x = net.op("Add", net.norm(y := net.conv(x, channels, 4, 1), 4), y)
    same(net, tmp_path, net.op("Relu", x))


@pytest.mark.parametrize("group", [1, 6])
def test_signals(tmp_path, group):
    net = Net((1, 6, 40))
    x = net.op("Conv", "x", net.normal(6, 6 // group, 5), net.normal(6), group=group, strides=[2], pads=[2, 1], dilations=[2])
    x = net.op("MaxPool", net.op("Relu", x), kernel_shape=[3], strides=[2], pads=[1, 0])
    x = net.op("AveragePool", net.op("Relu", net.norm(x, 6)), kernel_shape=[2])
    same(net, tmp_path, net.gemm(net.op("Flatten", net.op("GlobalAveragePool", x)), 6, 3))


def test_shortcut_of_every_second_pixel_and_padded_channels(tmp_path):
    net = Net((1, 4, 9, 8))
    ends = [net.const(np.array(v)) for v in ([0, 0], [2**31, 100], [2, 3], [2, 2])]
    x = net.op("Pad", net.op("Slice", "x", *ends), net.const(np.array([0, 2, 0, 0, 0, 2, 0, 0])))
    same(net, tmp_path, net.op("Add", net.conv("x", 4, 8, pads=[1, 1, 1, 1], strides=[2, 2]), x))
