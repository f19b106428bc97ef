"""Budgets: what does not fit ends with 3 and says what would."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from command_line import CLASSES, Run, blobs, made
from onnx_models import Net


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    """Compiles a model whose schemes differ by several pages of memory."""
    folder = tmp_path_factory.mktemp("wide")
    net = Net((1, 1, 12, 12))
    x = net.relu6(net.conv("x", 1, 24, strides=[2, 2], pads=[1, 1, 1, 1]))
    x = net.op("Relu", net.conv(x, 24, 64, 1))
    net.save(folder / "model.onnx", net.gemm(net.op("Flatten", net.op("GlobalAveragePool", x)), 64, CLASSES))
    data = blobs()
    np.savez(folder / "data.npz", **{**data, "x": data["x"].repeat(2, axis=1).repeat(2, axis=2)})
    return ("compile", folder / "model.onnx", "--classes", CLASSES, "--calibrate", folder / "data.npz")


def total(run: Run, wide: tuple[object, ...], scheme: str, memory: str) -> int:
    """Bytes that the scheme needs where there is enough."""
    return int(run(*wide, "--scheme", scheme, "-o", f"enough-{scheme}", "--json").json[memory]["total"])


@pytest.mark.parametrize(("memory", "scheme"), [("sram", "full"), ("flash", "full"), ("sram", "head")])
def test_what_does_not_fit_ends_with_3_and_says_by_how_much(
    run: Run, wide: tuple[object, ...], memory: str, scheme: str
) -> None:
    budget = (total(run, wide, scheme, memory) - 1) // 1024
    budget = budget // 2 if memory == "sram" else budget  # a plan finds less where it must
    answer = run(*wide, "--scheme", scheme, f"--{memory}", f"{budget}K", "--input", "resident", "-o", "out", "--json")
    assert (answer.code, answer.out) == (3, "") and "out" not in made(Path())
    found = re.search(r"needs (\d+) bytes of (\w+), (\d+) more than the (\d+) it may use", answer.words)
    assert found, answer.err
    needed, name, missing, available = found.groups()
    assert int(needed) - int(available) == int(missing) > 0 and name.lower() == memory
    assert int(available) == budget * 1024
    enough = re.search(rf"--{memory} (\d+)K", answer.words)
    assert enough and run(*wide, "--scheme", scheme, f"--{memory}", f"{enough[1]}K", "-o", "again").code == 0
    assert int(enough[1]) * 1024 - int(needed) < 1024, "not a page too much"


def test_a_scheme_that_would_fit_is_named_and_does(run: Run, wide: tuple[object, ...]) -> None:
    head, full = (total(run, wide, scheme, "sram") for scheme in ("head", "full"))
    budget = f"{(head + full) // 2048}K"
    answer = run(*wide, "--scheme", "full", "--sram", budget, "-o", "out")
    assert answer.code == 3 and "out" not in made(Path())
    advice = re.search(r"or use (--\S+ \S+), which needs (\d+)", answer.words)
    assert advice, answer.err
    arguments = ("--scheme", "full") if "--scheme" not in advice[1] else ()
    assert run(*wide, *arguments, *advice[1].split(), "--sram", budget, "-o", "out").code == 0
