"""What check says beyond blockers: sizes, reach of training, boards; and where quantization hurts."""

import json
import math
import subprocess
import sys
import time

import numpy as np
import pytest

from mcugrad.errors import McugradError
from mcugrad.importers import examine, load
from mcugrad.ir import Builder, Quant, TensorType
from mcugrad.loss import Loss
from mcugrad.ops.conv2d import Conv2d
from mcugrad.ops.pool import AvgPool
from mcugrad.ops.spatial import Window
from mcugrad.prepare import default_preprocess, prepare
from mcugrad.preprocess import NAMED, Input, Preprocess, parse
from mcugrad.quant.assign import assign
from mcugrad.quant.noise import layer_noise
from mcugrad.quant.observe import QUANTIZERS, Histogram, Range, observe
from mcugrad.report.check import Trainable, _reach, outlook
from mcugrad.report.quantization import describe_quantization
from mcugrad.targets.boards import BOARDS
from mcugrad.training.head import attach_head
from onnx_models import Net, residual_net


@pytest.fixture
def model(tmp_path):
    net, out = residual_net((1, 3, 32, 32))
    return net.save(tmp_path / "m.onnx", out)


def images(path, classes=5, count=40, shape=(32, 32, 3), seed=0):
    rng = np.random.default_rng(seed)
    np.savez(path, x=rng.integers(0, 256, (count, *shape), dtype=np.uint8), y=np.arange(count) % classes)
    return path


# --- sizes and boards ---


def test_estimates_are_those_of_a_build(tmp_path, model):
    from mcugrad.api import Request, compile_request

    found = outlook(load(model))
    budget = {"sram": -(-found.head.sram // 1024) << 10, "flash": 1 << 20}  # what was estimated, in whole KiB, is enough
    facts = compile_request(Request(model, classes=5, calibrate=images(tmp_path / "d.npz"), **budget), tmp_path / "out").facts()
    assert facts["sram"]["total"] <= budget["sram"]
    assert found.head.sram < 1.25 * facts["sram"]["total"]
    assert 0.6 < facts["flash"]["total"] / found.head.flash < 1.1  # code: what kernels take at most


def test_boards_are_told_by_their_memories(model):
    found = outlook(load(model))
    for board, inference, head in found.boards():
        assert inference == (found.inference.sram <= board.sram and found.inference.flash <= board.flash)
        assert head <= inference
    assert len(BOARDS) == len(found.to_dict()["boards"]) and json.dumps(found.to_dict())


def test_check_of_a_small_model_takes_less_than_two_seconds(model):
    start = time.process_time()
    report, imported = examine(model)
    outlook(imported)
    assert report.ok and time.process_time() - start < 2


def test_check_loads_only_what_it_needs(tmp_path):
    """What makes the command slow is what it imports; a reader of another format is among it."""
    from tflite_models import Net as TfliteNet

    net = TfliteNet((1, 9, 8, 3))
    path = net.save(tmp_path / "m.tflite", net.dense(net.mean(net.conv(net.input, 4), [1, 2]), 3))
    heavy = ("onnx", "torch", "ortools", "matplotlib", "scipy", "sklearn", "ray", "unicorn", "elftools", "cobs", "ziglang")
    code = f"""
import sys
from mcugrad.cli import app
sys.argv = ["mcugrad", "check", {str(path)!r}]
app(standalone_mode=False)
print("loaded:", [name for name in {heavy!r} if name in sys.modules])
"""
    said = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert "supported: yes" in said.stdout, said.stderr
    assert said.stdout.splitlines()[-1] == "loaded: []"


def test_training_reaches_every_layer_that_has_gradients(model):
    assert outlook(load(model)).trainable == Trainable(7, 7, "conv0")


def test_training_stops_behind_what_has_no_gradient():
    """An average over a border has no gradient: layers before it cannot learn."""
    build, rng = Builder(), np.random.default_rng(0)
    x = build.input("input", TensorType((1, 8, 8, 3), "s8", Quant((0.1,), 0)))
    for i in range(3):
        weight = build.param(f"conv{i}_weight", TensorType((3, 1, 1, 3), "s8", Quant((0.01,) * 3, 0, 0)),
                             rng.integers(-127, 128, (3, 1, 1, 3)))  # fmt: skip
        bias = build.param(f"conv{i}_bias", TensorType((3,), "s32"), np.zeros(3))
        x = build.one(Conv2d(Window((1, 1)), Quant((0.1,), 0)), x, weight, bias, name=f"conv{i}", origin=f"m:{i}")
        if i == 0:
            x = build.one(AvgPool(Window((3, 3), (2, 2), (1, 1, 1, 1))), x, name="pool", origin="m:pool")
    found = _reach(attach_head(build.graph((x,)), 4), Loss.SOFTMAX)
    assert (found.layers, found.of, found.first) == (2, 3, "conv1")
    assert "pool" in found.reason


def test_more_features_than_a_head_can_take_leave_inference(tmp_path):
    net = Net((1, 1, 300, 300))
    found = outlook(load(net.save(tmp_path / "m.onnx", net.conv("x", 1, 8, pads=[1, 1, 1, 1]))))
    assert found.head is None and found.inference.sram > 0
    assert not any(head for _, _, head in found.boards())


# --- ranges ---


def observed(name, array):
    observer = QUANTIZERS[name]()
    for part in np.array_split(array, 7):
        observer.update(part)
    return observer.range()


def error(array, found):
    scale = (max(found.high, 0) - min(found.low, 0)) / 255
    zero = round(-128 - min(found.low, 0) / scale)
    q = np.clip(np.rint(array / scale) + zero, -128, 127)
    return (((q - zero) * scale - array) ** 2).mean()


def test_percentile_and_mse_ignore_an_outlier():
    array = np.append(np.random.default_rng(0).normal(size=1_000_000), 80.0)
    assert observed("minmax", array).high == 80
    assert observed("percentile", array).high == pytest.approx(3.7, abs=0.5)
    found = observed("mse", array)
    assert found.high < 60
    assert error(array, found) < error(array, observed("minmax", array))


@pytest.mark.parametrize("seed", range(4))
def test_mse_is_never_worse_than_minmax(seed):
    rng = np.random.default_rng(seed)
    array = rng.laplace(rng.normal(), rng.uniform(0.1, 9), 20_000) * rng.choice([1, 50])
    assert error(array, observed("mse", array)) <= error(array, observed("minmax", array)) * 1.02


@pytest.mark.parametrize("name", QUANTIZERS)
@pytest.mark.parametrize("array", [np.zeros(50), np.full(50, -3.0), np.array([2.5] * 50), np.array([1e-30, -1e-30] * 20)])
def test_degenerate_values_have_a_range(name, array):
    found = observed(name, array)
    assert found.low <= found.high and math.isfinite(found.low) and math.isfinite(found.high)
    assert found.high >= 0.9 * array.max() or array.max() < 1e-6


def test_histogram_grows_without_losing_a_count():
    histogram = Histogram()
    for k in range(12):
        histogram.update(np.array([-(2.0**k), 0.0, 2.0**k]))
    assert histogram.counts.sum() == 36 and histogram.reach == 2.0**11
    assert abs((histogram.counts * histogram.centres).sum()) <= 36 * 2 * histogram.reach / len(histogram.counts)


def test_quantizer_is_a_choice_of_the_request(tmp_path, model):
    from mcugrad.api import Request
    from mcugrad.data import calibration_samples

    data = calibration_samples(images(tmp_path / "d.npz"), 8, (32, 32, 3))
    imported = load(model)
    ranges = {q: Request(model, quantizer=q, keep_head=True).prepared(imported, None, data) for q in QUANTIZERS}
    scales = {q: np.array([n.outputs[0].type.quant.scale[0] for n in p.graph.nodes[:-1]]) for q, p in ranges.items()}
    assert (scales["percentile"] <= scales["minmax"]).all() and (scales["percentile"] < scales["minmax"]).any()
    assert (scales["mse"] < scales["minmax"]).any()
    with pytest.raises(McugradError, match="unknown quantizer 'max': use minmax, percentile, mse"):
        prepare(imported, keep_head=True, calibration=data, quantizer="max")


# --- errors by layer ---


def test_a_layers_own_error_points_at_the_bad_layer(model):
    graph, rng = load(model).graph, np.random.default_rng(0)
    xs = [rng.normal(size=(32, 32, 3)) for _ in range(3)]
    ranges = observe(graph, xs)
    bad = "conv1_clamp"
    ranges[bad] = Range(ranges[bad].low * 40 - 1, ranges[bad].high * 40)
    rows = layer_noise(graph, assign(graph, ranges), xs)
    worst = min(rows, key=lambda r: r.own_db)
    assert worst.name == "conv1"
    after = [r for r in rows if r is not worst and rows.index(r) > rows.index(worst)]
    assert after and all(r.own_db > worst.own_db + 10 for r in after)


def test_check_with_data_tells_accuracy_and_errors(tmp_path, model):
    found = describe_quantization(load(model), images(tmp_path / "d.npz"))
    assert [r["name"] for r in found["layers"]][:2] == ["input", "conv0"]
    assert all(r["own_db"] > 20 for r in found["layers"][1:]) and found["layers"][0]["origin"] == "m.onnx:x"
    accuracy = found["accuracy"]
    assert accuracy["samples"] == 40 and 0 <= accuracy["int8"] <= 1 and accuracy["same"] > 0.8
    assert json.dumps(found)


def test_data_without_labels_still_tells_the_errors(tmp_path, model):
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), dtype=np.uint8))
    found = describe_quantization(load(model), tmp_path / "d.npz", "mse")
    assert found["accuracy"] is None and found["layers"] and found["quantizer"] == "mse"


# --- preprocessing ---


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("0..1", Preprocess(Input.FLOAT, scale=1 / 255)),
        ("scale=1/255", Preprocess(Input.FLOAT, scale=1 / 255)),
        ("scale=2,mean=0.5,std=0.25", Preprocess(Input.FLOAT, 2.0, (0.5,), (0.25,))),
        ("mean=1:2:3,std=4:5:6", Preprocess(Input.FLOAT, 1.0, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))),
        ("pixel-128", Preprocess(Input.INT8)),
    ],
)
def test_preprocessing_is_said_in_a_word_or_in_numbers(text, wanted):
    assert parse(text) == wanted


def test_preprocessing_of_an_earlier_build_is_read_again(tmp_path):
    path = tmp_path / "preprocess.json"
    path.write_text(json.dumps(NAMED["imagenet"].to_dict()))
    assert parse(str(path)) == NAMED["imagenet"]


@pytest.mark.parametrize(
    "text", ["", "half", "scale=", "scale=1/0", "mean=a", "gain=2", "scale=1:2", "std=0", "none.json", "="]
)
def test_preprocessing_that_makes_no_sense_is_an_error(text):
    with pytest.raises(McugradError, match="preprocess"):
        parse(text)


def test_real_numbers_for_a_model_of_pixels_are_in_its_own_units(tmp_path):
    """Its file says 0..255: real numbers of that range give the same integers as the pixels."""
    from mcugrad.data import Calibration
    from tflite_models import Net as TfliteNet

    net = TfliteNet((1, 9, 8, 3), scale=1.0, zero=-128)
    imported = load(net.save(tmp_path / "m.tflite", net.dense(net.mean(net.conv(net.input, 4), [1, 2]), 3)))
    pixels = np.random.default_rng(0).integers(0, 256, (5, 9, 8, 3), dtype=np.uint8)
    quant = imported.graph.inputs[0].type.quant
    found = []
    for x in (pixels, pixels.astype(np.float32)):
        how = default_preprocess(imported, Calibration(x, None, "data"))
        found.append(how.quantized(x, quant.scale[0], quant.zero))
    assert np.array_equal(*found)


# --- the command ---


def test_the_command_tells_everything_and_takes_the_choices(tmp_path, model, capsys, monkeypatch):
    from mcugrad import cli

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["mcugrad", *map(str, arguments)])
        monkeypatch.setattr("signal.signal", lambda *_: None)
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code or 0, capsys.readouterr()

    data = images(tmp_path / "d.npz")
    code, said = command("check", model, "--data", data, "--quantizer", "mse", "--preprocess", "-1..1", "--json")
    found = json.loads(said.out)
    assert code == 0 and found["quantization"]["quantizer"] == "mse" and found["quantization"]["preprocess"]["mean"] == [1.0]
    assert found["outlook"]["trainable"]["layers"] == 7 and found["outlook"]["boards"]
    code, said = command("check", model, "--data", data)
    assert code == 0 and "own dB" in said.out and "Nucleo-F446RE" in said.out and "accuracy on 40 samples" in said.out
    code, said = command("check", model, "--quantizer", "mse")
    assert code == 1 and "needs samples: give --data DATA" in " ".join(said.err.split())
    code, said = command("check", model, "--data", data, "--preprocess", "half")
    assert code == 2 and "imagenet" in said.err
