"""What the documents show is true: links lead somewhere, and examples compile, parse and run."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from corpus import program
from mcugrad import toolchain
from mcugrad.emit.c import write
from mcugrad.training.scheme import Update, read_scheme

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
