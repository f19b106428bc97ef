"""The packed initial state: what the records hold, and that the device starts from the same bytes."""

import numpy as np
import pytest

from mcugrad.emit.initial import BYTES, NARROW, ZEROS, pack


def unpacked(packed: bytes, total: int) -> bytes:
    """The simple twin of the runtime's loader."""
    out, at = b"", 0
    while at < len(packed):
        head = int.from_bytes(packed[at : at + 2], "little")
        kind, count = head >> 14, head & 0x3FFF
        size = {BYTES: 1, ZEROS: 0, NARROW: 2}[kind] * count
        data, at = packed[at + 2 : at + 2 + size], at + 2 + size
        if kind == NARROW:
            out += b"".join(
                int.from_bytes(data[i : i + 2], "little", signed=True).to_bytes(4, "little", signed=True)
                for i in range(0, size, 2)
            )
        else:
            out += data if kind == BYTES else bytes(count)
    return out + bytes(total - len(out))


@pytest.mark.parametrize("seed", range(20))
def test_a_packed_block_comes_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    limits = (1, 1 << 15, 1 << 31)
    parts = [rng.integers(-(m := limits[rng.integers(3)]), m, rng.integers(1, 40)).astype("<i4").tobytes() for _ in range(12)]
    block = b"".join(parts) + bytes(int(rng.integers(0, 9)))
    packed = pack(block)
    assert unpacked(packed, len(block) + 3)[: len(block)] == block


def test_biases_take_half_the_bytes_and_zeros_none() -> None:
    biases = np.arange(-500, 500, dtype="<i4")
    biases[300:400] = 0
    assert len(pack(biases.tobytes() + bytes(9000))) == 2 * 900 + 3 * 2


def test_limits_of_a_narrow_word() -> None:
    words = np.array([-32768, 32767, 5, 6, 32768, 7, 8, -32769], "<i4")
    packed = pack(words.tobytes())
    assert packed[:2] == (NARROW << 14 | 4).to_bytes(2, "little")
    assert unpacked(packed, 32) == words.tobytes()


def test_a_long_run_is_several_records() -> None:
    block = np.random.default_rng(1).integers(1 << 20, 1 << 30, 9000).astype("<i4").tobytes()
    assert unpacked(pack(block), len(block)) == block


def test_nothing_to_start_from() -> None:
    assert pack(b"") == b"" and pack(bytes(64)) == b""
