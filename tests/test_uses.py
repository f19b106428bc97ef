"""Kernels without what no call asks of them: the same bits as with everything."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from emulated_qemu import core_of
from kernels import CSRC, Case, Host, Library, build, cases, expected, run, same
from mcugrad import toolchain
from mcugrad.emit.uses import only, used

EVERYTHING = (CSRC / "host" / "uses.h").read_text(encoding="utf-8")
NAMES = re.findall(r"#define MCG_USES_(\w+) 1 ", EVERYTHING)
CASES = [(case, used([kernel])) for case in cases() if (kernel := case.node.op.kernel(case.node)) is not None]
PLAIN = [case for case, found in CASES if not found]
# What only kernels in assembler take, or leave to others there: the host cannot tell whether it is missing.
ON_THE_CORE = {n for n in NAMES if n.startswith(("ROWS_", "UPDATE_"))} | {
    "DEPTHWISE_HALVES",
    "DEPTHWISE_QUARTERS",
    "SINGLE_ROWS",
    "ODD_ROWS",
}
ASKED = sorted({tuple(sorted(found & ON_THE_CORE)) for _, found in CASES})


def prepare(folder: Path, *names: str) -> Path:
    (folder / "uses.h").write_text(only(set(names), EVERYTHING), encoding="utf-8")
    return folder


def check(some: list[Case], library: Library) -> None:
    for case in some:
        contents = case.contents(0)
        assert same(run(case, library, contents, alignment=1), expected(case, contents)), case.name


def test_every_switch_is_tested_by_a_kernel_and_asked_for_by_an_example() -> None:
    code = "".join(p.read_text(encoding="utf-8") for p in (CSRC / "ops").glob("*.[cS]"))
    assert set(re.findall(r"MCG_USES_(\w+)", code)) == set(NAMES)
    assert {name for _, found in CASES for name in found} == set(NAMES)


def test_only_keeps_what_was_found() -> None:
    text = only({"GAPS", "SUMS"}, EVERYTHING)
    assert re.findall(r"MCG_USES_(\w+) 1 ", text) == ["GAPS", "SUMS"]
    assert len(re.findall(r"MCG_USES_\w+ 0 ", text)) == len(NAMES) - 2
    assert only(set(NAMES), EVERYTHING) == EVERYTHING


@pytest.mark.parametrize("dual_mac", [0, 1])
def test_calls_that_ask_for_nothing_special_have_their_bits(dual_mac: int, tmp_path: Path) -> None:
    flags = ("-O2", f"-DMCG_DUAL_MAC={dual_mac}")
    check(PLAIN, Host(build(prepare(tmp_path), PLAIN, toolchain.zig(), flags)))


@pytest.mark.parametrize("core", ["cortex-m7", "cortex-m55"])
def test_and_on_their_core(core: str, tmp_path: Path) -> None:
    check(PLAIN, core_of(prepare(tmp_path), PLAIN, core))


@pytest.mark.parametrize("name", NAMES)
def test_calls_that_ask_for_one_thing_have_their_bits(name: str, tmp_path: Path) -> None:
    some = [case for case, found in CASES if name in found]
    others = {other for case, found in CASES if name in found for other in found}
    check(some, Host(build(prepare(tmp_path, *others), some, toolchain.zig(), ("-O2", "-DMCG_DUAL_MAC=1"))))


@pytest.mark.parametrize("asked", ASKED, ids=lambda names: "-".join(names) or "nothing")
def test_a_core_has_all_that_its_calls_ask_for(asked: tuple[str, ...], tmp_path: Path) -> None:
    some = [case for case, found in CASES if found & ON_THE_CORE == set(asked)]
    check(some, core_of(prepare(tmp_path, *(set(NAMES) - ON_THE_CORE), *asked), some, "cortex-m7"))
