"""The framed protocol: what is damaged is noticed, what is lost is sent again, and nothing is learned twice."""

from __future__ import annotations

import os
import random
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from cobs import cobs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcugrad.build import Firmware, build, build_host
from mcugrad.devices.base import Control, ModelFacts
from mcugrad.devices.host import Host
from mcugrad.devices.link import PAYLOAD, ErrorCode, Frame, Link, LinkedDevice, LinkError, Type, decode, encode
from mcugrad.devices.virtual import Machine, VirtualMcu
from mcugrad.errors import McugradError
from mcugrad.targets import get_target
from tiny import samples, tiny_folder

_TARGET = get_target("cortex-m4", sram=16 * 1024, flash=64 * 1024)
frames = st.builds(Frame, st.integers(0, 255), st.integers(0, 255), st.integers(0, 255), st.binary(max_size=PAYLOAD))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def firmware(folder: Path) -> Firmware:
    return build(folder, _TARGET)


@pytest.fixture(scope="module")
def row_firmware(tmp_path_factory: pytest.TempPathFactory) -> Firmware:
    return build(tiny_folder(tmp_path_factory.mktemp("rows")), _TARGET, flags=("-DTINY_ROWS=1",))


@pytest.fixture(scope="module")
def machine(firmware: Firmware) -> Machine:
    running = Machine(firmware.target, firmware.facts)
    assert hello(running) is not None
    return running


@pytest.fixture
def host(folder: Path) -> Iterator[Host]:
    with Host.load(build_host(folder)) as device:
        yield device


def answers(machine: Machine, data: bytes) -> list[Frame | None]:
    """What the firmware says to raw bytes."""
    machine.write(data)
    return [decode(stuffed) for stuffed in machine.read(0).split(b"\0") if stuffed]


def error_of(frame: Frame | None) -> tuple[int, int]:
    assert frame is not None and frame.type == Type.ERROR
    code, detail = struct.unpack("<BI", frame.payload)
    return code, detail


def hello(machine: Machine, sequence: int = 1) -> Frame | None:
    return answers(machine, b"\0" + encode(Frame(1, sequence, Type.HELLO, b"")))[-1]


@given(frames)
def test_a_frame_survives_the_line(frame: Frame) -> None:
    line = encode(frame)
    assert line.count(b"\0") == 1 and line.endswith(b"\0")
    assert decode(line[:-1]) == frame


@given(frames, st.data())
def test_a_damaged_frame_is_never_read_as_another(frame: Frame, data: st.DataObject) -> None:
    line = bytearray(encode(frame)[:-1])
    at = data.draw(st.integers(0, len(line) - 1))
    line[at] ^= data.draw(st.integers(1, 255))
    for stuffed in bytes(line).split(b"\0"):
        assert decode(stuffed) is None


@given(frames, st.integers(1, 20))
def test_a_truncated_frame_is_not_read(frame: Frame, lost: int) -> None:
    assert decode(encode(frame)[:-1][:-lost]) is None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=st.lists(st.binary(max_size=700), max_size=6))
def test_the_firmware_survives_noise(machine: Machine, noise: list[bytes]) -> None:
    before = machine.uc.mem_read(machine.elf.symbol("state").address, 1040)
    for frame in answers(machine, b"\0".join(noise)):
        assert frame is not None and frame.type == Type.ERROR
    answer = hello(machine)
    assert answer is not None and answer.type == Type.HELLO
    assert machine.uc.mem_read(machine.elf.symbol("state").address, 1040) == before


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    frame=st.builds(
        Frame,
        st.just(1),
        st.integers(0, 255),
        st.integers(0, 255).filter(lambda kind: kind not in (Type.TRAIN, Type.EVAL, Type.ROW)),
        st.binary(max_size=PAYLOAD),
    )
)
def test_the_firmware_answers_every_valid_frame_once_and_lives(machine: Machine, frame: Frame) -> None:
    said = answers(machine, encode(frame))
    assert len(said) == 1 and said[0] is not None
    assert said[0].sequence == frame.sequence
    assert hello(machine) is not None


def test_a_frame_larger_than_the_firmwares_buffer_is_refused(machine: Machine) -> None:
    body = bytes((1, 7, Type.INPUT)) + bytes(range(1, 256)) * 4
    (answer,) = answers(machine, cobs.encode(body) + b"\0")
    assert error_of(answer) == (ErrorCode.FRAME, 0)
    assert hello(machine) is not None


def test_a_wrong_version_is_answered_with_ours(machine: Machine) -> None:
    (answer,) = answers(machine, encode(Frame(9, 3, Type.HELLO, b"")))
    assert error_of(answer) == (ErrorCode.VERSION, 1)


@pytest.mark.parametrize(
    ("kind", "payload", "code"),
    [
        (99, b"", ErrorCode.TYPE),
        (Type.INPUT, struct.pack("<I", 126) + bytes(3), ErrorCode.ARGUMENT),
        (Type.INPUT, struct.pack("<I", 0xFFFFFFFF) + bytes(3), ErrorCode.ARGUMENT),
        (Type.INPUT, b"abc", ErrorCode.ARGUMENT),
        (Type.WRITE, struct.pack("<I", 1040) + b"x", ErrorCode.ARGUMENT),
        (Type.READ, struct.pack("<II", 1000, 41), ErrorCode.ARGUMENT),
        (Type.READ, struct.pack("<II", 0, 257), ErrorCode.ARGUMENT),
        (Type.READ, struct.pack("<II", 2, 0xFFFFFFFF), ErrorCode.ARGUMENT),
        (Type.LOGITS, struct.pack("<II", 4, 1), ErrorCode.ARGUMENT),
        (Type.CONTROL, bytes(15), ErrorCode.ARGUMENT),
        (Type.TRAIN, b"", ErrorCode.ARGUMENT),
        (Type.TRAIN, struct.pack("<i", 4), ErrorCode.STATUS),
        (Type.TRAIN, struct.pack("<i", -1), ErrorCode.STATUS),
        (Type.EVAL, struct.pack("<i", 4), ErrorCode.ARGUMENT),
        (Type.STACK, b"", ErrorCode.ARGUMENT),
    ],
)
def test_arguments_out_of_range_change_nothing(machine: Machine, kind: int, payload: bytes, code: ErrorCode) -> None:
    before = machine.uc.mem_read(machine.target.sram_base, machine.target.sram)
    (answer,) = answers(machine, encode(Frame(1, 77, kind, payload)))
    assert error_of(answer)[0] == code
    after = machine.uc.mem_read(machine.target.sram_base, machine.target.sram)
    changed = np.flatnonzero(np.frombuffer(before, np.uint8) != np.frombuffer(after, np.uint8))
    server = machine.elf.symbol("server")
    stack = machine.elf.section(".stack")
    for address in changed + machine.target.sram_base:
        assert server.address <= address < server.address + server.size or address < stack.address + stack.size


def test_a_request_that_comes_twice_is_learned_once(firmware: Firmware) -> None:
    machine = Machine(firmware.target, firmware.facts)
    train = encode(Frame(1, 5, Type.TRAIN, struct.pack("<i", 1)))
    first, again = answers(machine, train + train)
    assert first == again
    control = answers(machine, encode(Frame(1, 6, Type.CONTROL, b"")))[0]
    assert control is not None and struct.unpack("<IIii", control.payload)[1] == 1


def test_the_same_number_much_later_is_a_new_request(firmware: Firmware) -> None:
    machine = Machine(firmware.target, firmware.facts)
    train = encode(Frame(1, 5, Type.TRAIN, struct.pack("<i", 1)))
    answers(machine, train)
    assert hello(machine, 6) is not None
    answers(machine, train)
    control = answers(machine, encode(Frame(1, 6, Type.CONTROL, b"")))[0]
    assert control is not None and struct.unpack("<IIii", control.payload)[1] == 2


class Noisy:
    """A transport that flips, drops and repeats bytes in both directions, by a seed."""

    def __init__(self, machine: Machine, seed: int, rate: float) -> None:
        self.machine, self.random, self.rate = machine, random.Random(seed), rate
        self.window = 4

    def _spoil(self, data: bytes) -> bytes:
        spoiled = bytearray()
        for byte in data:
            spoiled += self._spoil_byte(byte) if self.random.random() < self.rate else bytes((byte,))
        return bytes(spoiled)

    def _spoil_byte(self, byte: int) -> bytes:
        return self.random.choice((b"", bytes((byte ^ 1 << self.random.randrange(8),)), bytes((byte, byte))))

    def write(self, data: bytes) -> None:
        self.machine.write(self._spoil(data))

    def read(self, timeout: float) -> bytes:
        return self._spoil(self.machine.read(timeout))

    def close(self) -> None:
        self.machine.close()


@pytest.mark.parametrize("rows", [False, True], ids=["resident", "rows"])
@pytest.mark.parametrize("seed", range(3))
def test_learning_over_a_noisy_line_gives_the_same_bits(
    firmware: Firmware, row_firmware: Firmware, host: Host, rows: bool, seed: int
) -> None:
    chosen = row_firmware if rows else firmware
    device = LinkedDevice(Link(Noisy(Machine(chosen.target, chosen.facts), seed, 0.0015)))
    x, labels = samples(30, seed)
    for sample, label in zip(x, labels, strict=True):
        assert device.train_step(sample, int(label)) == host.train_step(sample, int(label))
    assert device.link.resent > 0, "the line was not noisy"
    assert device.read_params() == host.read_params()
    assert device.control() == Control(step=30)
    device.write_params(host.read_params()[::-1])
    assert device.read_params() == host.read_params()[::-1]


def test_accuracy_is_counted_on_the_device(firmware: Firmware, host: Host) -> None:
    x, labels = samples(40)
    host.train_many(x, labels)
    device = VirtualMcu(firmware)
    device.write_params(host.read_params())
    assert device.evaluate(x, labels) == host.evaluate(x, labels)
    assert device.evaluate(x[:5], labels[:5]) == host.evaluate(x[:5], labels[:5]), "the counters start again"


def test_a_host_that_gives_up_rows_leaves_a_firmware_that_still_answers(row_firmware: Firmware) -> None:
    machine = Machine(row_firmware.target, row_firmware.facts)
    (request,) = answers(machine, encode(Frame(1, 5, Type.INFER, b"")))
    assert request == Frame(1, 5, Type.ROW, struct.pack("<II", 0, 0))
    (refusal,) = answers(machine, encode(Frame(1, 6, Type.HELLO, b"")))
    assert error_of(refusal) == (ErrorCode.STATUS, 5)
    assert hello(machine, 7) is not None


class Silent:
    """A line without a device."""

    window = 1

    def write(self, data: bytes) -> None:
        pass

    def read(self, timeout: float) -> bytes:
        return b""

    def close(self) -> None:
        pass


def test_a_silent_line_is_an_error_that_says_what_to_check() -> None:
    with pytest.raises(LinkError, match=r"no valid answer to HELLO in 6 tries: check .* port"):
        LinkedDevice(Link(Silent()))


class Scripted(Silent):
    """Answers every request with what `answer` makes of it."""

    def __init__(self, answer: Callable[[Frame], bytes]) -> None:
        self.answer, self.out = answer, b""

    def write(self, data: bytes) -> None:
        for stuffed in data.split(b"\0"):
            frame = decode(stuffed) if stuffed else None
            self.out += self.answer(frame) if frame else b""

    def read(self, timeout: float) -> bytes:
        out, self.out = self.out, b""
        return out


@pytest.mark.parametrize(
    ("kind", "payload", "message"),
    [
        (Type.ERROR, struct.pack("<BI", ErrorCode.VERSION, 2), "speaks link version 2, this host 1"),
        (Type.ERROR, struct.pack("<BI", ErrorCode.TYPE, 1), "does not know this message"),
        (Type.ERROR, struct.pack("<BI", ErrorCode.STATUS, 4), "another model"),
        (Type.ERROR, struct.pack("<BII", ErrorCode.FAULT, 0x123, 0x82), "faulted in 0x00000123"),
        (Type.HELLO, bytes(40), "answered by 40 bytes instead of 48"),
        (Type.HELLO, struct.pack("<12I", 99, *range(11)), "ABI is 99, this version's 3"),
    ],
)
def test_a_foreign_firmware_is_refused_with_a_reason(kind: Type, payload: bytes, message: str) -> None:
    line = Scripted(lambda request: encode(Frame(1, request.sequence, kind, payload)))
    with pytest.raises(McugradError, match=message):
        LinkedDevice(Link(line))


def test_endless_noise_ends_in_an_error() -> None:
    with pytest.raises(LinkError, match="no valid answer"):
        Link(Scripted(lambda request: b"\x55" * 5000)).request(Type.HELLO)


def test_a_serial_port_carries_the_link(firmware: Firmware, host: Host) -> None:
    pytest.importorskip("serial", reason="pyserial is not installed")
    from mcugrad.devices.serial import Serial

    board, port = os.openpty()
    machine = Machine(firmware.target, firmware.facts)

    def pump() -> None:
        try:
            while data := os.read(board, 4096):
                machine.write(data)
                os.write(board, machine.read(0))
        except OSError:
            return  # the port was closed

    thread = threading.Thread(target=pump, daemon=True)
    thread.start()
    x, labels = samples(5)
    with Serial.load(os.ttyname(port)) as device:
        assert isinstance(device.facts, ModelFacts)
        for sample, label in zip(x, labels, strict=True):
            assert device.train_step(sample, int(label)) == host.train_step(sample, int(label))
        assert device.read_params() == host.read_params()
    os.close(port)
    thread.join(2.0)
    os.close(board)


def test_a_port_that_is_not_there_is_named() -> None:
    pytest.importorskip("serial", reason="pyserial is not installed")
    from mcugrad.devices.serial import Serial

    with pytest.raises(McugradError, match="cannot open /dev/no-such-port at 115200 baud"):
        Serial.load("/dev/no-such-port")


def test_a_missing_pyserial_is_said_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    from mcugrad.devices.serial import Serial

    monkeypatch.setitem(__import__("sys").modules, "serial", None)
    with pytest.raises(McugradError, match=r"pip install 'mcugrad\[serial\]'"):
        Serial.load("/dev/ttyACM0")
