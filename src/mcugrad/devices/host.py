"""The host twin: the same C, its kernels as vectors where that pays, built for this machine and called through ctypes."""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import TracebackType

import numpy as np

from mcugrad.devices.base import (
    Control,
    Counters,
    Int8,
    Int32,
    ModelFacts,
    StepResult,
    check_sample,
    check_samples,
    check_state,
    check_targets,
    status_error,
)
from mcugrad.errors import McugradError
from mcugrad.nor import NorFlash

_ABI = 3


class _Model(ctypes.Structure):
    """The leading fields of mcg_model_t."""

    _fields_ = (
        ("abi", ctypes.c_uint32),
        ("fingerprint", ctypes.c_uint32),
        ("arena_bytes", ctypes.c_uint32),
        ("state_bytes", ctypes.c_uint32),
        ("input_offset", ctypes.c_uint32),
        ("input_bytes", ctypes.c_uint32),
        ("rows", ctypes.c_uint32),
        ("row_bytes", ctypes.c_uint32),
        ("input_rows", ctypes.c_uint32),
        ("classes", ctypes.c_uint32),
        ("targets", ctypes.c_uint32),
        ("parameter_count", ctypes.c_uint32),
        ("initial_bytes", ctypes.c_uint32),
        *((name, ctypes.c_void_p) for name in ("initial_state", "parameters", "infer", "train")),
    )


class _Context(ctypes.Structure):
    """mcg_context_t"""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("arena", "state", "row_source", "row_user")),
        ("seed", ctypes.c_uint32),
        ("step", ctypes.c_uint32),
        ("halvings", ctypes.c_int32),
        ("skip", ctypes.c_int32),
    )


class _Latents(ctypes.Structure):
    """mcg_latents_t"""

    _fields_ = tuple((name, ctypes.c_uint32) for name in ("slots", "pitch", "erase"))


_WRITE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32)


class Host:
    """A model inside a shared library made by build_host."""

    def __init__(self, library: Path) -> None:
        self._library = _bind(ctypes.CDLL(str(library)))
        self._facts = _facts(self._library.mcg_host_model().contents)
        if self._facts.abi != _ABI:
            raise McugradError(f"{library} speaks ABI {self._facts.abi}, this version {_ABI}: build it again")
        handle = self._library.mcg_host_open()
        if not handle:
            raise McugradError(f"{library}: no memory for the model's blocks")
        self._handle: ctypes.c_void_p | None = ctypes.c_void_p(handle)
        self._flash = self._attach_flash()

    def _attach_flash(self) -> NorFlash | None:
        """Gives a model that keeps latents in flash a flash to write to."""
        try:
            latents = _Latents.in_dll(self._library, "mcg_latents")
        except ValueError:
            return None
        flash, pitch = NorFlash(latents.slots * latents.pitch, latents.erase), latents.pitch

        def write(_user: int | None, slot: int, latent: int, size: int) -> int:
            return int(not flash.write(slot * pitch, pitch, ctypes.string_at(latent, size)))

        self._write = _WRITE(write)
        self._library.mcg_host_store(self._open(), ctypes.c_void_p(flash.data.ctypes.data), self._write)
        return flash

    @classmethod
    def load(cls, library: Path) -> Host:
        """A device running that library."""
        return cls(library)

    @property
    def facts(self) -> ModelFacts:
        return self._facts

    @property
    def flash(self) -> NorFlash | None:
        return self._flash

    def infer(self, x: Int8) -> Int32:
        return self.infer_many(check_sample(self._facts, x)[None]).reshape(-1)

    def infer_many(self, x: Int8) -> Int32:
        """Logits int32 [n, classes] of samples int8 [n, ...]."""
        samples = check_samples(self._facts, x)
        logits = np.empty((len(samples), self._facts.classes), np.int32)
        status = self._library.mcg_host_infer_many(self._open(), samples, len(samples), logits)
        if status:
            raise status_error(status, "inference on the host twin")
        return logits

    def train_step(self, x: Int8, label: int | Int32) -> StepResult:
        return self.train_many(check_sample(self._facts, x)[None], np.atleast_1d(np.asarray(label, np.int32)))[0]

    def train_many(self, x: Int8, labels: Int32) -> list[StepResult]:
        """One training step per sample of int8 [n, ...], in order, without returning to Python in between."""
        samples = check_samples(self._facts, x)
        results = np.zeros((len(samples), 4), np.int32)
        wanted = check_targets(self._facts, labels, len(samples))
        status = self._library.mcg_host_train_many(self._open(), samples, wanted, len(samples), results)
        if status:
            raise status_error(status, "training on the host twin")
        return [StepResult(*row) for row in results.tolist()]

    def evaluate(self, x: Int8, labels: Int32) -> tuple[int, int]:
        check_samples(self._facts, x, labels)
        return len(labels), int((self.infer_many(x).argmax(1) == labels).sum())

    def read_params(self) -> bytes:
        return ctypes.string_at(self._library.mcg_host_state(self._open()), self._facts.state_bytes)

    def write_params(self, state: bytes) -> None:
        block = check_state(self._facts, state)
        ctypes.memmove(self._library.mcg_host_state(self._open()), block, len(block))

    def control(self) -> Control:
        context = self._context()
        return Control(context.seed, context.step, context.halvings, context.skip)

    def set_control(
        self,
        *,
        seed: int | None = None,
        step: int | None = None,
        halvings: int | None = None,
        skip: int | None = None,
    ) -> Control:
        context = self._context()
        for name, value in (("seed", seed), ("step", step), ("halvings", halvings), ("skip", skip)):
            if value is not None:
                setattr(context, name, value)
        return self.control()

    def counters(self) -> Counters | None:
        return None

    def reset(self) -> None:
        status = self._library.mcg_host_reset(self._open())
        if status:
            raise status_error(status, "reset of the host twin")

    def close(self) -> None:
        if self._handle is not None:
            self._library.mcg_host_close(self._handle)
            self._handle = None

    def __enter__(self) -> Host:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()

    def _open(self) -> ctypes.c_void_p:
        if self._handle is None:
            raise McugradError("the host twin is closed")
        return self._handle

    def _context(self) -> _Context:
        context: _Context = self._library.mcg_host_context(self._open()).contents
        return context


def _facts(model: _Model) -> ModelFacts:
    return ModelFacts(
        model.abi,
        model.fingerprint,
        model.arena_bytes,
        model.state_bytes,
        model.input_bytes,
        model.rows,
        model.row_bytes,
        model.input_rows,
        model.classes,
        int(bool(model.train)),
        model.targets,
    )


def _bind(library: ctypes.CDLL) -> ctypes.CDLL:
    """Declares the functions of csrc/host/host.c."""
    samples = np.ctypeslib.ndpointer(np.int8, ndim=2, flags="C")
    matrix = np.ctypeslib.ndpointer(np.int32, ndim=2, flags="C")
    vector = np.ctypeslib.ndpointer(np.int32, ndim=1, flags="C")
    handle, status = ctypes.c_void_p, ctypes.c_int32
    for name, result, arguments in (
        ("mcg_host_model", ctypes.POINTER(_Model), ()),
        ("mcg_host_open", handle, ()),
        ("mcg_host_close", None, (handle,)),
        ("mcg_host_reset", status, (handle,)),
        ("mcg_host_state", handle, (handle,)),
        ("mcg_host_context", ctypes.POINTER(_Context), (handle,)),
        ("mcg_host_infer_many", status, (handle, samples, ctypes.c_int32, matrix)),
        ("mcg_host_train_many", status, (handle, samples, vector, ctypes.c_int32, matrix)),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
