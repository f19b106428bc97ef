"""The folder of a result: it appears whole or not at all, and replaces only what mcugrad itself has made."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mcugrad.errors import McugradError

MANIFEST = ".mcugrad"  # lists the files of the folder, one path a line
BUILT = "build"  # what lies below a folder of this name is made again at any time


@contextmanager
def fresh_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out` that takes its place when the block succeeds, and vanishes when it does not.

    Raises McugradError when `out` cannot be written or holds something that mcugrad did not make."""
    place = out.resolve()
    _refuse_foreign(out, place)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    except OSError as error:
        raise McugradError(f"{out} cannot be written: {error.strerror}; choose another folder (-o)") from None
    try:
        yield temporary
        (temporary / MANIFEST).write_text("".join(f"{name}\n" for name in sorted(_files(temporary))), encoding="utf-8")
        temporary.chmod(0o755)
        if place.exists():
            shutil.rmtree(place)
        temporary.rename(place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_fresh(out: Path, data: bytes, mark: bytes) -> None:
    """Writes a file whole or not at all; it replaces only a file that holds `mark`, as those written before do.

    Raises McugradError when `out` is a folder, a file of someone else, or cannot be written."""
    try:
        if out.is_dir():
            raise McugradError(f"{out} is a folder: name a file (-o)")
        if out.exists() and mark not in out.read_bytes():
            raise McugradError(f"{out} exists and mcugrad did not write it: choose another name (-o), or move it away")
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=out.parent, prefix=f".{out.name}-", delete=False) as file:
            temporary = Path(file.name)
            try:
                file.write(data)
                file.flush()
                temporary.chmod(0o644)
                temporary.replace(out)
            finally:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise McugradError(f"{out} cannot be written: {error.strerror}; choose another name (-o)") from None


def _refuse_foreign(out: Path, place: Path) -> None:
    if place == Path.cwd():
        raise McugradError(f"{out} is the current folder: name a new folder in it (-o)")
    if not place.exists():
        return
    if not place.is_dir():
        raise McugradError(f"{out} exists and is not a folder: choose another name (-o)")
    try:
        found = _files(place)
        made = set((place / MANIFEST).read_text(encoding="utf-8").splitlines()) if (place / MANIFEST).exists() else set()
    except (OSError, UnicodeDecodeError) as error:
        raise McugradError(f"{out} cannot be read: {error}; choose another folder (-o)") from None
    foreign = sorted(found - made - {MANIFEST})
    if foreign:
        count = "" if len(foreign) == 1 else f" and {len(foreign) - 1} more"
        raise McugradError(
            f"{out} holds files that mcugrad did not make ({foreign[0]}{count}), and would be replaced: "
            "choose another folder (-o), or move them away"
        )


def _files(folder: Path) -> set[str]:
    """Paths of the files below `folder`, relative to it, those below a folder for builds left out."""
    paths = (p for p in folder.rglob("*") if p.is_symlink() or not p.is_dir())
    names = (p.relative_to(folder) for p in paths)
    return {str(name) for name in names if BUILT not in name.parts[:-1]}
