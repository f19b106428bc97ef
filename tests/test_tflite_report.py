"""What the TFLite importer says about a model: every blocker with operator, reason and remedy; the notes."""

import numpy as np
import pytest

from mcugrad.errors import McugradError
from mcugrad.importers import check, load
from tflite_models import SAME, TANH, VALID, Net


def blockers(net, path, *outputs):
    """Blockers of the net, each as one line; load must refuse it with all of them."""
    report = check(net.save(path / "model.tflite", *outputs))
    assert not report.ok
    with pytest.raises(McugradError) as error:
        load(path / "model.tflite")
    assert all(b.node in str(error.value) and b.reason in str(error.value) for b in report.blockers)
    return [str(b) for b in report.blockers]


def _float_inside(net):
    x = net.op("DEQUANTIZE", [net.conv(net.input, 3)], (1, 9, 8, 3), dtype="FLOAT32")
    return net.op("TANH", [x], (1, 9, 8, 3))


def _mixed(net):
    x = net.conv(net.input, 3)
    net.tensors[x] = (net.shape(x), "FLOAT32", None, 0, None, 0)
    return x


def _computed_weight(net):
    x = net.conv(net.input, 3)
    net.nodes[0][1][1] = net.op("RELU", [net.input], (3, 3, 3, 3))
    net.nodes.insert(0, net.nodes.pop())
    return x


def _wide(net):
    x = net.reshape(net.conv(net.input, 600), [1, 43200])
    return net.dense(net.dense(x, 4), 2)


def _no_options(net):
    x = net.conv(net.input, 3)
    net.nodes[0] = (*net.nodes[0][:3], None, {})
    return x


def _nan(net):
    weight = net.const(np.full((4, 216), np.nan), "FLOAT32")
    return net.op("FULLY_CONNECTED", [net.input, weight], (1, 4), "FullyConnectedOptions")


BLOCKED = {
    "unsupported": (
        lambda n: n.op("FLOOR", [n.input], (1, 9, 8, 3)),
        "(FLOOR): FLOOR is not supported; replace it",
    ),
    "custom": (lambda n: n.op("acme", [n.input], (1, 9, 8, 3)), "(custom acme): custom acme is not supported; replace it"),
    "dilation of nothing": (lambda n: n.conv(n.input, 3, DilationHFactor=0), "dilation [0, 1] makes no sense"),
    "fused tanh": (lambda n: n.conv(n.input, 3, act=TANH), "its fused activation is TANH or SIGN_BIT; use ReLU or ReLU6"),
    "mean over channels": (lambda n: n.mean(n.input, [3]), "a mean over axes [3] of [1, 9, 8, 3]; pool over height and width"),
    "float inside": (_float_inside, "(DEQUANTIZE): float operators follow inside the model"),
    "mixture": (_mixed, "it mixes float and integer activations; convert the model to full integer"),
    "computed weight": (_computed_weight, "is computed at run time, a constant is needed"),
    "16-bit activations": (
        lambda n: n.op("RELU", [n.op("QUANTIZE", [n.input], (1, 9, 8, 3), dtype="INT16", scale=1.0)], (1, 9, 8, 3)),
        "holds INT16 activations; convert the model with int8 or float",
    ),
    "kernel larger than the map": (lambda n: n.conv(n.input, 3, (9, 9), padding=VALID), "does not fit a 9x8 map"),
    "pool larger than the map": (
        lambda n: n.pool("MAX_POOL_2D", n.input, (10, 9), 1, SAME),
        "a (10, 9) window on a (9, 8) map",
    ),
    "too wide for int32": (_wide, "inputs per output could overflow an int32 accumulator"),
    "no options": (_no_options, "the operator has no options; export the model again"),
    "pad of a batch": (lambda n: n.pad(n.input, (0, 1), (0, 0), (0, 0), (0, 0)), "only padding of height, width and"),
    "impossible reshape": (lambda n: n.op("RESHAPE", [n.input, n.const([1, 7])], (1, 7)), "cannot be reshaped to [1, 7]"),
    "constant output": (
        lambda n: n.op("DEQUANTIZE", [n.const(np.zeros(3), "INT8", [0.1])], (3,), dtype="FLOAT32"),
        "the output does not depend on the input",
    ),
    "scales along the wrong axis": (
        lambda n: n.op("FULLY_CONNECTED", [n.input, n.const(np.ones((4, 216)), "INT8", np.arange(1, 217), axis=1)], (1, 4)),
        "has scales along axis 1; they must be per output channel",
    ),
}


@pytest.mark.parametrize(("build", "message"), BLOCKED.values(), ids=BLOCKED)
def test_blocker_names_operator_reason_and_remedy(tmp_path, build, message):
    net = Net()
    lines = blockers(net, tmp_path, build(net))
    assert any(message in line for line in lines), lines


def test_weights_that_are_no_numbers(tmp_path):
    net = Net(dtype="FLOAT32")
    assert "NaN or infinite values; the training diverged" in blockers(net, tmp_path, _nan(net))[0]


def test_every_blocker_is_listed_not_the_first_alone(tmp_path):
    net = Net()
    x = net.op("FLOOR", [net.conv(net.input, 4)], (1, 9, 8, 4))
    x = net.op("CEIL", [net.conv(x, 6)], (1, 9, 8, 6))
    lines = blockers(net, tmp_path, net.op("ROUND", [net.conv(x, 2)], (1, 9, 8, 2)))
    assert [line.split()[0] for line in lines] == ["#1", "#3", "#5"]
    assert [row.name for row in check(tmp_path / "model.tflite").layers][:2] == ["conv0", "conv1"]


@pytest.mark.parametrize("shape", [(2, 9, 8, 3), (0, 3), (1, 2, 3, 4, 5)])
def test_inputs_of_another_shape(tmp_path, shape):
    net = Net(shape)
    line = blockers(net, tmp_path, net.op("RELU", [net.input], shape))[0]
    assert f"the input has shape {list(shape)}; export at batch 1 with a fixed size" in line


def test_two_outputs(tmp_path):
    net = Net()
    x = net.conv(net.input, 4)
    assert "2 outputs; export a model with one output" in blockers(net, tmp_path, net.conv(x, 3), net.conv(x, 2))[0]


def test_an_autoencoder_is_told_what_can_be_trained(tmp_path):
    net = Net((1, 40))
    report = check(net.save(tmp_path / "m.tflite", net.dense(net.dense(net.input, 6), 40)))
    assert report.ok
    assert "an autoencoder. --loss autoencoder trains it as one" in report.notes[0]
    assert "a classifier on its 6 features" in report.notes[0]


def test_a_head_that_would_be_clipped_is_noted(tmp_path):
    net = Net()
    weight = net.const(np.full((3, 216), 127), "INT8", [0.5])
    net.op("FULLY_CONNECTED", [net.input, weight], (1, 3), "FullyConnectedOptions", scale=1.0)
    report = check(net.save(tmp_path / "m.tflite", len(net.tensors) - 1))
    assert "--keep-head clips classifier weights to" in report.notes[0]


def test_report_is_plain_data(tmp_path):
    net = Net()
    x = net.mean(net.conv(net.input, 4), [1, 2])
    report = check(net.save(tmp_path / "m.tflite", net.softmax(net.dense(x, 3)))).to_dict()
    assert report["ok"] and report["format"] == "tflite"
    assert report["supported"] == {"CONV_2D": 1, "FULLY_CONNECTED": 1, "MEAN": 1, "SOFTMAX": 1}
    assert report["params"] == 4 * 27 + 4 + 12 + 3
    assert [row["kind"] for row in report["layers"]] == ["conv 3x3", "avg pool", "fully connected"]


def test_names_are_shortened_and_printable(tmp_path):
    net = Net()
    (blocker,) = check(net.save(tmp_path / "m.tflite", net.op("\x1b[31m" + "n" * 5000, [net.input], (1, 9, 8, 3)))).blockers
    assert "\x1b" not in str(blocker) and len(str(blocker)) < 600
