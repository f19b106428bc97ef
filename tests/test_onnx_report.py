"""What the ONNX importer says about a model: every blocker with node, reason and remedy; the layer table."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from mcugrad.errors import McugradError
from mcugrad.importers import check, load
from onnx_models import Net, residual_net


def blockers(net, path, *outputs):
    """Blockers of the net, each as one line; load must refuse it with all of them."""
    report = check(net.save(path / "model.onnx", *outputs))
    assert not report.ok
    with pytest.raises(McugradError) as error:
        load(path / "model.onnx")
    assert all(b.node in str(error.value) and b.reason in str(error.value) for b in report.blockers)
    return [str(b) for b in report.blockers]


def _indices(net):
    pooled = net.op("MaxPool", "x", kernel_shape=[2, 2], outputs=2)
    return net.op("Cast", pooled.replace("_0", "_1"), to=TensorProto.FLOAT)


BLOCKED = {
    "unsupported operator": (lambda n: n.op("Erf", "x", name="act"), "act (Erf): Erf is not supported; replace it"),
    "quantized in part": (
        lambda n: n.conv(n.conv(n.op("QuantizeLinear", "x", n.const(np.float32(1)), n.const(np.uint8(0))), 3, 4), 4, 4),
        "Conv_1 (layer): its result is not quantized: no QuantizeLinear follows; quantize every activation",
    ),
    "dilation of nothing": (lambda n: n.conv("x", 3, 4, dilations=[0, 2]), "dilation [0, 2]; export the model again"),
    "computed weight": (lambda n: n.op("Conv", "x", n.op("Relu", "x")), "is computed at run time"),
    "kernel larger than the map": (lambda n: n.conv("x", 3, 4, 12), "window with padding (0, 0, 0, 0) does not fit a 9x9 map"),
    "clamp without zero": (
        lambda n: n.op("Clip", "x", n.const(np.float32(1)), n.const(np.float32(6))),
        "a clamp to [1, 6]; its range must hold zero",
    ),
    "padding counted": (
        lambda n: n.op("AveragePool", "x", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
        "set count_include_pad=False",
    ),
    "indices": (_indices, "the indices of the maxima are used"),
    "mean over channels": (lambda n: n.op("ReduceMean", "x", axes=[1]), "only the mean over height and width is supported"),
    "softmax inside": (
        lambda n: n.op("Relu", n.op("Softmax", "x")),
        "Softmax over axis 3 of [1, 3, 9, 9]; only a softmax over channels",
    ),
    "reflected padding": (
        lambda n: n.conv(n.op("Pad", "x", n.const(np.array([0, 0, 1, 1, 0, 0, 1, 1])), mode="reflect"), 3, 4),
        "reflect padding by [0, 0, 1, 1, 0, 0, 1, 1]; only constant padding",
    ),
    "sum of different maps": (
        lambda n: n.op("Add", n.conv("x", 3, 4), n.conv("x", 3, 4, 5)),
        "cannot add [1, 7, 7, 4] and [1, 5, 5, 4]: shapes must be equal",
    ),
    "division": (lambda n: n.op("Div", n.conv("x", 3, 4), n.conv("x", 3, 4)), "division by an activation"),
    "slice of flattened channels": (
        lambda n: n.op("Slice", n.op("Flatten", n.conv("x", 3, 4)), *(n.const(np.array([v])) for v in (3, 9, 1))),
        "elements that do not lie side by side; slice the map before it is flattened",
    ),
    "concatenation of batches": (lambda n: n.op("Concat", c := n.conv("x", 3, 4), c, axis=0), "concatenation along axis 0"),
    "bilinear": (
        lambda n: n.op("Resize", "x", "", n.const(np.float32([1, 1, 2, 2])), mode="linear"),
        "linear resizing by [1.0, 1.0, 2.0, 2.0]",
    ),
    "training mode": (
        lambda n: n.op("BatchNormalization", "x", *[n.normal(3) for _ in range(4)], training_mode=1, outputs=3),
        "export in evaluation mode",
    ),
    "constant output": (lambda n: n.op("Add", n.normal(3), n.normal(3)), "the output does not depend on the input"),
    "NaN weights": (
        lambda n: n.op("Conv", "x", n.const(np.full((4, 3, 3, 3), np.nan, np.float32), "w")),
        "w holds 108 NaN or infinite values; the training diverged",
    ),
    "wrong features": (lambda n: n.op("Relu", n.gemm(n.op("Flatten", "x"), 99, 5)), "do not fit an input [1, 243]"),
}


@pytest.mark.parametrize(("build", "message"), BLOCKED.values(), ids=BLOCKED)
def test_blocker_names_node_reason_and_remedy(tmp_path, build, message):
    net = Net()
    lines = blockers(net, tmp_path, build(net))
    assert any(message in line for line in lines), lines


def test_every_blocker_is_listed_not_the_first_alone(tmp_path):
    net = Net((1, 3, 12, 12))
    x = net.op("Erf", net.conv("x", 3, 4), name="bad1")
    x = net.op("Mod", c := net.conv(x, 4, 6), c, fmod=1, name="bad2")
    x = net.conv(net.op("Erf", x, name="bad3"), 6, 2, 11)
    lines = blockers(net, tmp_path, x)
    assert [line.split()[0] for line in lines] == ["bad1", "bad2", "bad3", "Conv_5"]
    assert [row.name for row in check(tmp_path / "model.onnx").layers] == ["conv0", "conv1"]


def test_custom_domain_and_two_outputs(tmp_path):
    net = Net()
    x = net.op("Conv3000", "x", name="mine", domain="acme")
    model = net.model(net.op("Relu", x), net.op("Relu", "x"))
    model.opset_import.append(helper.make_opsetid("acme", 1))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    lines = [str(b) for b in check(tmp_path / "m.onnx").blockers]
    assert lines[0].startswith("mine (Conv3000): the operator belongs to acme; export with standard operators")
    assert "2 outputs; export a model with one output" in lines[1]


def test_volumes_are_refused(tmp_path):
    net = Net((1, 3, 6, 6, 6))
    lines = blockers(net, tmp_path, net.op("Conv", "x", net.normal(4, 3, 3, 3, 3)))
    assert "the input has shape [1, 3, 6, 6, 6]" in lines[0]


def test_report_is_plain_data(tmp_path):
    net, out = residual_net()
    report = check(net.save(tmp_path / "m.onnx", out)).to_dict()
    assert report["ok"] and report["supported"]["Conv"] == 7
    assert report["macs"] == sum(row["macs"] for row in report["layers"])
    assert report["layers"][0] == {
        "name": "conv0",
        "kind": "conv 3x3",
        "origin": "m.onnx:Conv_0",
        "input": (1, 17, 13, 3),
        "output": (1, 9, 7, 8),
        "params": 224,
        "macs": 9 * 7 * 8 * 27,
    }


def test_layers_too_wide_for_int32_are_known_without_data(tmp_path):
    net = Net((1, 40_000))
    lines = blockers(net, tmp_path, net.gemm(net.op("Relu", net.gemm("x", 40_000, 4)), 4, 2))
    wide = "Gemm_0 (layer): 40000 inputs per output could overflow an int32 accumulator"
    assert len(lines) == 1 and lines[0].startswith(wide) and "pool or project its input first" in lines[0]
    net = Net((1, 20_000))
    assert "20000 features leave the head less than 9 bits" in blockers(net, tmp_path, net.gemm("x", 20_000, 2))[0]


def test_names_are_shortened_and_printable(tmp_path):
    net = Net()
    path = net.save(tmp_path / "model.onnx", net.op("Erf", "x", name="\x1b[31m" + "n" * 5000))
    (blocker,) = check(path).blockers
    assert "\x1b" not in str(blocker) and len(str(blocker)) < 400
