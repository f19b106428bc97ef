"""Outputs that wait for their first sample: no probability, no gradient, and a fresh start when it comes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mcugrad import cli
from mcugrad.compiler import Budget, compile_model, host_program
from mcugrad.data import Calibration
from mcugrad.demo import ASSET
from mcugrad.devices.base import NEVER_SKIP
from mcugrad.devices.host import Host
from mcugrad.errors import McugradError
from mcugrad.exporters.learned import read_run
from mcugrad.importers import load
from mcugrad.ops.head import UNSEEN
from mcugrad.prepare import Prepared, prepare, training_graph
from mcugrad.program import Machine
from mcugrad.training.scheme import UpdateScheme, read_scheme
from noise import digits_on_noise
from onnx_models import residual_net

SCHEME = UpdateScheme("last", biases=2, masked=True)
STEPS = 24


def network(classes: int) -> Prepared:
    """The digits network with so many outputs, of which noise has two."""
    return digits_on_noise(classes, labels=2)


def learned(classes: int, labels: np.ndarray, folder: Path, scheme: UpdateScheme = SCHEME) -> dict[str, np.ndarray]:
    """The parameters after a step for each label, the same samples in every run."""
    net = network(classes)
    program, library = host_program(training_graph(net, scheme, rate=1e-2), "digits", folder)
    with Host.load(library) as device:
        device.set_control(seed=1, step=0, skip=NEVER_SKIP)
        for i, label in enumerate(labels):
            device.train_step(net.x[i], int(label))
        return program.unpack_state(device.read_params())


@pytest.mark.parametrize("samples", [1, 3])
def test_reserved_outputs_change_nothing_before_they_are_met(tmp_path: Path, samples: int) -> None:
    labels, scheme = np.arange(STEPS) % 2, replace(SCHEME, biases=0, accumulate=samples)  # below, exponents see the head's size
    few, many = (learned(n, labels, tmp_path / str(n), scheme) for n in (2, 10))
    for name, array in few.items():
        assert np.array_equal(array, many[name][..., :2] if array.shape != (1,) else many[name]), name
    assert not many["head_weight"][:, 2:].any() and (many["head_bias"][2:] == UNSEEN).all()
    assert few["head_weight"].any() and (few["head_bias"] != UNSEEN).all()


def test_an_output_starts_afresh_with_its_first_sample(tmp_path: Path) -> None:
    labels = np.array([0, 1, 0, 1, 7])
    before, after = (learned(10, labels[:n], tmp_path / str(n)) for n in (4, 5))
    assert before["head_bias"][7] == UNSEEN and 0 < after["head_bias"][7] < 1 << 20
    assert after["head_weight"][:, 7].any()


def test_the_first_sample_of_all_is_not_taken_for_an_easy_one(tmp_path: Path) -> None:
    net = network(10)
    _, library = host_program(training_graph(net, SCHEME), "digits", tmp_path)
    with Host.load(library) as device:
        device.set_control(seed=1, step=0, skip=1)
        assert device.train_step(net.x[0], 3).p_label == 0
        assert int(device.infer(net.x[0]).argmax()) == 3, "nothing else is known"


def test_host_virtual_mcu_and_interpreter_agree(tmp_path: Path) -> None:
    net, labels = network(10), np.array([4, 4, 1, 9, 1, 4, 9, 0])
    compiled = compile_model(net, SCHEME, tmp_path / "out", Budget(sram=32 << 10))
    twin = Machine(compiled.program, poison=True)
    for i, label in enumerate(labels):
        twin.train_step(net.x[i : i + 1], int(label), np.array([3, i, 0, NEVER_SKIP]))
    hashes = {compiled.program.state_hash(twin.state.tobytes())}
    for kind in ("host", "vm"):
        with compiled.device(kind) as device:
            device.set_control(seed=3, step=0, skip=NEVER_SKIP)
            for i, label in enumerate(labels):
                device.train_step(net.x[i], int(label))
            hashes.add(compiled.program.state_hash(device.read_params()))
    assert len(hashes) == 1


def test_a_scheme_file_asks_for_it_and_a_kept_head_refuses(tmp_path: Path) -> None:
    (tmp_path / "waits.toml").write_text("biases = 2\nmasked = true\n")
    assert read_scheme(tmp_path / "waits.toml").masked and not read_scheme("bias").masked
    imported = load(ASSET)
    x = np.zeros((64, *imported.graph.inputs[0].type.shape[1:]), np.uint8)
    own = prepare(imported, keep_head=True, calibration=Calibration(x, np.zeros(64, int), "noise"))
    with pytest.raises(McugradError, match="only the outputs of a new classifier"):
        training_graph(own, SCHEME)


def test_the_commands_leave_out_what_no_sample_showed_and_so_do_exported_models(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    net, output = residual_net()
    net.save(tmp_path / "net.onnx", output)
    x, y = np.random.default_rng(0).integers(0, 256, (80, 17, 13, 3)).astype(np.uint8), np.arange(80) % 3
    np.savez(tmp_path / "data.npz", x=x, y=y, split=(np.arange(80) >= 64).astype(np.uint8))
    folder, out = tmp_path / "run", tmp_path / "out.onnx"
    train = ("--scheme", "bias", "--data", tmp_path / "data.npz", "--classes", 5, "--mask-unseen", "--steps", 40, "-o", folder)
    export = ("--to", "onnx-exact", "-o", out, "--data", tmp_path / "data.npz", "--json")
    for arguments in (("train", tmp_path / "net.onnx", *train), ("export", folder, *export)):
        monkeypatch.setattr("sys.argv", ["mcugrad", *map(str, arguments)])
        monkeypatch.setattr("signal.signal", lambda *_: None)
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == 0
    found = json.loads(capsys.readouterr().out)["agreement"]
    assert found["top1"] == found["within"] == 1
    bias = next(p.data for p in read_run(folder).graph.params if p.value.name == "head_bias")
    assert (bias[3:] == UNSEEN).all() and (bias[:3] != UNSEEN).all()
