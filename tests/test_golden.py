"""The generated C of the fixed corpus is what it was: a refactor shows an empty diff."""

from __future__ import annotations

import difflib
from pathlib import Path

import numpy as np
import pytest

from corpus import GOLDEN, NETWORKS, program, sources
from mcugrad.build import build_host
from mcugrad.devices.host import Host
from mcugrad.emit.c import write
from mcugrad.program import Machine


@pytest.mark.parametrize("name", NETWORKS)
def test_the_generated_c_is_unchanged(name: str) -> None:
    for file, text in sources(name).items():
        golden = (GOLDEN / name / file).read_text(encoding="utf-8").splitlines(keepends=True)
        diff = "".join(difflib.unified_diff(golden, text.splitlines(keepends=True), "golden", "now"))
        assert not diff, f"{name}/{file} changed; `make diff` shows all, `make golden` accepts it\n{diff}"


def test_the_golden_folder_holds_nothing_else() -> None:
    found = {str(p.relative_to(GOLDEN)) for p in GOLDEN.rglob("*") if p.is_file()}
    assert found == {f"{name}/{file}" for name in NETWORKS for file in ("model.c", "model.h")}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_golden_c_learns_what_the_program_learns(name: str, tmp_path: Path) -> None:
    built = program(name)
    write(built, tmp_path)
    for file in ("model.c", "model.h"):
        (tmp_path / file).write_text((GOLDEN / name / file).read_text(encoding="utf-8"), encoding="utf-8")
    machine = Machine(built, poison=True)
    x = np.random.default_rng(1).integers(-128, 128, (6, *built.sample.type.shape)).astype(np.int8)
    with Host.load(build_host(tmp_path)) as host:
        host.set_control(seed=5)
        for i, sample in enumerate(x):
            p_label, progress = machine.train_step(sample, i % 3, np.array([5, i, 0, 1 << 16], np.int32))
            result = host.train_step(sample, i % 3)
            assert (result.p_label, result.progress) == (p_label, progress), f"step {i}"
        assert host.read_params() == machine.state.tobytes()
    assert machine.state.tobytes() != built.initial_state(), "six steps change something"
