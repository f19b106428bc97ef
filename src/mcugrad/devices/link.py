"""The host side of the framed protocol: frames that survive noise, and a Device on top of them.

The protocol is described in csrc/firmware/link.h; this file and link.c are its two ends.
"""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from types import TracebackType
from typing import Protocol, TypeVar

import numpy as np
from cobs import cobs

from mcugrad.devices.base import (
    Control,
    Counters,
    DeviceFault,
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

Self = TypeVar("Self", bound="LinkedDevice")

VERSION = 1
PAYLOAD = 256  # bytes, at most
_ABI = 3
_TRIES = 6
_SHORT, _LONG = 1.0, 60.0  # seconds to wait for an answer that needs no computing, and for one that does
_MOMENT = 0.1  # seconds to wait for what follows damage


class Type(IntEnum):
    """Message types of link.h."""

    HELLO = 1
    RESET = 2
    CONTROL = 3
    INPUT = 4
    INFER = 5
    LOGITS = 6
    TRAIN = 7
    EVAL = 8
    READ = 9
    WRITE = 10
    CRC = 11
    ROW = 12
    STACK = 13
    TARGET = 14
    ERROR = 127


class ErrorCode(IntEnum):
    """Codes of an ERROR answer."""

    FRAME = 1
    VERSION = 2
    TYPE = 3
    ARGUMENT = 4
    FAULT = 5
    STATUS = 6


_COMPUTES = frozenset({Type.INFER, Type.TRAIN, Type.EVAL})


class LinkError(McugradError):
    """The link does not carry what it should."""


class Transport(Protocol):
    """Moves bytes to and from a firmware."""

    window: int  # requests that may be under way at once; 1 where the receiver has no buffer

    def write(self, data: bytes) -> None: ...

    def read(self, timeout: float) -> bytes:
        """At least one byte, or b"" when none came within `timeout` seconds."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class Frame:
    """One decoded frame."""

    version: int
    sequence: int
    type: int
    payload: bytes


def encode(frame: Frame) -> bytes:
    """COBS(version, sequence, type, payload, CRC-32) and the closing zero."""
    body = bytes((frame.version, frame.sequence, frame.type)) + frame.payload
    stuffed: bytes = cobs.encode(body + struct.pack("<I", zlib.crc32(body)))
    return stuffed + b"\0"


def decode(stuffed: bytes) -> Frame | None:
    """The frame between two zeros; None when it is damaged, truncated or oversize."""
    try:
        body: bytes = cobs.decode(stuffed)
    except cobs.DecodeError:
        return None
    if not 7 <= len(body) <= 7 + PAYLOAD or struct.pack("<I", zlib.crc32(body[:-4])) != body[-4:]:
        return None
    return Frame(body[0], body[1], body[2], body[3:-4])


def _chunks(data: bytes, size: int) -> Iterator[tuple[int, bytes]]:
    for offset in range(0, len(data), size):
        yield offset, data[offset : offset + size]


class Link:
    """Requests and answers over a transport; what is lost or damaged is sent again and executed once."""

    def __init__(self, transport: Transport, where: Callable[[int], str] = "{:#010x}".format) -> None:
        self.transport = transport
        self.where = where  # names an address of the firmware in a fault's message
        self.row: Callable[[int], bytes] | None = None  # answers the firmware's requests for a row of the input
        self.resent = 0  # requests sent more than once since the link was opened
        self._sequence = 0
        self._rows_sent = 0
        self._buffer = bytearray()

    def request(self, kind: Type, payload: bytes = b"") -> bytes:
        """Sends one request and returns the payload of its answer.

        Raises LinkError when no answer comes, DeviceFault when the firmware faulted, McugradError when it refuses.
        """
        return self.requests(kind, (payload,))[0]

    def requests(self, kind: Type, payloads: Sequence[bytes]) -> list[bytes]:
        """Requests of one idempotent kind, as many under way at once as the transport allows."""
        answers: list[bytes] = []
        for first in range(0, len(payloads), self.transport.window):
            answers += self._window(kind, payloads[first : first + self.transport.window])
        return answers

    def _window(self, kind: Type, payloads: Sequence[bytes]) -> list[bytes]:
        frames = {}
        for payload in payloads:
            self._sequence = (self._sequence + 1) % 256
            frames[self._sequence] = encode(Frame(VERSION, self._sequence, kind, payload))
        answers: dict[int, bytes] = {}
        failures = 0
        while failures < _TRIES:
            missing = [sequence for sequence in frames if sequence not in answers]
            before = self._rows_sent - len(missing)
            again = b"\0" if failures else b""  # ends a frame whose end was lost
            self.transport.write(again + b"".join(frames[sequence] for sequence in missing))
            self._collect(kind, set(missing), answers)
            if len(answers) == len(frames):
                return [answers[sequence] for sequence in frames]
            missing_now = len(frames) - len(answers)
            self.resent += missing_now
            failures = 0 if self._rows_sent - missing_now > before else failures + 1
        raise LinkError(
            f"no valid answer to {kind.name} in {_TRIES} tries: check that the device runs mcugrad firmware and "
            "that the port, its speed and the cable are right"
        )

    def _collect(self, kind: Type, missing: set[int], answers: dict[int, bytes]) -> None:
        """Takes frames until nothing is missing or nothing comes any more; after damage it waits only a moment."""
        wait = _LONG if kind in _COMPUTES else _SHORT
        while missing and (frame := self._next(wait)):
            if frame == _DAMAGED or self._says(frame, ErrorCode.FRAME):
                wait = _MOMENT
            elif self._says(frame, ErrorCode.FAULT) or (frame.type == Type.ERROR and frame.sequence in missing):
                self._refused(kind, frame.payload)
            elif frame.type == Type.ROW and frame.sequence in missing:
                self._send_row(frame)
            elif frame.type == kind and frame.sequence in missing:
                missing.discard(frame.sequence)
                answers[frame.sequence] = frame.payload

    @staticmethod
    def _says(frame: Frame, code: ErrorCode) -> bool:
        """Damage and faults concern whatever is under way, so their sequence number does not count."""
        return frame.type == Type.ERROR and frame.payload[:1] == bytes((code,))

    def _next(self, timeout: float) -> Frame | None:
        """The next frame, _DAMAGED for one that cannot be read, None when nothing comes within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            stuffed, zero, rest = self._buffer.partition(b"\0")
            if zero:
                self._buffer = rest
                if stuffed:
                    return decode(bytes(stuffed)) or _DAMAGED
                continue
            if len(stuffed) > 4 * PAYLOAD:
                self._buffer.clear()  # endless noise without a delimiter
                return _DAMAGED
            data = self.transport.read(max(deadline - time.monotonic(), 0.0))
            if not data:
                return None
            self._buffer += data

    def _send_row(self, request: Frame) -> None:
        if len(request.payload) != 8 or self.row is None:
            return
        row, offset = struct.unpack("<II", request.payload)
        self._rows_sent += 1
        data = self.row(row)[offset : offset + PAYLOAD - 8]
        self.transport.write(encode(Frame(VERSION, request.sequence, Type.ROW, request.payload + data)))

    def _refused(self, kind: Type, payload: bytes) -> None:
        code, detail = struct.unpack_from("<BI", payload.ljust(5, b"\0"))
        if code == ErrorCode.FAULT:
            status = struct.unpack_from("<I", payload, 5)[0] if len(payload) >= 9 else 0
            raise DeviceFault(
                f"the device faulted in {self.where(detail)} (pc {detail:#010x}, fault status {status:#010x}) "
                f"during {kind.name}; reset it",
                pc=detail,
                symbol=self.where(detail).partition("+")[0],
            )
        if code == ErrorCode.VERSION:
            raise LinkError(f"the firmware speaks link version {detail}, this host {VERSION}: build the firmware again")
        if code == ErrorCode.STATUS:
            raise status_error(detail, f"the device refused {kind.name}")
        reason = {ErrorCode.TYPE: "does not know this message", ErrorCode.ARGUMENT: "found an argument out of range"}
        raise LinkError(f"the device refused {kind.name}: it {reason.get(code, f'says error {code}')} ({detail})")


_DAMAGED = Frame(-1, -1, -1, b"")


class LinkedDevice:
    """A Device at the other end of a link."""

    def __init__(self, link: Link) -> None:
        self.link = link
        words = struct.unpack("<12I", self._hello())
        self._facts = ModelFacts(*words[:11])
        self.stack_reserved = words[11]  # bytes
        if self._facts.abi != _ABI:
            raise McugradError(f"the firmware's ABI is {self._facts.abi}, this version's {_ABI}: build it again")

    def _hello(self) -> bytes:
        self.link.transport.write(b"\0")  # ends whatever a previous host left unfinished
        answer = self.link.request(Type.HELLO)
        if len(answer) != 48:
            raise LinkError(f"HELLO was answered by {len(answer)} bytes instead of 48: build the firmware again")
        return answer

    @property
    def facts(self) -> ModelFacts:
        return self._facts

    @property
    def flash(self) -> NorFlash | None:
        return None

    def infer(self, x: Int8) -> Int32:
        self._present(x)
        return self._infer()

    def _infer(self) -> Int32:
        self.link.request(Type.INFER)
        wanted = [
            struct.pack("<II", first, min(PAYLOAD // 4, self._facts.classes - first))
            for first in range(0, self._facts.classes, PAYLOAD // 4)
        ]
        return np.frombuffer(b"".join(self.link.requests(Type.LOGITS, wanted)), "<i4").astype(np.int32)

    def train_step(self, x: Int8, label: int | Int32) -> StepResult:
        self._present(x)
        self._aim(label)
        return self._train(label)

    def _aim(self, label: int | Int32) -> None:
        """Sends the target, where it is more than a label."""
        if self._facts.targets:
            self._store(Type.TARGET, check_targets(self._facts, label, 1).astype("<i4").tobytes())

    def _train(self, label: int | Int32) -> StepResult:
        payload = b"" if self._facts.targets else check_targets(self._facts, label, 1).astype("<i4").tobytes()
        answer = self.link.request(Type.TRAIN, payload)
        p_label, predicted, progress, saturated = struct.unpack("<4i", answer)
        return StepResult(p_label, predicted, progress, saturated)

    def evaluate(self, x: Int8, labels: Int32) -> tuple[int, int]:
        answer = self.link.request(Type.EVAL)
        for sample, label in zip(check_samples(self._facts, x, labels), labels, strict=True):
            self._present(sample)
            answer = self.link.request(Type.EVAL, struct.pack("<i", int(label)))
        seen, correct = struct.unpack("<II", answer)
        return seen, correct

    def read_params(self) -> bytes:
        size = self._facts.state_bytes
        wanted = [struct.pack("<II", at, min(PAYLOAD, size - at)) for at in range(0, size, PAYLOAD)]
        return self._checked(b"".join(self.link.requests(Type.READ, wanted)), "reading")

    def write_params(self, state: bytes) -> None:
        block = check_state(self._facts, state)
        self._store(Type.WRITE, block)
        self._checked(block, "writing")

    def _checked(self, state: bytes, doing: str) -> bytes:
        (crc,) = struct.unpack("<I", self.link.request(Type.CRC))
        if crc != zlib.crc32(state):
            raise LinkError(f"{doing} the parameters: the device holds other bytes (CRC-32 {crc:#010x}); try again")
        return state

    def control(self) -> Control:
        return Control(*struct.unpack("<IIii", self.link.request(Type.CONTROL)))

    def set_control(
        self,
        *,
        seed: int | None = None,
        step: int | None = None,
        halvings: int | None = None,
        skip: int | None = None,
    ) -> Control:
        named = {"seed": seed, "step": step, "halvings": halvings, "skip": skip}
        c = replace(self.control(), **{name: value for name, value in named.items() if value is not None})
        payload = struct.pack("<IIii", c.seed, c.step, c.halvings, c.skip)
        return Control(*struct.unpack("<IIii", self.link.request(Type.CONTROL, payload)))

    def counters(self) -> Counters | None:
        return None

    def stack_used(self, paint: int = 0xA5) -> int:
        """Bytes of stack touched since the last call (or the start); then paints the rest with the byte `paint`.

        A byte that the program wrote with the value of the paint looks untouched: measure with two paints.
        """
        _, used = struct.unpack("<II", self.link.request(Type.STACK, bytes((paint,))))
        return int(used)

    def stack_high_water(self, run: Callable[[], object]) -> int:
        """Bytes of stack that `run` needs at its deepest, painted twice with different patterns."""
        deepest = self.stack_used(0xA5)
        for paint in (0x5A, 0xA5):
            run()
            deepest = max(deepest, self.stack_used(paint))
        return deepest

    def reset(self) -> None:
        self.link.request(Type.RESET)

    def close(self) -> None:
        self.link.transport.close()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _present(self, x: Int8) -> None:
        """Sends the input, or holds it ready to be pulled row by row."""
        data = check_sample(self._facts, x).tobytes()
        if self._facts.input_rows:
            size = self._facts.row_bytes
            self.link.row = lambda row: data[row * size : (row + 1) * size]
        else:
            self._store(Type.INPUT, data)

    def _store(self, kind: Type, data: bytes) -> None:
        self.link.requests(kind, [struct.pack("<I", at) + chunk for at, chunk in _chunks(data, PAYLOAD - 4)])
