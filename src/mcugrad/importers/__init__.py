"""Foreign models in: the only place where names of other formats are read."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcugrad.errors import McugradError
from mcugrad.importers.model import Blocker, Classifier, Imported, Layer, Report

__all__ = ["Blocker", "Classifier", "Imported", "Layer", "Report", "check", "examine", "load"]

HEAD = 16  # bytes that tell the formats apart
DATA = {".npz", ".npy", ".csv", ".png", ".jpg", ".jpeg"}  # what is given in place of a model now and then


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


def _pt2() -> Format:
    from mcugrad.importers.torch_model import check_pt2, load_pt2

    return Format(load_pt2, check_pt2)


def load(model: Any, example: Any = None, size: int | None = None) -> Imported:
    """A model: the path of a file (.onnx, .tflite, .pt2, or a .pkl of the published int8 networks), or a torch.nn.Module
    with an example input, [1,C,H,W], [1,C,L] or [1,F].  What was imported before is returned as it is.
    size: pixels per side of the input; only the published networks can be read at another than their own.

    Raises McugradError when the file cannot be read, and, naming every blocker, when the model cannot be imported.
    """
    if isinstance(model, Imported):
        return model
    if isinstance(model, str | Path):
        return _format(Path(model)).load(Path(model)) if size is None else _resized(Path(model), size)
    from mcugrad.importers.torch_model import load_module

    return load_module(model, example)


def _resized(path: Path, size: int) -> Imported:
    from mcugrad.importers.mcunet import MAX_PIXELS, load_mcunet

    if path.suffix != ".pkl":
        raise McugradError(f"{path}: only published networks (.pkl) can be read at another size: export this one at {size}")
    if not 16 <= size <= MAX_PIXELS:
        raise McugradError(f"an input of {size}x{size} pixels: give a size from 16 to {MAX_PIXELS}")
    return load_mcunet(path, size)


def check(model: Any, example: Any = None) -> Report:
    """What is supported in the model and every blocker; raises McugradError only when it cannot be read.

    model, example: as for `load`."""
    if isinstance(model, Imported):
        return model.report
    if isinstance(model, str | Path):
        return _format(Path(model)).check(Path(model))
    from mcugrad.importers.torch_model import check_module

    return check_module(model, example)


def examine(model: Any) -> tuple[Report, Imported | None]:
    """What `check` says, and the model where nothing stands in the way; raises McugradError when it cannot be read."""
    with suppress(McugradError):
        imported = load(model)
        return imported.report, imported
    return check(model), None


def _format(path: Path) -> Format:
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise McugradError(
            f"{path}: cannot be read ({error.strerror}): give the path of an .onnx, .tflite, .pt2 or .pkl model"
        ) from None
    if not head:
        raise McugradError(f"{path}: the file is empty: export the model again")
    if path.suffix.lower() in DATA:
        raise McugradError(f"{path}: this is data, not a model: give the model first, the data as --data or --calibrate")
    if head[4:8] == b"TFL3" or path.suffix == ".tflite":
        return _tflite()
    if path.suffix == ".pt2":
        return _pt2()
    if path.suffix in {".pt", ".pth", ".th", ".ckpt"}:
        raise McugradError(
            f"{path}: this holds parameters without the network: build the module, load them into it "
            "(torch.load(..., weights_only=True)), then torch.export.save(torch.export.export(module.eval(), (x,)), 'm.pt2')"
        )
    if head[:4] == b"PK\x03\x04" or path.suffix == ".pkl":
        return _mcunet()
    if path.suffix == ".onnx" or head[:1] == b"\x08":
        return _onnx()
    raise McugradError(f"{path}: this is neither ONNX nor TFLite nor PyTorch (.pt2): give an .onnx, .tflite or .pt2 file")
