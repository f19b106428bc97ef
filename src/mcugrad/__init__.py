"""mcugrad: neural networks that learn on a microcontroller.

The verbs of the command line as calls: check(path), load(path), compile(request, folder), train(request, data, ...),
export(run, to, ...).
Names are imported when they are first used.  The stages between them stand in the modules of docs/map.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mcugrad.api import Request
    from mcugrad.api import compile_request as compile
    from mcugrad.api import train_request as train
    from mcugrad.errors import BudgetError, McugradError
    from mcugrad.exporters.command import export_run as export
    from mcugrad.importers import check, load
    from mcugrad.trainer import Course
    from mcugrad.training.scheme import UpdateScheme

__version__ = "0.1.0"

_PLACES = {
    "BudgetError": "errors:BudgetError",
    "Course": "trainer:Course",
    "McugradError": "errors:McugradError",
    "Request": "api:Request",
    "UpdateScheme": "training.scheme:UpdateScheme",
    "check": "importers:check",
    "compile": "api:compile_request",
    "export": "exporters.command:export_run",
    "load": "importers:load",
    "train": "api:train_request",
}

__all__ = [
    "BudgetError",
    "Course",
    "McugradError",
    "Request",
    "UpdateScheme",
    "__version__",
    "check",
    "compile",
    "export",
    "load",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'mcugrad' has no attribute {name!r}")
    module, attribute = _PLACES[name].split(":")
    return getattr(importlib.import_module(f"mcugrad.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
