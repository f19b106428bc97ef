"""Update schemes: the TOML files, every refusal, the published ones, and the choice of channels."""

from pathlib import Path

import numpy as np
import pytest

from graphs import random_network
from mcugrad.errors import McugradError
from mcugrad.importers.mcunet import build_graph, read_pickle
from mcugrad.ir import Builder, Graph, Quant, TensorType, Value, interpret, verify
from mcugrad.ops.conv2d import Conv2d
from mcugrad.ops.depthwise import DepthwiseConv2d
from mcugrad.ops.spatial import Window
from mcugrad.training.autodiff import TrainingPlan, differentiate
from mcugrad.training.head import attach_head
from mcugrad.training.scheme import Update, UpdateScheme, largest, layers, read_scheme, resolve, shipped, split

MODELS = Path(__file__).resolve().parents[2] / "shared" / "models" / "tiny_training"
MCUNET = {
    "49kb": (20, {24: 1 / 4, 27: 1 / 2, 30: 1 / 2}),
    "74kb": (21, {21: 1, 24: 1, 27: 1 / 2, 30: 1}),
    "99kb": (22, {21: 1, 24: 1, 27: 1, 30: 1, 36: 1 / 8, 39: 1 / 4}),
    "124kb": (24, {21: 1 / 4, 24: 1, 27: 1, 30: 1, 33: 1 / 2, 39: 1 / 2}),
    "148kb": (23, {21: 1, 24: 1, 27: 1, 30: 1, 36: 1, 39: 1 / 2}),
}
EIGHTH = 1 / 8
MBV2 = {
    "49kb": (16, {36: 1, 39: 1, 41: 1 / 4, 42: EIGHTH, 45: EIGHTH, 48: EIGHTH, 49: EIGHTH}),
    "73kb": (20, {32: EIGHTH, 33: 1 / 2, 36: 1 / 2, 39: 1, 41: 1 / 4, 42: EIGHTH, 45: EIGHTH, 48: 1}),
    "99kb": (25, {27: 1, 30: 1, 33: 1, 36: 1, 39: 1, 42: EIGHTH, 45: 1 / 2, 48: 1}),
    "123kb": (31, {27: 1, 30: 1, 33: 1, 36: 1, 39: 1, 42: 1 / 2, 45: 1, 48: 1}),
    "138kb": (34, dict.fromkeys((27, 30, 33, 36, 39, 42, 45, 48), 1)),
}
PUBLISHED = {"mcunet-5fps": (42, MCUNET), "mbv2-w0.35": (51, MBV2)}  # convolutions
CASES = [(model, name) for model, (_, table) in PUBLISHED.items() for name in table]


def bottlenecks(count: int) -> Graph:
    """`count` convolutions named as in the published models, every third depthwise."""
    build = Builder()
    quant, x = Quant((0.05,)), build.input("input", TensorType((1, 2, 2, 16), "s8", Quant((0.05,))))
    rng = np.random.default_rng(0)
    for i in range(count):
        depthwise = i % 3 == 1
        axis, shape = (3, (1, 1, 1, 16)) if depthwise else (0, (16, 1, 1, 16))
        weight = TensorType(shape, "s8", Quant((0.01,) * 16, 0, axis))
        w = build.param(f"conv{i}_weight", weight, rng.integers(-9, 10, shape))
        b = build.param(f"conv{i}_bias", TensorType((16,), "s32"), np.zeros(16))
        op = DepthwiseConv2d(Window((1, 1)), quant) if depthwise else Conv2d(Window((1, 1)), quant)
        x = build.one(op, x, w, b, name=f"conv{i}")
    return attach_head(build.graph((x,)), 3)


@pytest.mark.parametrize(("model", "name"), CASES)
def test_published_schemes_are_those_of_the_reference(model: str, name: str) -> None:
    biases, table = PUBLISHED[model][1][name]
    scheme = read_scheme(name, model)
    assert (scheme.name, scheme.model, scheme.biases, scheme.head) == (name, model, biases, True)
    assert {k: u.ratio for k, u in scheme.weights.items()} == {f"conv{i}": ratio for i, ratio in table.items()}
    assert (scheme.residual_bits, scheme.centred) == (4, False)


@pytest.mark.parametrize(("model", "name"), CASES)
def test_published_schemes_resolve_on_layers_of_those_names(model: str, name: str) -> None:
    count, table = PUBLISHED[model]
    selection = resolve(read_scheme(name, model), bottlenecks(count))
    biases, ratios = table[name]
    assert selection.biases == tuple(f"conv{i}" for i in range(count - biases, count))
    assert {k: 16 if p.channels is None else len(p.channels) for k, p in selection.weights.items()} == {
        f"conv{i}": int(16 * ratio) for i, ratio in ratios.items()
    }


@pytest.mark.parametrize(("model", "name"), CASES)
def test_published_schemes_differentiate_the_real_models(model: str, name: str) -> None:
    path = MODELS / f"{model}.pkl"
    if not path.exists():
        pytest.skip("the shared models are not beside the project")
    graph = attach_head(build_graph(read_pickle(path))[0], 10)
    training = differentiate(graph, TrainingPlan(resolve(read_scheme(name, model), graph)))
    verify(training)
    biases, ratios = PUBLISHED[model][1][name]
    assert len(training.updates) == 2 + biases + 2 * len(ratios)


def test_names_that_ship() -> None:
    assert shipped("mcunet-5fps") == ["head", "bias", "full", "124kb", "148kb", "49kb", "74kb", "99kb"]
    assert shipped("") == ["head", "bias", "full"]


def test_built_in_schemes_on_a_network() -> None:
    graph = random_network(1).graph
    names = tuple(layers(graph))
    head, bias, full = (resolve(read_scheme(n), graph) for n in ("head", "bias", "full"))
    assert (head.weights, head.biases, head.head) == ({}, (), True)
    assert (bias.weights, bias.biases) == ({}, names)
    assert (tuple(full.weights), full.biases) == (names, names)
    assert all(p.channels is None and p.centred for p in full.weights.values())


BAD_FILES = [
    ("biases = [", "is not TOML"),
    ("bias = 3", "unknown key 'bias'; known are accumulate, adapt, bias_bits, biases, centred, head"),
    ("biases = -1", r"biases must be a number of layers \(from the last\) or a list of layer names"),
    ("biases = true", "biases must be a number of layers"),
    ("biases = 1.5", "biases must be a number of layers"),
    ("bias_bits = 8", "bias_bits must be 16 or 32, not 8"),
    ("bias_bits = true", "bias_bits must be 16 or 32, not True"),
    ("residual_bits = 5", "residual_bits must be 0, 4 or 8, not 5"),
    ("residual_bits = false", "residual_bits must be 0, 4 or 8, not False"),
    ('residual_bits = "8"', "residual_bits must be 0, 4 or 8, not '8'"),
    ("[weights]\nconv1 = 0", r"weights.conv1: ratio must be above 0 and at most 1, not 0"),
    ("[weights]\nconv1 = 1.5", "weights.conv1: ratio must be above 0 and at most 1, not 1.5"),
    ("[weights]\nconv1 = true", r"weights.conv1 must be a ratio or a table like \{ ratio = 0.5, residual_bits = 4 \}"),
    ("[weights]\nconv1 = [1, 2]", "weights.conv1 must be a ratio or a table"),
    ("[weights.conv1]\nratios = 1", "weights.conv1: unknown key 'ratios'; known are ratio, channels, residual_bits"),
    ('[weights.conv1]\nratio = "half"', "weights.conv1: ratio must be above 0 and at most 1, not 'half'"),
    ("[weights.conv1]\nchannels = []", "weights.conv1: channels must be a list of channel numbers"),
    ("[weights.conv1]\nchannels = [0, true]", "weights.conv1: channels must be a list of channel numbers"),
    ("[weights.conv1]\nresidual_bits = 3", "weights.conv1: residual_bits must be 0, 4 or 8, not 3"),
    ("weights = 3", "weights must be a table of layer names"),
    ('head = "no"', "head must be true or false"),
    ("centred = 1", "centred must be true or false"),
    ("[weights.conv1]\ncentred = 1", "weights.conv1: centred must be true or false"),
]


@pytest.mark.parametrize(("text", "message"), BAD_FILES, ids=[t.replace("\n", " ") for t, _ in BAD_FILES])
def test_a_bad_file_is_refused_with_its_name_and_the_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(McugradError, match=message) as error:
        read_scheme(path)
    assert str(path) in str(error.value)


def test_a_file_that_is_not_text_or_not_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    with pytest.raises(McugradError, match=f"cannot read the scheme {path}: No such file"):
        read_scheme(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(McugradError, match="is not TOML"):
        read_scheme(path)


def test_an_unknown_name_lists_those_that_ship() -> None:
    with pytest.raises(
        McugradError, match=r"no scheme '50kb' for the model 'mcunet-5fps': use head, bias, full, 124kb, .* or a .toml"
    ):
        read_scheme("50kb", "mcunet-5fps")


def test_a_file_says_everything_a_scheme_can(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'model = "m"\nbiases = ["conv0"]\nhead = false\nresidual_bits = 8\ncentred = true\n[weights]\nconv0 = 0.5\n'
        "conv1 = { channels = [3, 1, 3], residual_bits = 0, centred = false }\n"
    )
    weights = {"conv0": Update(0.5), "conv1": Update(1.0, (1, 3), 0, False)}
    assert read_scheme(path) == UpdateScheme("mine", "m", weights, ("conv0",), False, 8, True)


def four_channels() -> Graph:
    """conv0 with four inputs of unlike energy, a depthwise and a grouped layer."""
    build = Builder()
    x = build.input("input", TensorType((1, 3, 3, 4), "s8", Quant((0.05,))))

    def param(name: str, shape: tuple[int, ...], axis: int, data: np.ndarray) -> tuple[Value, Value]:
        weight = TensorType(shape, "s8", Quant((0.02,) * shape[axis], 0, axis))
        bias = build.param(f"{name}_bias", TensorType((shape[axis],), "s32"), np.zeros(shape[axis]))
        return build.param(f"{name}_weight", weight, data), bias

    first = np.broadcast_to(np.array([5, -9, 5, 1]), (4, 1, 1, 4))
    x = build.one(Conv2d(Window((1, 1)), Quant((0.05,))), x, *param("conv0", (4, 1, 1, 4), 0, first), name="conv0")
    depthwise = DepthwiseConv2d(Window((1, 1)), Quant((0.05,)))
    x = build.one(depthwise, x, *param("conv1", (1, 1, 1, 4), 3, np.full((1, 1, 1, 4), 40)), name="conv1")
    grouped = Conv2d(Window((1, 1)), Quant((0.05,)), groups=2)
    x = build.one(grouped, x, *param("conv2", (4, 1, 1, 2), 0, np.full((4, 1, 1, 2), 40)), name="conv2")
    return attach_head(build.graph((x,)), 2)


def test_a_ratio_keeps_the_channels_of_largest_norm() -> None:
    parts = resolve(UpdateScheme(weights={"conv0": Update(0.5)}), four_channels()).weights
    assert parts["conv0"].channels == (0, 1)
    assert resolve(UpdateScheme(weights={"conv0": Update(0.25)}), four_channels()).weights["conv0"].channels == (1,)


def test_a_ratio_rounds_down() -> None:
    assert resolve(UpdateScheme(weights={"conv0": Update(0.74)}), four_channels()).weights["conv0"].channels == (0, 1)


def test_a_list_of_all_channels_is_the_whole_weight() -> None:
    listed = {"conv0": Update(channels=(0, 1, 2, 3))}
    assert resolve(UpdateScheme(weights=listed), four_channels()).weights["conv0"].channels is None


BAD_SCHEMES = [
    (UpdateScheme(weights={"conv9": Update()}), "the model has no layer 'conv9'; its layers are conv0, conv1, conv2"),
    (UpdateScheme(biases=("conv9",)), "biases name a layer 'conv9' the model has not; its layers are conv0, conv1, conv2"),
    (UpdateScheme(weights={"conv0": Update(0.2)}), "conv0: a ratio of 0.2 keeps none of its 4 input channels"),
    (UpdateScheme(weights={"conv0": Update(channels=(0, 4))}), r"conv0: channels must lie in 0\.\.3"),
    (UpdateScheme(weights={"conv0": Update(channels=(-1,))}), r"conv0: channels must lie in 0\.\.3"),
    (UpdateScheme(weights={"conv2": Update(0.5)}), "conv2: a grouped convolution is updated whole or not at all"),
]


@pytest.mark.parametrize(("scheme", "message"), BAD_SCHEMES)
def test_a_scheme_that_does_not_fit_the_network_is_refused(scheme: UpdateScheme, message: str) -> None:
    with pytest.raises(McugradError, match=message):
        resolve(scheme, four_channels())


def test_largest_prefers_the_lower_index_at_equal_norm() -> None:
    weight = np.zeros((2, 1, 1, 5), np.int8)
    weight[0, 0, 0] = [3, -5, 4, 5, -3]
    weight[1, 0, 0] = [4, 0, -3, 0, 0]
    assert largest(weight, 1) == (0,)
    assert largest(weight, 2) == (0, 1)
    assert largest(weight, 3) == (0, 1, 2)
    assert largest(weight, 4) == (0, 1, 2, 3)


def test_largest_does_not_overflow_int8() -> None:
    weight = np.array([[[[-128, 127, 16]]]], np.int8)
    assert largest(weight, 1) == (0,)


def test_split_segments_compute_the_same_function() -> None:
    for seed in (0, 1, 6):
        net = random_network(seed)
        wide = {n: Update(0.5) for n, v in layers(net.graph).items() if v.inputs[0].type.shape[3] > 1 and plain(v.op)}
        parted = split(net.graph, resolve(UpdateScheme(weights=wide), net.graph))
        verify(parted)
        assert {p.value.name for p in parted.params} > {f"{n}_weight_rest" for n in wide}
        feeds = {"input": net.x[:1]}
        before, after = interpret(net.graph, feeds), interpret(parted, feeds)
        assert np.array_equal(before[net.graph.outputs[0]], after[parted.outputs[0]])


def plain(op: object) -> bool:
    return isinstance(op, Conv2d) and op.groups == 1
