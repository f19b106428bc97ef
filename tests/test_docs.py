"""What the documents show is true: links lead somewhere, and examples compile, parse and run."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from corpus import program
from mcugrad import toolchain
from mcugrad.cli import main
from mcugrad.emit.c import write
from mcugrad.training.scheme import Update, read_scheme
from onnx_models import Net as OnnxNet
from tflite_models import RELU
from tflite_models import Net as TfliteNet

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
MAIN = """
int main(void) {
  int8_t pixels[MODEL_INPUT_BYTES];
  for (int i = 0; i < MODEL_INPUT_BYTES; ++i) pixels[i] = (int8_t)(37 * i);
  if (!start()) return 1;
  for (int step = 0; step < 20; ++step) {
    if (!learn(pixels, 2)) return 2;
  }
  return classify(pixels) == 2 ? 0 : 3;
}
"""


def block(page: str, language: str) -> str:
    """The first code block of that language."""
    found = re.search(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.M | re.S)
    assert found, f"{page} has no {language} example"
    return found[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_that_pages_name_exist(page: Path) -> None:
    for name in re.findall(
        r"`((?:src|tests|docs|benchmarks|examples|csrc|ops|devices|memory|training|quant)/[\w./]+\.\w+)`",
        page.read_text(encoding="utf-8"),
    ):
        assert any((place / name).exists() for place in (ROOT, ROOT / "src" / "mcugrad")), name


def test_the_make_targets_that_pages_name_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    for page in PAGES:
        assert set(re.findall(r"`make ([a-z-]+)`", page.read_text(encoding="utf-8"))) <= targets


def test_bare_make_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    done = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True, check=True)
    for target in re.search(r"^\.PHONY: (.*)$", text, re.M)[1].split():  # type: ignore[index]
        assert f"make {target}" in done.stdout


@pytest.fixture
def own_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with model.onnx, model.tflite and data.npz, as the guide's reader has them."""
    net = OnnxNet((1, 3, 9, 8))
    x = net.relu6(net.conv("x", 3, 6, strides=[2, 2], pads=[1, 1, 1, 1]))
    pooled = net.op("Flatten", net.op("GlobalAveragePool", net.op("Relu", net.conv(x, 6, 8, 1))))
    net.save(tmp_path / "model.onnx", net.gemm(pooled, 8, 5))
    lite = TfliteNet((1, 9, 8, 3), "INT8", scale=1.0, zero=-128)
    hidden = lite.conv(lite.conv(lite.input, 6, stride=2, act=RELU, zero=-128), 8, 1, act=RELU, zero=-128)
    lite.save(tmp_path / "model.tflite", lite.softmax(lite.dense(lite.mean(hidden, [1, 2]), 5)))
    y = np.arange(60) % 3
    x = np.random.default_rng(0).integers(0, 80, (60, 9, 8, 3)) + 80 * y[:, None, None, None]
    np.savez(tmp_path / "data.npz", x=x.astype(np.uint8), y=y, split=(np.arange(60) >= 40).astype(np.uint8))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    return tmp_path


def test_every_command_of_the_guide_to_own_models_runs(own_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ai_edge_litert")
    page = (ROOT / "docs" / "guide" / "own-model.md").read_text(encoding="utf-8")
    commands = [line for found in re.findall(r"^```sh\n(.*?)^```", page, re.M | re.S) for line in found.splitlines()]
    assert len(commands) >= 7 and all(line.startswith("mcugrad ") for line in commands)
    for line in commands:
        monkeypatch.setattr("sys.argv", line.split())
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code, line
    assert {p.name for p in own_model.iterdir()} >= {"learned.tflite", "graph.onnx", "runs"}
    exec(compile(block("docs/guide/own-model.md", "python"), "own-model.md", "exec"), {})
    assert (own_model / "learned.onnx").exists()


def test_the_scheme_of_the_guide_is_one(tmp_path: Path) -> None:
    path = tmp_path / "what-learns.toml"
    path.write_text(block("docs/guide/schemes.md", "toml"), encoding="utf-8")
    scheme = read_scheme(path)
    assert scheme.weights["conv12"] == Update(channels=(0, 3, 5)) and scheme.biases == 9


def test_the_firmware_of_the_guide_learns(tmp_path: Path) -> None:
    write(program("residual-sparse"), tmp_path)
    (tmp_path / "main.c").write_text(block("docs/guide/firmware.md", "c") + MAIN, encoding="utf-8")
    sources = [str(p) for p in (*sorted(tmp_path.glob("*.c")), *sorted((tmp_path / "ops").glob("*.c")))]
    flags = ["-std=c99", "-O2", *toolchain.WARNINGS, f"-I{tmp_path}", f"-I{tmp_path / 'ops'}", "-o", str(tmp_path / "main")]
    toolchain.run(toolchain.zig(), [*flags, *sources], "building the guide's example")
    assert subprocess.run([tmp_path / "main"], check=False).returncode == 0
