"""The shape of the code: who may import whom, how long a file or function may be, and no trace of one machine."""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "mcugrad"
FILES = sorted(PACKAGE.rglob("*.py"))

# A module imports from its own row and from those above; the longest name that matches decides.
ROWS = (
    ("errors", "quant.affine", "loss", "data", "preprocess", "npz", "images", "digits", "targets", "toolchain", "folder"),
    ("ir", "layout", "augment"),
    ("ops",),
    ("importers", "quant", "training", "passes", "costs"),
    ("prepare", "own_output"),
    ("memory", "replay", "nor"),
    ("program", "graphfile"),
    ("emit", "devices", "build"),
    ("report.ledger", "report.memory_map"),
    ("fit", "compiler"),
    ("metrics",),
    ("trainer",),
    ("search",),
    ("exporters",),
    ("report", "api", "demo", "search.command", "sweep", "options", "cli", "__init__"),
)
# These import nothing of mcugrad but each other and the errors.
LEAVES = ROWS[0]
LONGEST_FILE = 400
LONGER = {"src/mcugrad/ir.py": 520}  # the one graph: its types, verifier and interpreter stand together
LONGEST_FUNCTION = 60
MACHINE = re.compile(r"(?<![\w.$}])/(?:home|work|root|Users|mnt|media|private)/\w")
TEXT = {".py", ".c", ".h", ".S", ".toml", ".md", ".json", ".cfg", ".txt", ".ld", ".yml", ".yaml", ""}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {module_name(p): p for p in FILES}


def row(module: str) -> int:
    rows = {prefix: i for i, names in enumerate(ROWS) for prefix in names}
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if (prefix := ".".join(parts[:length])) in rows:
            return rows[prefix]
    raise AssertionError(f"{module} has no place in the import order of this test: decide who may import it")


def imports(module: str, everywhere: bool = True) -> Iterator[str]:
    """Modules of mcugrad that `module` imports: all, or at its top level only."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            names = [a.name.removeprefix("mcugrad.") for a in node.names if a.name.startswith("mcugrad.")]
        elif isinstance(node, ast.ImportFrom):
            base = absolute(module, node)
            names = [] if base is None else [f"{base}.{a.name}".strip(".") for a in node.names]
        else:
            continue
        yield from (n for name in names if (n := known(name)) is not None)


def absolute(module: str, node: ast.ImportFrom) -> str | None:
    """The module below mcugrad that a from-import names; None for another package."""
    if node.level == 0:
        name = node.module or ""
        return name.removeprefix("mcugrad").strip(".") if name.split(".")[0] == "mcugrad" else None
    is_package = MODULES[module].name == "__init__.py"
    package = module.split(".") if is_package and module != "__init__" else module.split(".")[:-1]
    above = package[: len(package) - (node.level - 1)]
    return ".".join([*above, *([node.module] if node.module else [])])


def known(name: str) -> str | None:
    """The module that `from name` reads: itself, or the one that defines its last part."""
    if name in MODULES:
        return name
    parent = name.rpartition(".")[0]
    return parent if parent in MODULES else "__init__"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_from_its_own_row_and_those_above(module: str) -> None:
    late = {name for name in imports(module) if row(name) > row(module)}
    assert not late


@pytest.mark.parametrize("module", [m for m in sorted(MODULES) if row(m) == 0])
def test_leaves_import_only_leaves(module: str) -> None:
    assert {name for name in imports(module) if row(name) > 0} == set()


def test_the_order_of_rows_is_that_of_the_design() -> None:
    line = ["ir", "ops", "training", "memory", "program", "devices", "search", "cli"]
    assert [row(name) for name in line] == sorted({row(name) for name in line})
    assert len({row(name) for name in ("importers", "quant", "training", "passes")}) == 1


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    table = {m: {n for n in imports(m, everywhere=False) if n != m} for m in MODULES if m != "__init__"}
    assert len(list(TopologicalSorter(table).static_order())) >= len(table)


def test_only_importers_and_exporters_know_onnx() -> None:
    for module, path in MODULES.items():
        if not module.startswith(("importers", "exporters")):
            assert not re.search(r"^\s*(?:import|from) onnx\b", path.read_text(encoding="utf-8"), re.M), module


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def allowed(path: Path) -> int:
    return LONGER.get(path.relative_to(ROOT).as_posix(), LONGEST_FILE)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert lines(path) <= allowed(path)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < LONGEST_FUNCTION, node.name


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_begins_with_one_sentence_that_says_what_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith('"""') or not text.strip()


def texts() -> Iterator[Path]:
    """Every text file of the project."""
    yield from (p for p in ROOT.iterdir() if p.is_file() and p.suffix in TEXT and p.name != ".git")
    for folder in ("src", "tests", "docs", "examples", "benchmarks"):
        for path in (ROOT / folder).rglob("*"):
            skipped = "__pycache__" in path.parts or any(p.endswith(".egg-info") for p in path.parts)
            if path.is_file() and path.suffix in TEXT and not skipped:
                yield path


def test_every_file_of_code_is_short() -> None:
    """Also what is not the package: its C runtime (assembly apart, whose loops are written out), tests, benchmarks."""
    code = [p for p in texts() if p.suffix in (".py", ".c", ".h")]
    assert {p.relative_to(ROOT).parts[0] for p in code} >= {"src", "tests", "benchmarks"}
    assert {str(p.relative_to(ROOT)): n for p in code if (n := lines(p)) > allowed(p)} == {}


def test_an_exception_is_a_file_that_needs_it() -> None:
    assert all(lines(ROOT / name) > LONGEST_FILE for name in LONGER)


def test_nothing_names_a_folder_of_one_machine() -> None:
    found = [f"{p.relative_to(ROOT)}: {m.group()}" for p in texts() for m in MACHINE.finditer(p.read_text("utf-8", "ignore"))]
    assert not found
