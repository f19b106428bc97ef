"""The one interface of everything that runs a compiled model: host twin, virtual MCU, QEMU, a real board."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mcugrad.errors import McugradError
from mcugrad.nor import NorFlash

Int8 = NDArray[np.int8]
Int32 = NDArray[np.int32]

NEVER_SKIP = 32769  # a skip threshold no probability reaches (Q15)
STATUS = {
    1: "a memory block is missing, too small or misaligned",
    2: "the label is outside [0, classes), or the model learns from targets",
    3: "the imported parameters are damaged",
    4: "the parameters belong to another model, the ABI differs, or the model cannot train",
    5: "the row source failed",
    6: "flash did not take the sample's latent: it was learned from, but is not kept",
}


class DeviceFault(McugradError):
    """The program on the device did what a device does not allow.

    `pc` is the address of the instruction, `symbol` the function it lies in, `address` what it accessed (None: no
    access, or unknown).
    """

    def __init__(self, message: str, *, pc: int, symbol: str, address: int | None = None) -> None:
        super().__init__(message)
        self.pc, self.symbol, self.address = pc, symbol, address


@dataclass(frozen=True)
class ModelFacts:
    """What a model says about itself; sizes in bytes."""

    abi: int
    fingerprint: int
    arena_bytes: int
    state_bytes: int
    input_bytes: int
    rows: int
    row_bytes: int
    input_rows: int  # 1: the input is pulled row by row
    classes: int
    trains: int  # 0: inference only
    targets: int = 0  # numbers of a target; 0: it is a label in [0, classes), or the sample itself


@dataclass(frozen=True)
class StepResult:
    """One training step: `p_label` is Q15, `progress` an mcg_step_t, `instructions` None where nothing counts."""

    p_label: int
    predicted: int
    progress: int
    saturated: int
    instructions: int | None = None


@dataclass(frozen=True)
class Counters:
    """Instructions of the last infer or train_step.  `total` is forward + backward + update, without the link."""

    forward: int
    backward: int
    update: int
    link: int

    @property
    def total(self) -> int:
        return self.forward + self.backward + self.update


@dataclass(frozen=True)
class Control:
    """The run-time settings of learning: see mcg_context_t."""

    seed: int = 0
    step: int = 0
    halvings: int = 0
    skip: int = NEVER_SKIP


class Device(Protocol):
    """A loaded model that infers and learns.  Inputs are int8 arrays of `input_bytes` elements (NHWC)."""

    @property
    def facts(self) -> ModelFacts: ...

    @property
    def flash(self) -> NorFlash | None:
        """The flash that latents lie in; None where they lie in SRAM, or out of sight."""

    def infer(self, x: Int8) -> Int32:
        """Logits int32 [classes] in accumulator units."""

    def train_step(self, x: Int8, label: int | Int32) -> StepResult:
        """Learns one sample from its label, or its target int32 [targets].  Raises McugradError for a label outside
        [0, classes) and a target of another length."""

    def evaluate(self, x: Int8, labels: Int32) -> tuple[int, int]:
        """(seen, correct) over samples [n, ...]."""

    def read_params(self) -> bytes:
        """The state block: everything that learning changes."""

    def write_params(self, state: bytes) -> None:
        """Replaces the state block.  Raises McugradError when its size is wrong."""

    def control(self) -> Control: ...

    def set_control(
        self,
        *,
        seed: int | None = None,
        step: int | None = None,
        halvings: int | None = None,
        skip: int | None = None,
    ) -> Control:
        """Changes the named settings and returns all of them."""

    def counters(self) -> Counters | None:
        """None where instructions are not counted."""

    def reset(self) -> None:
        """Initial parameters, initial settings."""

    def close(self) -> None: ...

    def __enter__(self) -> Device: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


def check_sample(facts: ModelFacts, x: Int8) -> Int8:
    """`x` as a contiguous array of input_bytes int8.  Raises McugradError for another type or size."""
    if x.dtype != np.int8 or x.size != facts.input_bytes:
        raise McugradError(
            f"the model takes {facts.input_bytes} int8 values, got {x.size} of {x.dtype}; quantize the input first"
        )
    return np.ascontiguousarray(x).reshape(-1)


def check_samples(facts: ModelFacts, x: Int8, labels: Int32 | None = None) -> Int8:
    """Like check_sample for [n, ...]; `labels` must have n elements."""
    n = len(x)
    if x.dtype != np.int8 or x.size != n * facts.input_bytes:
        raise McugradError(f"the model takes [n, ...] of {facts.input_bytes} int8 values each, got {x.shape} {x.dtype}")
    if labels is not None and len(labels) != n:
        raise McugradError(f"{n} samples, but {len(labels)} labels")
    return np.ascontiguousarray(x).reshape(n, -1)


def check_targets(facts: ModelFacts, targets: int | Int32, n: int) -> Int32:
    """Labels or targets of n samples, flat int32.  Raises McugradError when there are not n of the right length."""
    flat = np.ascontiguousarray(targets, np.int32).reshape(-1)
    if len(flat) != n * max(facts.targets, 1):
        said = f"a target of {facts.targets} numbers" if facts.targets else "one label"
        raise McugradError(f"the model learns from {said} per sample, got {len(flat)} numbers for {n} samples")
    return flat


def check_state(facts: ModelFacts, state: bytes) -> bytes:
    """Raises McugradError when `state` is not a state block of this model."""
    if len(state) != facts.state_bytes:
        raise McugradError(f"the model's state is {facts.state_bytes} bytes, got {len(state)}: another model's?")
    return state


def status_error(status: int, doing: str) -> McugradError:
    """The error for a status the C runtime returned."""
    return McugradError(f"{doing}: {STATUS.get(status, f'status {status}')}")
