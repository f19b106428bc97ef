"""The published networks on real photographs: interpreter, host twin and virtual MCU learn the same bits in 256 KB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mcugrad.compiler import Budget, compile_model
from mcugrad.data import calibration_samples
from mcugrad.importers import load
from mcugrad.ir import interpret
from mcugrad.layout import parameter_hash
from mcugrad.prepare import prepare, training_graph
from mcugrad.trainer import loss_of
from mcugrad.training.scheme import read_scheme

SHARED = Path(__file__).resolve().parents[2] / "shared"
MODELS = SHARED / "models" / "tiny_training"
STEPS = 20
SEED = 3
CASES = [
    ("mcunet-5fps", "49kb", "flowers12", 12),
    ("mcunet-5fps", "99kb", "cifar10", 10),
    ("mbv2-w0.35", "49kb", "trashnet128", 6),
    ("mbv2-w0.35", "99kb", "flowers12", 12),
]

pytestmark = pytest.mark.skipif(not MODELS.exists(), reason="the published models are not beside the project")


@pytest.mark.parametrize(("model", "scheme", "data", "classes"), CASES, ids=[f"{m}-{s}-{d}" for m, s, d, _ in CASES])
def test_twenty_steps_are_the_same_bits_everywhere_within_256_kb(model, scheme, data, classes, tmp_path):
    imported = load(MODELS / f"{model}.pkl")
    samples = calibration_samples(SHARED / "data" / data, 64, (128, 128, 3))
    prepared = prepare(imported, classes=classes, calibration=samples)
    budget = Budget("cortex-m7", sram=256 << 10, flash=1 << 20)
    compiled = compile_model(prepared, read_scheme(scheme, model), tmp_path / "out", budget)
    order = np.random.default_rng(SEED).permutation(len(prepared.x))[:STEPS]
    x, y = prepared.x[order], prepared.y[order]

    losses, wanted = _interpreted(compiled.program.graph, x, y)
    assert compiled.firmware.facts.sram_total <= 256 << 10
    for kind in ("host", "vm"):
        with compiled.device(kind) as device:
            device.set_control(seed=SEED, step=0, skip=1 << 16)
            found = [loss_of(device.train_step(sample, int(label)).p_label) for sample, label in zip(x, y, strict=True)]
            assert found == losses, kind
            assert compiled.program.state_hash(device.read_params()) == wanted, kind


def test_everything_learns_in_512_kib_with_the_bits_of_the_plain_graph(tmp_path):
    model = "mbv2-w0.35"
    prepared = prepare(load(MODELS / f"{model}.pkl"), classes=10)
    scheme = read_scheme("full", model)
    compiled = compile_model(prepared, scheme, tmp_path / "out", Budget("cortex-m7", sram=512 << 10, flash=1 << 20))
    assert compiled.firmware.facts.sram_total <= 512 << 10
    plain = training_graph(prepared, scheme)
    assert _macs(compiled.program.graph) <= 1.6 * _macs(plain)

    x, y = prepared.x[:STEPS], prepared.y[:STEPS]
    losses, wanted = _interpreted(plain, x, y)
    for kind, steps in (("host", STEPS), ("vm", 2)):
        with compiled.device(kind) as device:
            device.set_control(seed=SEED, step=0, skip=1 << 16)
            found = [loss_of(device.train_step(s, int(label)).p_label) for s, label in zip(x[:steps], y, strict=False)]
            assert found == losses[:steps], kind
            assert steps < STEPS or compiled.program.state_hash(device.read_params()) == wanted


def _macs(graph):
    return sum(n.op.work(n).macs for n in graph.nodes)


def _interpreted(graph, x, y):
    """Losses and the hash of the learned parameters."""
    losses = []
    for step, (sample, label) in enumerate(zip(x, y, strict=True)):
        control = np.array([SEED, step, 0, 1 << 16])
        result = interpret(graph, {graph.inputs[0].name: sample[None], "label": np.array([label]), "control": control})
        losses.append(loss_of(int(result[graph.outputs[1]][0])))
        params = result.next_params(graph)
        graph = graph.with_params(params)
    return losses, parameter_hash(params)
