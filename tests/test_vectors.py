"""The independent vectors of MCUNet-5FPS, 99kb scheme, F = 8: every integer of 20 training steps."""

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from graphs import NO_SKIP
from mcugrad.importers.mcunet import build_graph, read_pickle
from mcugrad.ir import Graph, Result, interpret
from mcugrad.ops.add import Add
from mcugrad.ops.loss import SampleScale
from mcugrad.passes import TRAIN, run
from mcugrad.training.autodiff import TrainingPlan, differentiate
from mcugrad.training.calibrate import gradient_exponents
from mcugrad.training.head import attach_head
from mcugrad.training.scheme import Selection, read_scheme, resolve

Array = NDArray[Any]

SHARED = Path(__file__).resolve().parents[2] / "shared"
VECTORS = SHARED / "vectors" / "mcunet_99kb_f8.npz"
MODEL = SHARED / "models" / "tiny_training" / "mcunet-5fps.pkl"
NO_BACKWARD = -999  # e_s in the vectors where the step ended at a zero gradient


@dataclass(frozen=True, eq=False)
class Setup:
    """The vectors, the forward graph with its head, the resolved scheme and its calibrated training graph."""

    want: Mapping[str, Array]
    backbone: Graph
    forward: Graph
    selection: Selection
    exponents: Mapping[str, int]
    training: Graph

    def step(self, graph: Graph, number: int) -> Result:
        control = np.array([0, number, 0, NO_SKIP], np.int32)
        x, y = (self.want[k][number : number + 1] for k in ("train_x", "train_y"))
        return interpret(graph, {"input": x, "label": y, "control": control})


@pytest.fixture(scope="module")
def setup() -> Setup:
    if not (VECTORS.exists() and MODEL.exists()):
        pytest.skip("the shared vectors and models are not beside the project")
    with np.load(VECTORS) as file:
        want = {name: file[name] for name in file.files}
    backbone, _ = build_graph(read_pickle(MODEL))
    forward = attach_head(backbone, 12)
    scheme = replace(read_scheme("99kb", "mcunet-5fps"), residual_bits=8)
    selection = resolve(scheme, forward)
    exponents = gradient_exponents(forward, selection, want["cal_x"], want["cal_y"], want["cal_head"])
    training = differentiate(forward, TrainingPlan(selection, float(want["lr"]), exponents))
    return Setup(want, backbone, forward, selection, exponents, training)


def digest(params: Mapping[str, Array]) -> str:
    """SHA-256 over (name, bytes) of all parameters sorted by name."""
    sha = hashlib.sha256()
    for name in sorted(params):
        sha.update(name.encode())
        sha.update(np.ascontiguousarray(params[name]).tobytes())
    return sha.hexdigest()


def test_every_activation_of_the_first_image(setup: Setup) -> None:
    run_ = interpret(setup.backbone, {"input": setup.want["train_x"][:1]})
    names = [f"conv{i}" for i in range(42)]
    outputs = [run_.values.get(f"{n}_add", run_.values[n]) for n in names]
    assert [zlib.crc32(o.tobytes()) for o in outputs] == setup.want["forward_crc32"].tolist()


def test_pooled_features_of_the_first_image(setup: Setup) -> None:
    features = setup.backbone.outputs[0]
    run_ = interpret(setup.backbone, {"input": setup.want["train_x"][:1]})
    assert features.type.quant is not None
    assert (run_[features].reshape(-1).astype(int) - features.type.quant.zero).tolist() == setup.want["features"].tolist()


def test_live_channels_of_the_shipped_scheme(setup: Setup) -> None:
    assert set(setup.selection.weights) == {f"conv{i}" for i in (21, 24, 27, 30, 36, 39)}
    for name, part in setup.selection.weights.items():
        total = setup.want[f"{name}_channels"]
        assert list(part.channels if part.channels is not None else range(len(total))) == total.tolist()
    assert setup.selection.biases == tuple(f"conv{i}" for i in range(20, 42))


def test_calibrated_exponents_of_layers_and_residuals(setup: Setup) -> None:
    layers = dict(zip(setup.want["E_index"].tolist(), setup.want["E"].tolist(), strict=True))
    skips = dict(zip(setup.want["R_index"].tolist(), setup.want["R"].tolist(), strict=True))
    feeding = {n.inputs[1].name: n.inputs[0].name for n in setup.forward.nodes if isinstance(n.op, Add)}
    for slot, found in setup.exponents.items():
        if slot.endswith(".h"):
            assert found == layers.pop(int(slot[4:-2])), slot
        else:
            assert found == skips.pop(int(feeding[slot.removesuffix(".skip")][4:])), slot
    assert not layers
    assert list(skips) == [20], "only the skip below the first updated layer has no slot"


def test_gradients_inside_the_second_step(setup: Setup) -> None:
    first = setup.step(setup.training, 0)
    graph = setup.training.with_params(first.next_params(setup.training))
    second = setup.step(graph, 1)
    assert second.values["loss.1"].tolist() == setup.want["step1_g"].tolist()
    for name in (n for n in setup.want if n.startswith("step1_conv")):
        layer, what = name.removeprefix("step1_").split("_")
        value = {"h": f"{layer}.h.0", "db": f"{layer}_bias.grad", "dW": f"{layer}_weight.grad"}[what]
        assert second.values[value].ravel().tolist() == setup.want[name].ravel().tolist(), name


@pytest.mark.parametrize("fused", [False, True], ids=["as differentiated", "after the passes"])
def test_twenty_steps(setup: Setup, fused: bool) -> None:
    graph = run(setup.training, TRAIN) if fused else setup.training
    sample = next(n.outputs[1] for n in graph.nodes if isinstance(n.op, SampleScale))
    for number, (p, e_s, sha) in enumerate(zip(*(setup.want[k] for k in ("p_label", "es", "sha256")), strict=True)):
        result = setup.step(graph, number)
        params = result.next_params(graph)
        found = result.values[sample.name][0] if sample.name in result.values else NO_BACKWARD
        assert (int(result[graph.outputs[1]][0]), int(found), digest(params)) == (p, e_s, str(sha)), f"step {number}"
        graph = graph.with_params(params)
    for name in (n for n in setup.want if n.startswith("final_")):
        param = next(p for p in graph.params if p.value.name == name.removeprefix("final_"))
        assert param.data.ravel().tolist() == setup.want[name].ravel().tolist(), name
