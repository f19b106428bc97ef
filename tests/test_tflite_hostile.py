"""TFLite files that are damaged, absurd or hostile: a clear error, in bounded time and memory."""

import resource
import struct
import time

import numpy as np
import pytest

from mcugrad.errors import McugradError
from mcugrad.importers import check, load
from tflite_models import RELU, VALID, Net

FUZZ = 3000


def refused(path, *words, seconds=5.0):
    """check and load both refuse the file in time, with these words in the message."""
    for function in (lambda p: check(p).require(), load):
        start = time.monotonic()
        with pytest.raises(McugradError) as error:
            function(path)
        assert time.monotonic() - start < seconds
        assert all(word in str(error.value) for word in words), str(error.value)


def whole_net(dtype="INT8"):
    """A net with most operators."""
    net = Net((1, 12, 10, 3), dtype)
    x = net.conv(net.pad(net.input, (0, 0), (0, 1), (0, 1), (0, 0)), 8, stride=2, padding=VALID, act=RELU, zero=-128)
    y = net.conv(net.conv(x, 0, multiplier=1), 8, 1)
    scale = None if dtype == "FLOAT32" else net.step(y)
    x = net.pool("AVERAGE_POOL_2D", net.add(x, y, scale=scale), (2, 2), 2)
    x = net.reshape(net.mean(x, [1, 2], keep=True), [1, 8])
    return net, net.softmax(net.dense(x, 4))


@pytest.fixture
def good(tmp_path):
    net, out = whole_net()
    return net.save(tmp_path / "m.tflite", out)


def test_the_whole_net_is_read(good):
    assert load(good).classifier.weight.shape == (8, 4)


def test_empty_and_foreign_files(tmp_path):
    for content, word in (
        (b"", "empty"),
        (b"hello world", "its identifier is not TFL3"),
        (b"\x1c\0\0\0TFL3", "truncated or corrupt"),
    ):
        (tmp_path / "a.tflite").write_bytes(content)
        refused(tmp_path / "a.tflite", "a.tflite", word)
    (tmp_path / "named_otherwise.bin").write_bytes(whole_net()[0].bytes(1))
    refused(tmp_path / "named_otherwise.bin", "named_otherwise.bin")


def test_truncated_files_never_crash(good):
    data = good.read_bytes()
    for size in range(1, len(data), max(len(data) // 60, 1)):
        good.write_bytes(data[:size])
        try:  # what lies behind the cut may be unused
            load(good)
        except McugradError as error:
            assert "m.tflite" in str(error)


@pytest.mark.parametrize("dtype", ["INT8", "FLOAT32"])
def test_random_and_flipped_bytes_never_crash(tmp_path, dtype):
    net, out = whole_net(dtype)
    path, rng, start = tmp_path / "m.tflite", np.random.default_rng(1), time.monotonic()
    data = net.bytes(out)
    for round_ in range(FUZZ // 2):
        damaged = bytearray(b"\x20\0\0\0TFL3" + rng.bytes(600)) if round_ % 10 == 0 else bytearray(data)
        for where in rng.integers(8, len(damaged), rng.integers(1, 8)):
            damaged[where] = rng.choice([0, 1, 4, 127, 128, 255, rng.integers(0, 256)])
        path.write_bytes(damaged)
        try:
            load(path)
        except McugradError as error:
            assert str(error)
    assert time.monotonic() - start < 120
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2 << 20  # KiB


def test_every_offset_set_to_its_extremes(tmp_path):
    """Each aligned word of the tables in turn becomes absurd: counts, offsets, indices, shapes."""
    net = Net((1, 4, 4, 1))
    path = tmp_path / "m.tflite"
    data = net.bytes(net.dense(net.conv(net.input, 2, 1), 2))
    for where in range(8, len(data) - 4, 4):
        for value in (0, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000):
            path.write_bytes(data[:where] + struct.pack("<I", value) + data[where + 4 :])
            try:
                load(path)
            except McugradError as error:
                assert str(error)


def damaged(path, change):
    net, out = whole_net()
    change(net)
    net.save(path, out)


def test_cycle(good):
    damaged(good, lambda n: n.nodes[1][1].__setitem__(0, n.nodes[4][2][0]))
    refused(good, "#1 t", "(CONV_2D) reads", "cycle or are out of order")


def test_missing_constant(good):
    def forget(net):
        weight = net.nodes[1][1][1]
        net.tensors[weight] = (*net.tensors[weight][:4], None, 0)

    damaged(good, forget)
    refused(good, "nothing computes or stores it")


def test_tensor_written_twice(good):
    damaged(good, lambda n: n.nodes[3][2].__setitem__(0, n.nodes[1][2][0]))
    refused(good, "a tensor is written twice")


def test_indices_outside_of_the_file(good):
    damaged(good, lambda n: n.nodes[1][1].__setitem__(1, 1 << 20))
    refused(good, "is outside of the")


def test_absurd_input(good):
    damaged(good, lambda n: n.tensors.__setitem__(n.input, ((1, 1 << 30, 1 << 30, 3), "INT8", 0.1, 0, None, 0)))
    refused(good, "an activation of shape", "too large")


def test_absurd_weight_shape(good):
    def grow(net):
        weight = net.nodes[1][1][1]
        net.tensors[weight] = ((1 << 30, 3, 3, 3), *net.tensors[weight][1:])

    damaged(good, grow)
    refused(good, "the layers hold more than 33,554,432 weights")


@pytest.mark.parametrize("pads", [(0, 1 << 30), (1 << 20, 0)])
def test_absurd_padding(tmp_path, pads):
    net = Net()
    x = net.op("PAD", [net.input, net.const([(0, 0), pads, (0, 0), (0, 0)])], (1, 9, 8, 3), "PadOptions")
    refused(net.save(tmp_path / "m.tflite", net.conv(x, 2)), "is too large")
    net = Net()
    x = net.op("PAD", [net.input, net.const([(0, 0), (0, 0), (0, 0), pads])], (1, 9, 8, 3), "PadOptions")
    refused(net.save(tmp_path / "m.tflite", net.conv(x, 2)), "is too large")


def test_padding_of_channels_cannot_eat_memory(tmp_path):
    net = Net((1, 1, 1, 3000))
    x = net.input
    for _ in range(10):
        x = net.pad(x, (0, 0), (0, 0), (0, 0), (0, 1 << 20))
    refused(net.save(tmp_path / "m.tflite", net.conv(x, 2, 1)), "is too large")


def test_shared_weights_cannot_eat_memory(tmp_path):
    net = Net((1, 1024))
    x = net.dense(net.input, 1024)
    for _ in range(100):
        x = net.op("FULLY_CONNECTED", [x, *net.nodes[0][1][1:]], (1, 1024), "FullyConnectedOptions")
    refused(net.save(tmp_path / "m.tflite", x), "more than 33,554,432 weights", seconds=10)


def test_scales_that_make_no_sense(good):
    for scale in (0.0, -1.0, np.nan, np.inf, 1e-40):
        damaged(good, lambda n, s=scale: n.tensors.__setitem__(n.nodes[1][2][0], ((1, 6, 5, 8), "INT8", s, 0, None, 0)))
        refused(good, "m.tflite")


def test_many_operators_stay_fast(tmp_path):
    net = Net((1, 4, 4, 2))
    x = net.input
    for _ in range(1000):
        x = net.conv(x, 2, 1, scale=0.05)
    net.save(tmp_path / "m.tflite", x)
    start = time.monotonic()
    assert check(tmp_path / "m.tflite").ok
    assert time.monotonic() - start < 5
