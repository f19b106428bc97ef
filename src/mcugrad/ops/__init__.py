"""The registry: every op family in this folder, found by listing it."""

from __future__ import annotations

import importlib
import pkgutil

from mcugrad.ir import Op


def _subclasses(cls: type[Op]) -> list[type[Op]]:
    return [s for c in cls.__subclasses__() for s in (c, *_subclasses(c))]


def registry() -> dict[str, type[Op]]:
    """All ops by class name."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return {c.__name__: c for c in sorted(_subclasses(Op), key=lambda c: c.__name__)}
