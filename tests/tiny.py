"""The hand-written model of tests/tiny_model as a folder ready to build, and samples for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

import mcugrad
from mcugrad.devices.base import Int8, Int32

RUNTIME = Path(mcugrad.__file__).parent / "csrc"
MODEL = Path(__file__).parent / "tiny_model"


def tiny_folder(at: Path) -> Path:
    """Copies the model and the runtime to `at`, as the printer of generated code does."""
    shutil.copytree(MODEL, at, dirs_exist_ok=True)
    shutil.copytree(RUNTIME / "firmware", at / "firmware", dirs_exist_ok=True)
    for name in ("mcugrad.h", "runtime.c"):
        shutil.copy(RUNTIME / name, at / name)
    return at


def samples(n: int, seed: int = 0) -> tuple[Int8, Int32]:
    """x int8 [n, 8, 16], labels int32 [n] in 0..3: which of the first four values is largest."""
    x = np.random.default_rng(seed).integers(-128, 128, (n, 8, 16)).astype(np.int8)
    return x, x.reshape(n, -1)[:, :4].argmax(1).astype(np.int32)
