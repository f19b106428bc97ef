"""The networks that are measured: the shipped digits network, and published int8 networks where their files are."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks import reference
from mcugrad.compiler import Budget, Compiled, compile_model
from mcugrad.data import Calibration
from mcugrad.demo import ASSET
from mcugrad.digits import PREPROCESS
from mcugrad.errors import McugradError
from mcugrad.importers import load
from mcugrad.prepare import CALIBRATION_SAMPLES, Prepared, prepare, synthetic
from mcugrad.targets import get_target
from mcugrad.training.scheme import UpdateScheme, read_scheme, with_bias_bits, with_residual_bits

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT.parent / "shared" / "models" / "tiny_training"
DIGITS = "digits"
CLASSES = 10


@dataclass(frozen=True)
class Setting:
    """A build to measure; sram in KiB, input_mode as of `mcugrad compile --input`.

    residual_bits, bias_bits: instead of the scheme's.  input_size: pixels per side, instead of the network's."""

    model: str
    scheme: str
    sram: int = 256
    input_mode: str = "resident"
    target: str = "cortex-m7"
    residual_bits: int | None = None
    bias_bits: int | None = None
    input_size: int | None = None

    @property
    def network(self) -> str:
        """The model's name without folder or suffix."""
        return self.model if self.model == DIGITS else model_file(self.model).stem

    @property
    def name(self) -> str:
        size = "" if self.input_size is None else f"-{self.input_size}px"
        bits = "" if self.residual_bits is None else f"-F{self.residual_bits}"
        bits += "" if self.bias_bits is None else f"-b{self.bias_bits}"
        return f"step/{self.network}{size}/{self.scheme}{bits}/{self.input_mode}-{self.sram}K/{self.target}"

    @property
    def update_scheme(self) -> UpdateScheme:
        scheme = read_scheme(self.scheme, self.network)
        scheme = scheme if self.residual_bits is None else with_residual_bits(scheme, self.residual_bits)
        return scheme if self.bias_bits is None else with_bias_bits(scheme, self.bias_bits)

    @property
    def available(self) -> bool:
        return not self.missing

    @property
    def missing(self) -> str:
        """What this machine lacks to measure it; "" when it can."""
        if self.model != DIGITS and not model_file(self.model).exists():
            return f"the file of {self.model}"
        return lacking(self.target)


TARGETS = ("cortex-m7", "cortex-m4", "cortex-m0plus")
IN_QEMU = ("cortex-m55",)  # cores that the virtual MCU does not know
RISCV = "rv32imc"  # neither does it know this one; plain C
REFERENCE = Setting(reference.MODEL, reference.SCHEME)  # layerwise, the image resident
STREAMED = Setting(reference.MODEL, reference.SCHEME, 96, "rows")
FAST = tuple(Setting(DIGITS, "demo", 64, "resident", target) for target in TARGETS)
SMALLEST = Setting(reference.MODEL, reference.SCHEME, 64, "rows", residual_bits=4, bias_bits=16)  # in chunks of channels
SMALL = (  # the least memory, mapped in the virtual MCU to the byte
    Setting(reference.MODEL, reference.SCHEME, 80, "rows", residual_bits=4),
    Setting(reference.MODEL, reference.SCHEME, 108, "resident", residual_bits=8),
    Setting(reference.MODEL, reference.SCHEME, 96, "resident", residual_bits=8, bias_bits=16),
    Setting(reference.MODEL, "99kb", 140, "rows", residual_bits=4),
    Setting("mbv2-w0.35", "49kb", 76, "rows", residual_bits=4),
    Setting("mbv2-w0.35", "40k", 32, "rows", input_size=96),
    SMALLEST,
)
FULL = (  # everything learns
    Setting("mbv2-w0.35", "full", 512, "resident", residual_bits=4),
    Setting("mbv2-w0.35", "full", 400, "resident", residual_bits=0),
)
SLOW = (
    REFERENCE,
    STREAMED,
    Setting(reference.MODEL, "99kb", 256, "auto"),
    Setting("mbv2-w0.35", "49kb", 256, "auto"),
    Setting("mbv2-w0.35", "99kb", 256, "auto"),
    Setting(reference.MODEL, reference.SCHEME, target="cortex-m4"),
    Setting(reference.MODEL, reference.SCHEME, target="cortex-m0plus"),
    *(Setting(reference.MODEL, reference.SCHEME, target=target) for target in IN_QEMU),
    Setting(DIGITS, "demo", 64, "resident", RISCV),
    *SMALL,
    *FULL,
)


def lacking(target: str) -> str:
    """What this machine lacks to count instructions of that target; "" when it can."""
    core = get_target(target)
    return "" if core.unicorn_cpu or shutil.which(core.qemu_program) else core.qemu_program


def model_file(model: str) -> Path:
    """A path as it is; a name is that of a published network."""
    return Path(model) if Path(model).suffix in (".pkl", ".onnx") else MODELS / f"{model}.pkl"


def prepared(model: str, size: int | None = None) -> Prepared:
    """The quantized network with a fresh head of ten classes, on synthetic samples: the same on every machine.

    size: pixels per side, of a published network.  Raises McugradError when the model's file is not there."""
    if model == DIGITS:
        images = synthetic(CALIBRATION_SAMPLES, (16, 16, 1), 0).astype(np.int16) + 128
        labels = np.random.default_rng(0).integers(0, CLASSES, len(images))
        calibration = Calibration(images.astype(np.uint8), labels, "synthetic images")
        return prepare(replace(load(ASSET), preprocess=PREPROCESS), classes=CLASSES, calibration=calibration)
    if not model_file(model).exists():
        raise McugradError(f"{model_file(model)} is not there: give the path of the model, or measure --model {DIGITS}")
    return prepare(load(model_file(model), size=size), classes=CLASSES)


def compiled(setting: Setting, folder: Path) -> Compiled:
    """The setting's firmware.  Raises McugradError when the model is missing or does not fit."""
    flash = None if setting.target != "cortex-m0plus" else 1 << 20
    budget = Budget(setting.target, sram=setting.sram << 10, flash=flash, input_mode=setting.input_mode)
    network = prepared(setting.model, setting.input_size)
    return compile_model(network, setting.update_scheme, folder, budget)
