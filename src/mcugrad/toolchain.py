"""C compilers as functions: objects are compiled two at a time and kept in the user's cache by the hash of their input."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

from mcugrad.errors import McugradError

_JOBS = 2
_INCLUDE = re.compile(rb'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wconversion")


@dataclass(frozen=True)
class Compiler:
    """A compiler driver; `identity` changes when its output may."""

    command: tuple[str, ...]
    identity: str


def cache_folder() -> Path:
    """The user's cache for compiled objects, made on first use."""
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    folder = Path(base) / "mcugrad"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def zig() -> Compiler:
    """`zig cc` of the ziglang package."""
    return Compiler((sys.executable, "-m", "ziglang", "cc"), f"zig {version('ziglang')}")


def for_this_cpu(compiler: Compiler) -> Compiler:
    """The same compiler for objects that only this machine's processor may run."""
    return Compiler(compiler.command, f"{compiler.identity} on {platform.machine()} {platform.node()} {_instructions()}")


@cache
def _instructions() -> str:
    """A hash of what the processor can do, where the system tells; a cache may outlive a change of machine."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
    told = sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:12]


@cache
def installed(name: str) -> Compiler:
    """A compiler found on the PATH.  Raises McugradError when it is not there."""
    path = shutil.which(name)
    if path is None:
        raise McugradError(f"compiler {name!r} is not installed; install it, or use the default compiler 'zig'")
    answer = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    return Compiler((path,), answer.stdout.splitlines()[0] if answer.stdout else path)


def run(compiler: Compiler, arguments: Sequence[str], what: str) -> None:
    """One call of the compiler.  Raises McugradError with the compiler's own words when it fails."""
    environment = {
        **os.environ,
        "ZIG_GLOBAL_CACHE_DIR": str(cache_folder() / "zig"),
        "ZIG_LOCAL_CACHE_DIR": str(cache_folder() / "zig"),
    }
    done = subprocess.run([*compiler.command, *arguments], capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        said = "\n".join((done.stderr or done.stdout).splitlines()[:20])
        raise McugradError(f"{what} failed with {compiler.identity}:\n{said}")


def compile_objects(
    compiler: Compiler, sources: Sequence[tuple[Path, Sequence[str]]], include: Sequence[Path]
) -> tuple[Path, ...]:
    """Compiles each (source, flags) to an object file, in the order given; `include` are the header folders."""
    with ThreadPoolExecutor(_JOBS) as pool:
        return tuple(pool.map(lambda source: _compile(compiler, source[0], source[1], include), sources))


def _compile(compiler: Compiler, source: Path, flags: Sequence[str], include: Sequence[Path]) -> Path:
    key = _key(compiler, source, flags, include)
    target = cache_folder() / "objects" / key[:2] / f"{source.stem}-{key}.o"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    folders = [f"-I{folder}" for folder in include]
    partial = target.with_suffix(f".{os.getpid()}.o")
    run(compiler, [*flags, *folders, "-c", str(source), "-o", str(partial)], f"compiling {source.name}")
    partial.replace(target)
    return target


def _key(compiler: Compiler, source: Path, flags: Sequence[str], include: Sequence[Path]) -> str:
    digest = hashlib.sha256(f"{compiler.identity}\0{chr(0).join(flags)}".encode())
    for path in sorted(_closure(source, include), key=lambda path: path.name):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:24]


def _closure(source: Path, include: Sequence[Path]) -> set[Path]:
    """The source and every header it includes by a quoted name, found the way a compiler finds them."""
    seen: set[Path] = set()
    todo = [source]
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        for name in _INCLUDE.findall(path.read_bytes()):
            places = (folder / name.decode() for folder in (path.parent, *include))
            todo.extend(place.resolve() for place in places if place.is_file())
    return seen


def link(compiler: Compiler, objects: Sequence[Path], flags: Sequence[str], output: Path) -> None:
    """Links the objects; the output appears only when it is complete."""
    partial = output.with_suffix(f".{os.getpid()}.partial")
    try:
        run(compiler, [*map(str, objects), *flags, "-o", str(partial)], f"linking {output.name}")
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)


def shared_library(compiler: Compiler, objects: Sequence[Path], flags: Sequence[str], folder: Path, stem: str) -> Path:
    """A shared library whose name holds the hash of its objects: a changed library never reuses a path, for dlopen
    would then go on with the old one."""
    digest = hashlib.sha256("\0".join([*flags, *(path.name for path in objects)]).encode()).hexdigest()[:16]
    path = folder / f"{stem}-{digest}.so"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        link(compiler, objects, ["-shared", *flags], path)
    return path
