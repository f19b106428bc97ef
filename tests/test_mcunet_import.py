"""The importer of the published int8 pickles: hostile files, wrong contents, repair of dead channels, agreement."""

import io
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mcugrad import importers
from mcugrad.errors import McugradError
from mcugrad.importers.mcunet import build_graph, load_mcunet, read_pickle, reference_features
from mcugrad.ir import Graph, interpret, verify
from mcugrad.quant.affine import BIAS_LIMIT
from mcugrad.quant.repair import repair_dead_channels

Array = NDArray[Any]

MODELS = Path(__file__).resolve().parents[2] / "shared" / "models" / "tiny_training"


def conv(inputs: int, outputs: int, kernel: int, size: int, stride: int = 1, depthwise: bool = False) -> dict[str, Any]:
    rng = np.random.default_rng(inputs * 100 + outputs + kernel)
    groups = inputs if depthwise else 1
    taps = inputs // groups * kernel * kernel
    return {
        "in_channel": inputs,
        "out_channel": outputs,
        "in_shape": size,
        "out_shape": size // stride,
        "kernel_size": (kernel, kernel),
        "stride": stride,
        "groups": groups,
        "depthwise": depthwise,
        "params": {
            "weight": rng.integers(-100, 101, (outputs, inputs // groups, kernel, kernel)).astype(np.int8),
            "bias": rng.integers(-2000, 2000, outputs).astype(np.int32),
            "w_scales": rng.uniform(0.5, 1.5, outputs).astype(np.float32) / (60 * np.float32(taps) ** 0.5),
            "x_scale": 0.02,
            "x_zero": 0,
            "y_scale": 0.02,
            "y_zero": 0,
        },
    }


def tiny(size: int = 16) -> dict[str, Any]:
    """A first convolution and one inverted bottleneck with its residual."""
    half = size // 2
    block = {
        "pointwise1": conv(4, 6, 1, half),
        "depthwise": conv(6, 6, 3, half, depthwise=True),
        "pointwise2": conv(6, 4, 1, half),
        "residual": {"params": {"y_scale": 0.03, "y_zero": 5}},
        "se": None,
    }
    return {
        "first_conv": conv(3, 4, 3, size, stride=2),
        "blocks": [block],
        "feature_mix": None,
        "classifier": conv(4, 7, 1, 1),
    }


def save(path: Path, data: object, name: str = "archive/data.pkl") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data if isinstance(data, bytes) else pickle.dumps(data, protocol=2))
    return path


def test_a_sound_file_is_read(tmp_path: Path) -> None:
    model = importers.load(save(tmp_path / "tiny.pkl", tiny()))
    verify(model.graph)
    assert [n.outputs[0].name for n in model.graph.nodes] == ["conv0", "conv1", "conv2", "conv3", "conv3_add", "features"]
    assert model.graph.inputs[0].type.shape == (1, 16, 16, 3)
    assert model.classifier is not None
    assert model.classifier.weight.shape == (4, 7)
    assert model.report.ok


@pytest.mark.parametrize("size", [12, 18])
def test_input_sizes_that_are_no_multiple_of_8(tmp_path: Path, size: int) -> None:
    model = load_mcunet(save(tmp_path / "tiny.pkl", tiny(size)))
    assert model.graph.inputs[0].type.shape == (1, size, size, 3)


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


HOSTILE: list[tuple[object, str]] = [
    (Call(os.system, "touch owned"), r"it wants to call (posix|nt).system, which a model file has no business doing"),
    ({"first_conv": [{"params": Call(eval, "1")}]}, r"it wants to call (builtins|__builtin__).eval"),
    (Call(os.getcwd), r"it wants to call (posix|nt).getcwd"),
    (b"cnumpy\nload\n(S'x'\ntR.", "it wants to call numpy.load"),
    (b"cnumpy.core.multiarray\nfromfile\n(S'x'\ntR.", "it wants to call numpy.core.multiarray.fromfile"),
    (b"cnumpy\nndarray.tofile\n.", "it wants to call numpy.ndarray.tofile"),
    (b"cnumpy\nndarray\n((L4611686018427387904L\nttR.", r"is damaged or not a tiny-training pickle \((ValueError|MemoryError)"),
    (b"\x80\x02}q\x00(", "is damaged or not a tiny-training pickle"),
    (b"", r"is damaged or not a tiny-training pickle \(EOFError"),
    (b"I1\n" * 10 + b"0" * 20, "is damaged or not a tiny-training pickle"),
    ([1, 2, 3], "not the layout of a tiny-training model"),
    ("text", "not the layout of a tiny-training model"),
    ({}, "not the layout of a tiny-training model: KeyError"),
    (None, "not the layout of a tiny-training model"),
]


@pytest.mark.parametrize(("data", "message"), HOSTILE, ids=[m[:40] for _, m in HOSTILE])
def test_a_hostile_pickle_is_refused_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: object, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path / "bad.pkl", data)
    with pytest.raises(McugradError, match=message) as error:
        read_pickle(path)
    assert str(error.value).startswith("bad.pkl")
    assert [p.name for p in tmp_path.iterdir()] == ["bad.pkl"]


def test_what_is_no_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.pkl"
    path.write_bytes(pickle.dumps(tiny(), protocol=2))
    with pytest.raises(McugradError, match=r"bad.pkl: not a zip archive"):
        importers.load(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.97])
def test_a_truncated_zip_is_refused(tmp_path: Path, share: float) -> None:
    path = save(tmp_path / "bad.pkl", tiny())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(McugradError, match=r"bad.pkl"):
        importers.load(path)


def test_flipped_bytes_are_refused_or_read_never_worse(tmp_path: Path) -> None:
    path = save(tmp_path / "bad.pkl", tiny())
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[int(rng.integers(len(whole)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            read_pickle(path)
        except McugradError:
            refused += 1
    assert refused > 30


def test_a_zip_without_the_pickle_or_with_two_is_refused(tmp_path: Path) -> None:
    with pytest.raises(McugradError, match=r"it holds no data.pkl"):
        read_pickle(save(tmp_path / "bad.pkl", tiny(), name="archive/other.pkl"))
    with zipfile.ZipFile(tmp_path / "two.pkl", "w") as archive:
        archive.writestr("a/data.pkl", b"")
        archive.writestr("b/data.pkl", b"")
    with pytest.raises(McugradError, match=r"two.pkl: .*data.pkl"):
        read_pickle(tmp_path / "two.pkl")


def test_a_zip_bomb_is_refused_before_it_unpacks(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pkl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("archive/data.pkl", "w") as file:
        for _ in range(65):
            file.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 18
    with pytest.raises(McugradError, match=r"bomb.pkl: its data.pkl unpacks to more than 64 MB"):
        read_pickle(path)


def test_a_zip_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    plain = io.BytesIO()
    with zipfile.ZipFile(plain, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(70 << 20))
    size = (70 << 20).to_bytes(4, "little")
    path = tmp_path / "liar.pkl"
    path.write_bytes(plain.getvalue().replace(size, (1000).to_bytes(4, "little")))
    with pytest.raises(McugradError, match=r"liar.pkl is damaged"):
        read_pickle(path)


def edit(*keys: object, value: object) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        target: Any = data
        for key in keys[:-1]:
            target = target[key]
        target[keys[-1]] = value

    return change


def drop(*keys: object) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        target: Any = data
        for key in keys[:-1]:
            target = target[key]
        del target[keys[-1]]

    return change


def narrow_end(data: dict[str, Any]) -> None:
    data["blocks"][0]["pointwise2"], data["classifier"] = conv(6, 3, 1, 8), conv(3, 7, 1, 1)


DW = ("blocks", 0, "depthwise")
P = ("first_conv", "params")
CONTENTS = [
    (drop("first_conv"), r"KeyError\('first_conv'\)"),
    (drop("classifier"), r"KeyError\('classifier'\)"),
    (drop(*P, "w_scales"), r"KeyError\('w_scales'\)"),
    (drop(*DW), r"KeyError\('depthwise'\)"),
    (edit("blocks", value=3), "TypeError"),
    (edit("first_conv", value=None), "TypeError"),
    (edit("feature_mix", value={}), "a feature_mix layer is not supported"),
    (edit("blocks", 0, "se", value={}), "block 0 has a squeeze-and-excite part"),
    (edit(*P, "weight", value=np.zeros((4, 3, 3, 2), np.int8)), r"first_conv: weight int8\(4, 3, 3, 2\), expected int8"),
    (edit(*P, "weight", value=np.zeros((4, 3, 3, 3))), r"first_conv: weight float64\(4, 3, 3, 3\), expected int8"),
    (edit(*P, "weight", value="w"), "first_conv: weight .*, expected int8"),
    (edit(*P, "bias", value=np.zeros(3, np.int32)), "first_conv: bias or scales do not fit 4 channels"),
    (edit(*P, "bias", value=np.full(4, np.nan)), "first_conv: bias float64 is not int32"),
    (edit(*P, "bias", value=np.array(["a"] * 4)), "first_conv: bias <U1 is not int32"),
    (edit(*P, "w_scales", value=np.array([1.0, 0.0, 1, 1])), "first_conv: bias or scales do not fit"),
    (edit(*P, "w_scales", value=np.array([1.0, np.nan, 1, 1])), "first_conv: bias or scales do not fit"),
    (edit(*P, "w_scales", value=np.ones(5)), "first_conv: bias or scales do not fit"),
    (edit(*P, "x_scale", value=float("inf")), "a quantization scale must be positive and finite"),
    (edit(*P, "y_scale", value=-1.0), "a quantization scale must be positive and finite"),
    (edit(*P, "y_zero", value=128), "zero point 128 is not int8"),
    (edit(*P, "y_zero", value="five"), "ValueError"),
    (edit("first_conv", "groups", value=0), "first_conv: 0 groups and stride 2 make no sense"),
    (edit("first_conv", "stride", value=0), "first_conv: 1 groups and stride 0 make no sense"),
    (edit("first_conv", "in_shape", value=-4), "an input of -4x-4 pixels"),
    (edit("first_conv", "in_shape", value=10**6), "an input of 1000000x1000000 pixels"),
    (edit(*DW, "depthwise", value=False), "blocks.0.depthwise: 6 groups for 6 channels"),
    (edit("blocks", 0, "pointwise2", value=conv(5, 4, 1, 8)), "blocks.0.pointwise2.*6 input channels"),
    (edit("blocks", 0, "residual", "params", "y_zero", value=500), "zero point 500 is not int8"),
    (narrow_end, r"blocks.0.pointwise2.residual: cannot add \[1, 8, 8, 3\] and \[1, 8, 8, 4\]"),
    (edit("classifier", value=conv(3, 7, 1, 1)), "the classifier reads 3 features, the network has 4"),
]


@pytest.mark.parametrize(("change", "message"), CONTENTS, ids=[m for _, m in CONTENTS])
def test_wrong_contents_are_refused_with_the_place(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    data = deepcopy(tiny())
    change(data)
    with pytest.raises(McugradError, match=message) as error:
        load_mcunet(save(tmp_path / "odd.pkl", data))
    assert str(error.value).startswith("odd.pkl: ")


def test_dead_channels_become_sane_and_the_function_stays(tmp_path: Path) -> None:
    """Scales of 4e-9 and saturated biases, as in the published files: the output of such a channel is its bias."""
    data = tiny()
    p = data["blocks"][0]["pointwise1"]["params"]
    p["w_scales"][[1, 4]] = 4e-9
    p["bias"][[1, 4]] = [2**31 - 1, -(2**31)]
    model = read_pickle(save(tmp_path / "dead.pkl", data))
    graph, repaired = build_graph(model)
    params = {q.value.name: q for q in graph.params}
    weight = params["conv1_weight"]
    assert repaired == 2
    assert not weight.data[[1, 4]].any()
    assert weight.value.type.quant is not None
    live = np.delete(p["w_scales"].astype(np.float64), [1, 4])
    assert weight.value.type.quant.scale[1] == weight.value.type.quant.scale[4] == np.median(live)
    assert np.abs(params["conv1_bias"].data).max() <= BIAS_LIMIT
    x = np.random.default_rng(0).integers(-128, 128, (1, 16, 16, 3)).astype(np.int8)
    assert np.abs(features(graph, x) - reference_features(model, x)).max() <= 1


def features(graph: Graph, x: Array) -> Array:
    return interpret(graph, {"input": x})[graph.outputs[0]].reshape(-1).astype(np.int64)


def test_repair_of_a_layer_without_live_channels() -> None:
    scales, weight = np.full(2, 1e-9), np.ones((2, 1, 1, 1), np.int8)
    repaired, new_scales, bias, dead = repair_dead_channels(scales, weight, np.array([2**31 - 1, -3]))
    assert (dead, repaired.any()) == (2, False)
    assert np.allclose(bias * new_scales, np.array([2**31 - 1, -3]) * scales, atol=new_scales.max() / 2)
    assert weight.all(), "the caller's array is not touched"


def test_a_sound_layer_is_not_repaired() -> None:
    scales, weight, bias = np.array([1e-7, 1.0]), np.ones((2, 1), np.int8), np.array([5, 6])
    assert repair_dead_channels(scales, weight, bias) == (weight, scales, bias, 0)


def test_the_integer_network_agrees_with_the_float_semantics(tmp_path: Path) -> None:
    model = read_pickle(save(tmp_path / "tiny.pkl", tiny()))
    graph, _ = build_graph(model)
    rng = np.random.default_rng(1)
    for _ in range(4):
        x = rng.integers(-128, 128, (1, 16, 16, 3)).astype(np.int8)
        assert np.abs(features(graph, x) - reference_features(model, x)).max() <= 1


@pytest.mark.parametrize("name", ["mcunet-5fps", "mbv2-w0.35"])
def test_published_models_agree_within_a_few_lsb_and_say_so(name: str) -> None:
    path = MODELS / f"{name}.pkl"
    if not path.exists():
        pytest.skip("the shared models are not beside the project")
    imported = importers.load(path)
    (note,) = [n for n in imported.report.notes if "reference semantics" in n]
    found = re.search(r"(\d+\.\d) % of the 2000 int8 logits differ, by (\d+) LSB at most", note)
    assert found is not None
    assert int(found.group(2)) <= 5
    model = read_pickle(path)
    x = np.random.default_rng(2).integers(-128, 128, imported.graph.inputs[0].type.shape).astype(np.int8)
    assert np.abs(features(imported.graph, x) - reference_features(model, x)).max() <= 3
