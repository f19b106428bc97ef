"""Plants each known bug of mutants/ in a copy of the package and runs the tests that must catch it.

    python tests/mutate.py [NAME ...]

Exit code 1 when a mutant survives, its text is not found exactly once, or a test fails without it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import Queue

from mutants import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "mcugrad"
WORKERS = 2
FAILED = 1  # pytest's exit code when tests ran and some failed


def copy_package(folder: Path) -> Path:
    """A copy of the package below `folder`; returns what PYTHONPATH must name."""
    shutil.copytree(PACKAGE, folder / "src" / "mcugrad", ignore=shutil.ignore_patterns("__pycache__"))
    return folder / "src"


def pytest(source: Path, arguments: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Runs tests of this checkout against the package below `source`."""
    environment = os.environ | {"PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@contextmanager
def planted(mutant: Mutant, source: Path) -> Iterator[None]:
    path = source / "mcugrad" / mutant.file
    original = path.read_text(encoding="utf-8")
    path.write_text(original.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        yield
    finally:
        path.write_text(original, encoding="utf-8")


def verdict(mutant: Mutant, source: Path) -> str:
    """Empty when the mutant was killed, else what went wrong."""
    found = (source / "mcugrad" / mutant.file).read_text(encoding="utf-8").count(mutant.old)
    if found != 1:
        return f"its old text occurs {found} times in {mutant.file}"
    with planted(mutant, source):
        run = pytest(source, mutant.tests)
    if run.returncode == FAILED:
        return ""
    return "SURVIVED" if run.returncode == 0 else f"the tests did not run:\n{run.stdout[-2000:]}{run.stderr[-2000:]}"


def baseline(mutants: list[Mutant], source: Path) -> str:
    """Empty when all tests that the mutants name pass on the package as it is, and are run against the copy."""
    where = subprocess.run(
        [sys.executable, "-c", "import mcugrad; print(mcugrad.__file__)"],
        env=os.environ | {"PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=False,
    )
    if not where.stdout.startswith(str(source)):
        return f"the tests would import {where.stdout.strip()}, not the copy"
    plain = sorted({t for m in mutants if "-k" not in m.tests for t in m.tests})
    for arguments in (tuple(plain), *sorted({m.tests for m in mutants if "-k" in m.tests})):
        if arguments and (run := pytest(source, arguments)).returncode:
            return f"{' '.join(arguments)} fails without a mutant:\n{run.stdout[-3000:]}"
    return ""


def main(names: list[str]) -> int:
    chosen = [m for m in MUTANTS if not names or m.name in names]
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(WORKERS) as pool:
        copies: Queue[Path] = Queue()
        for i in range(WORKERS):
            copies.put(copy_package(Path(folder) / str(i)))

        def judge(mutant: Mutant) -> str:
            source = copies.get()
            try:
                return verdict(mutant, source)
            finally:
                copies.put(source)

        source = copy_package(Path(folder) / "baseline")
        broken = pool.submit(baseline, chosen, source)
        results = list(zip(chosen, pool.map(judge, chosen), strict=True))
        if problem := broken.result():
            print(problem)
            return 1
    for mutant, problem in results:
        print(f"{'killed' if not problem else 'ALIVE ':6}  {mutant.name}: {mutant.why}{': ' if problem else ''}{problem}")
    alive = sum(bool(problem) for _, problem in results)
    print(f"{len(results) - alive} of {len(results)} mutants killed in {time.monotonic() - start:.0f} s")
    return 1 if alive or not results else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
