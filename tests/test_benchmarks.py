"""The benchmarks: every instruction of a step is given to one call, and a count that grows is noticed."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import kernels, ledger, models, readme, run, step
from benchmarks.calls import QemuTrace, traced
from benchmarks.ledger import Entry
from benchmarks.memory_tables import ladder_table, pytorch_table, same_bits_table
from benchmarks.models import DIGITS, Setting

from mcugrad.devices.base import NEVER_SKIP
from mcugrad.devices.qemu import PROGRAM, Qemu
from mcugrad.devices.virtual import VirtualMcu
from mcugrad.errors import McugradError

OLD = Entry("step/x", "step", {}, {"instructions": {"step": 100_000}, "sram": {"total": 1000}, "macs": {"forward": 5}})


def grown(**figures: int) -> Entry:
    step_, sram = figures.get("step", 100_000), figures.get("sram", 1000)
    return replace(OLD, figures={"instructions": {"step": step_}, "sram": {"total": sram}, "macs": {"forward": 9000}})


@pytest.mark.parametrize("input_mode", ["resident", "rows"])
def test_the_calls_of_a_step_add_up_to_its_instructions(input_mode: str, tmp_path: Path) -> None:
    build = models.compiled(Setting(DIGITS, "demo", 64, input_mode), tmp_path / "model")
    with traced(build) as trace:
        assert trace.step(build.prepared.x[0], int(build.prepared.y[0])).progress != 0
        with pytest.raises(McugradError, match="full step"):
            trace.costs()
        assert trace.step(build.prepared.x[1], int(build.prepared.y[1])).progress == 0
        costs = trace.costs()
        assert sum(costs.values()) == trace.counters.total
        assert isinstance(trace.device, VirtualMcu)
        named = {s.callee: s.instructions for s in trace.device.profile().sites}
        assert min(costs.values()) > 0
    head = next(n for n in costs if getattr(n, "outputs", ()) and n.outputs[0] is build.program.logits)
    assert abs(costs[head] - named["mcg_head"]) < 64


@pytest.mark.skipif(not shutil.which(PROGRAM), reason=f"{PROGRAM} is not installed")
def test_qemu_counts_what_the_virtual_mcu_counts(tmp_path: Path) -> None:
    build = models.compiled(Setting(DIGITS, "demo", 64, "resident"), tmp_path / "model")
    x, y = build.prepared.x, build.prepared.y
    with traced(build) as virtual, Qemu.load(build.on_qemu(), counting=True) as device:
        device.set_control(skip=NEVER_SKIP)
        traces = (virtual, QemuTrace(build.program, device))
        for i in range(2):
            results = [trace.step(x[i], int(y[i])) for trace in traces]
            assert results[0] == results[1]
        assert len({replace(trace.counters, link=0) for trace in traces}) == 1
        assert traces[0].costs() == traces[1].costs()


@pytest.mark.skipif(not shutil.which(PROGRAM), reason=f"{PROGRAM} is not installed")
def test_a_core_that_only_qemu_knows_is_measured_there() -> None:
    entry = kernels.measure(kernels.Shape("1x1 4x4 8->12", 4, 8, 12), "cortex-m55")
    assert 0 < entry.figures["forward"]["instructions"] < 6000


@pytest.mark.skipif(bool(models.lacking(models.RISCV)), reason=f"{models.lacking(models.RISCV)} is not installed")
def test_a_step_on_risc_v_is_counted_to_the_last_instruction_and_stays_on_its_stack() -> None:
    measured = step.measure(Setting(DIGITS, "demo", 64, target=models.RISCV))
    figures = measured.entry.figures
    assert sum(k["instructions"] for k in figures["by_kernel"].values()) == figures["instructions"]["step"]
    assert sum(count for count, _ in measured.functions.values()) >= figures["instructions"]["step"] > 1_000_000
    assert 0 < figures["sram"]["stack_touched"] <= figures["sram"]["stack"]


def test_a_measured_step_accounts_for_every_mac_and_instruction(tmp_path: Path) -> None:
    measured = step.measure(Setting(DIGITS, "demo", 64))
    figures = measured.entry.figures
    assert sum(k["macs"] for k in figures["by_kernel"].values()) == sum(figures["macs"].values())
    assert sum(k["instructions"] for k in figures["by_kernel"].values()) == figures["instructions"]["step"]
    assert {"conv0", "conv12", "logits"} <= {r.layer for r in measured.rows} | {r.name for r in measured.rows}
    assert figures["sram"]["stack_touched"] <= figures["sram"]["stack"] and figures["flash"]["kernels"] > 1000
    step.write(measured, tmp_path)
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".json", ".png", ".txt"]


def test_a_kernel_is_measured_in_all_its_parts() -> None:
    shape = kernels.Shape("1x1 4x4 8->12", 4, 8, 12)
    entry = kernels.measure(shape, "cortex-m7")
    assert {part: f["macs"] for part, f in entry.figures.items()} == {
        "forward": 16 * 8 * 12,
        "input_gradient": 16 * 8 * 12,
        "weight_update": 16 * 8 * 12,
        "bias_update": 0,
    }
    assert all(f["instructions"] > 0 for f in entry.figures.values())
    assert kernels.per_mac(entry, "forward") == f"{entry.figures['forward']['instructions'] / 1536:.2f}"


def test_a_depthwise_layer_has_the_macs_of_its_window() -> None:
    entry = kernels.measure(kernels.Shape("dw 3x3/2 8x8 4", 8, 4, kernel=3, stride=2), "cortex-m7")
    assert entry.figures["forward"]["macs"] == entry.figures["input_gradient"]["macs"] == 4 * 4 * 4 * 9


def test_a_count_may_grow_by_one_percent_and_not_by_more() -> None:
    assert ledger.changes(OLD, grown(step=101_000)) == []
    assert ledger.changes(OLD, grown(step=101_001)) == [("instructions.step", 100_000, 101_001)]


def test_small_counts_may_grow_by_a_few() -> None:
    assert ledger.changes(OLD, grown(sram=1064)) == []
    assert ledger.changes(OLD, grown(sram=1065)) == [("sram.total", 1000, 1065)]


def test_the_speed_of_a_machine_is_never_compared() -> None:
    fast, slow = (Entry("host/x", "host", {}, {"steps_per_second": n}) for n in (100.0, 1.0))
    assert ledger.changes(fast, slow) == []


def test_an_update_replaces_lines_of_the_same_name(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger.update([replace(OLD, name="b"), replace(OLD, name="a")], path)
    ledger.update([replace(grown(step=7), name="a")], path)
    found = ledger.read(path)
    assert list(found) == ["a", "b"] and found["a"].figures["instructions"]["step"] == 7


@pytest.mark.parametrize(("entry", "code"), [(grown(), 0), (grown(step=50_000), 0), (grown(step=200_000), 1)])
def test_only_what_got_worse_is_an_error(
    entry: Entry, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ledger, "read", lambda: {OLD.name: OLD})
    assert run.run([(OLD.name, lambda: entry)], update=False) == code
    assert ("rose from 100,000 to 200,000" in capsys.readouterr().err) == bool(code)


def test_a_benchmark_that_fails_is_an_error_and_the_others_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> Entry:
        raise McugradError("no such thing")

    monkeypatch.setattr(ledger, "read", lambda: {OLD.name: OLD})
    assert run.run([("broken", fails), (OLD.name, grown)], update=False) == 1
    said = capsys.readouterr()
    assert "broken: no such thing" in said.err and "1 benchmarks" in said.out


def test_a_missing_model_is_said_clearly(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["step.py", "--model", "nothing", "--scheme", "head"])
    assert step.main() == 1
    assert "nothing.pkl is not there" in capsys.readouterr().err


def test_names_of_benchmarks_are_unique_and_the_ledger_knows_those_of_the_fast_set() -> None:
    names = [name for name, _ in run.everything()]
    assert len(set(names)) == len(names)
    assert {name for name, _ in run.fast()} <= ledger.read().keys()


def test_the_readme_shows_what_the_ledger_says() -> None:
    assert readme.current() == readme.block(), "run: python benchmarks/readme.py"


def test_the_tables_of_memory_say_when_hashes_differ() -> None:
    rung = {"name": "in rows", "sram": 1000, "arena": 500, "instructions": 7, "bias_bits": 32, "hash": "a"}
    other, narrow = {**rung, "hash": "b"}, {**rung, "bias_bits": 16, "hash": "b"}
    for rungs, word in (
        ([rung, narrow], "steps in the virtual MCU: the same in all rows of int32 biases"),
        ([rung, other], "NOT the same"),
    ):
        text = "\n".join(ladder_table({"steps": 20, "reference_sram": 2000, "rungs": rungs}))
        assert word in text and "| in rows | 1,000 | 500 | 7 | 50% |" in text
    pair = {"steps": 20, "sram": 1000, "layerwise_sram": 3000, "hashes": {"a": "x", "b": "y"}, "equal": False}
    assert same_bits_table({"step/net/49kb": pair})[-1] == "| net, 49kb | 1,000 | 3,000 | 20 | NO |"
    assert not ladder_table({}) and not same_bits_table({}) and not pytorch_table([])
