"""Foreign models in: the only place where names of other formats are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mcugrad.errors import McugradError
from mcugrad.importers.model import Blocker, Classifier, Imported, Layer, Report

__all__ = ["Blocker", "Classifier", "Imported", "Layer", "Report", "check", "load"]

HEAD = 16  # bytes that tell the formats apart


@dataclass(frozen=True)
class Format:
    """A file format and its two readers."""

    load: Callable[[Path], Imported]
    check: Callable[[Path], Report]


def _onnx() -> Format:
    from mcugrad.importers.onnx import check_onnx, load_onnx

    return Format(load_onnx, check_onnx)


def _tflite() -> Format:
    from mcugrad.importers.tflite import check_tflite, load_tflite

    return Format(load_tflite, check_tflite)


def _mcunet() -> Format:
    from mcugrad.importers.mcunet import load_mcunet

    return Format(load_mcunet, lambda path: load_mcunet(path).report)


def load(path: str | Path) -> Imported:
    """The model in `path` (.onnx, .tflite, or a .pkl of the published int8 networks).

    Raises McugradError when the file cannot be read, and, naming every blocker, when the model cannot be imported.
    """
    file = Path(path)
    return _format(file).load(file)


def check(path: str | Path) -> Report:
    """What is supported in the model and every blocker; raises McugradError only when the file cannot be read."""
    file = Path(path)
    return _format(file).check(file)


def _format(path: Path) -> Format:
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise McugradError(
            f"{path}: cannot be read ({error.strerror}): give the path of an .onnx, .tflite or .pkl model"
        ) from None
    if not head:
        raise McugradError(f"{path}: the file is empty: export the model again")
    if head[4:8] == b"TFL3" or path.suffix == ".tflite":
        return _tflite()
    if path.suffix in {".pt2", ".pt", ".pth", ".th"}:
        raise McugradError(
            f"{path}: PyTorch files are not read yet: write the model with torch.onnx.export(module, x, 'm.onnx')"
        )
    if head[:4] == b"PK\x03\x04" or path.suffix == ".pkl":
        return _mcunet()
    if path.suffix == ".onnx" or head[:1] == b"\x08":
        return _onnx()
    raise McugradError(f"{path}: this is neither ONNX nor TFLite nor a published int8 .pkl: give an .onnx or .tflite file")
