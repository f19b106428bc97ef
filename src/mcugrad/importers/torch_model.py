"""PyTorch: modules through torch.export, and the .pt2 files that it writes."""

from __future__ import annotations

import copy
import io
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from mcugrad.errors import McugradError
from mcugrad.importers.model import PYTORCH, Imported, Report
from mcugrad.importers.onnx import Translation
from mcugrad.importers.source import Source, check_order
from mcugrad.importers.torch_ops import source
from mcugrad.importers.torch_read import AGAIN, read


def load_pt2(path: Path) -> Imported:
    """The exported program in `path`; raises McugradError for an unreadable file, and for blockers, naming all of them."""
    return replace(Translation(_read(path.name, path), PYTORCH).result(), data=path.read_bytes())


def check_pt2(path: Path) -> Report:
    """Layers and blockers of the program in `path`; raises McugradError for an unreadable file only."""
    return Translation(_read(path.name, path), PYTORCH).report


def load_module(module: Any, example: Any) -> Imported:
    """A torch.nn.Module, as it runs on `example` (one tensor, cut to batch 1) in evaluation mode.

    Raises McugradError when torch cannot export it, and for blockers."""
    name, file = _exported(module, example)
    return replace(Translation(_read(name, file), PYTORCH).result(), data=file.getvalue())


def check_module(module: Any, example: Any) -> Report:
    """Layers and blockers of a torch.nn.Module; raises McugradError when torch cannot export it."""
    return Translation(_read(*_exported(module, example)), PYTORCH).report


def _exported(module: Any, example: Any) -> tuple[str, io.BytesIO]:
    """The module's name and what torch.export.save wrote."""
    name, file = type(module).__name__, io.BytesIO()
    try:
        import torch
    except ImportError:
        raise McugradError("PyTorch is not installed: pip install 'mcugrad[torch]'") from None
    if not isinstance(example, torch.Tensor):
        raise McugradError(f"{name}: give an example input, as in mcugrad.load(module, torch.zeros(1, 3, 96, 96))")
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.export.save(torch.export.export(copy.deepcopy(module).eval(), (example[:1],)), file)
    except Exception as error:  # whatever the user's module or torch raises
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise McugradError(
            f"{name}: torch.export cannot trace this module ({first}): remove data-dependent control flow, or write it with "
            "torch.onnx.export and load that file"
        ) from None
    return name, file


def _read(name: str, file: Any) -> Source:
    try:
        found = source(read(name, file))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError) as error:
        raise McugradError(f"{name}: an operator of the exported program is malformed ({error!r:.200}): {AGAIN}") from None
    check_order(found)
    if found.input_shape[:1] != (1,):
        raise McugradError(f"{name}: the input has shape {list(found.input_shape)}: export at batch 1")
    return found
