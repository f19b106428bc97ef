"""ONNX files that are damaged, absurd or hostile: a clear error, in bounded time and memory."""

import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from mcugrad.errors import McugradError
from mcugrad.importers import check, load
from onnx_models import Net, logits, parse, reference, residual_net


def refused(path, *words, seconds=5.0):
    """check and load both refuse the file in time, with these words in the message."""
    for function in (lambda p: check(p).require(), load):
        start = time.monotonic()
        with pytest.raises(McugradError) as error:
            function(path)
        assert time.monotonic() - start < seconds
        assert all(word in str(error.value) for word in words), str(error.value)


@pytest.fixture
def good(tmp_path):
    net, out = residual_net()
    return net.save(tmp_path / "m.onnx", out)


def test_missing_empty_and_foreign_files(tmp_path):
    refused(tmp_path / "none.onnx", "cannot be read", "No such file")
    for name, content, word in (
        ("a.onnx", b"", "empty"),
        ("a.bin", b"hello world", "neither ONNX nor"),
        ("a.tflite", b"\x1c\0\0\0TFL3", "TFLite"),
        ("a.pt2", b"PK\x03\x04", "torch.export.save"),
        ("a.pth", b"PK\x03\x04", "parameters without the network"),
    ):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, name, word)


def test_truncated_files_never_crash(good):
    data = good.read_bytes()
    for size in range(1, len(data), max(len(data) // 40, 1)):
        good.write_bytes(data[:size])
        refused(good, "m.onnx")


def test_random_and_flipped_bytes_never_crash(good):
    data, rng = bytearray(good.read_bytes()), np.random.default_rng(1)
    for round_ in range(150):
        damaged = bytearray(rng.bytes(500)) if round_ % 10 == 0 else bytearray(data)
        for where in rng.integers(0, len(damaged), 6):
            damaged[where] = rng.integers(0, 256)
        good.write_bytes(damaged)
        try:
            load(good)
        except McugradError as error:
            assert str(error)


def damaged(path, change):
    model = parse(path)
    change(model)
    path.write_bytes(model.SerializeToString())


def test_cycle(good):
    damaged(good, lambda m: m.graph.node[0].input.__setitem__(0, m.graph.node[3].output[0]))
    refused(good, "node Conv_0 (Conv) reads", "cycle or are out of order")


def test_missing_initializer(good):
    damaged(good, lambda m: m.graph.initializer.remove(m.graph.initializer[0]))
    refused(good, "node Conv_0 (Conv) reads 'c0', but nothing computes or stores it")


def test_value_written_twice(good):
    damaged(good, lambda m: m.graph.node[3].output.__setitem__(0, m.graph.node[0].output[0]))
    refused(good, "written twice")


def test_absurd_input(good):
    def grow(model):
        for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
            dim.dim_value = 1 << 40

    damaged(good, grow)
    refused(good, "an activation of shape", "too large")


def test_symbolic_size(good):
    def forget(model):
        model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"

    damaged(good, forget)
    refused(good, "x has shape [1, 3, 'height', 13]", "export with a fixed size")


def test_absurd_padding(good):
    def widen(model):
        (pads,) = (a for a in model.graph.node[0].attribute if a.name == "pads")
        pads.ints[:] = [1 << 40] * 4

    damaged(good, widen)
    refused(good, "Conv_0 (Conv)", "is too large")


def test_absurd_initializer_dims(good):
    damaged(good, lambda m: m.graph.initializer[0].dims.__setitem__(0, 1 << 50))
    refused(good, "m.onnx")


def test_constant_bomb(tmp_path):
    net = Net()
    x = net.op("ConstantOfShape", net.const(np.array([1 << 40])))
    refused(net.save(tmp_path / "m.onnx", net.op("Add", "x", x)), "is too large")
    net = Net()
    x = net.const(np.zeros(1 << 12, np.float32))
    for _ in range(60):
        x = net.op("Concat", x, x, axis=0)
    refused(net.save(tmp_path / "m.onnx", net.op("Add", "x", x)), "is too large")


def test_shared_weight_bomb(tmp_path):
    net = Net((1, 1024))
    weight, x = net.normal(1024, 1024), "x"
    for _ in range(100):
        x = net.op("MatMul", x, weight)
    refused(net.save(tmp_path / "m.onnx", x), "more than 33,554,432 weights", seconds=10)


def test_transpose_bomb(tmp_path):
    net = Net((1, 4, 512, 512))
    x = "x"
    for _ in range(300):
        x = net.op("Reshape", net.op("Transpose", x, perm=[0, 3, 2, 1]), net.const(np.array([1, 4, 512, 512])))
    refused(net.save(tmp_path / "m.onnx", x), "too many large reshapes", seconds=10)


def external(path, location, offset=0, length=None):
    def change(model):
        tensor = model.graph.initializer[0]
        data = tensor.raw_data
        tensor.ClearField("raw_data")
        entries = {"location": location, "offset": offset, "length": len(data) if length is None else length}
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=str(value))
        tensor.data_location = TensorProto.EXTERNAL

    data = parse(path).graph.initializer[0].raw_data
    damaged(path, change)
    return data


def test_external_data_beside_the_model_is_read(good):
    x = np.random.default_rng(3).normal(size=(1, 3, 17, 13)).astype(np.float32)
    want = reference(good, x)
    data = external(good, "weights.bin", offset=7)
    (good.parent / "weights.bin").write_bytes(b"1234567" + data + b"89")
    np.testing.assert_allclose(logits(load(good), x)[None], want, atol=1e-4)


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "sub/../../secret.bin", "..", "", "a\\b"])
def test_external_data_outside_the_folder_is_refused(good, location):
    external(good, location)
    refused(good, "outside the model's folder")


def test_external_data_through_a_link_or_beyond_the_end_is_refused(good, tmp_path):
    external(good, "link.bin")
    (tmp_path / "target.bin").write_bytes(b"0" * 1000)
    (tmp_path / "link.bin").symlink_to(tmp_path / "target.bin")
    refused(good, "not a plain file beside the model")
    (tmp_path / "link.bin").unlink()
    (tmp_path / "link.bin").write_bytes(b"0" * 10)
    refused(good, "has 10 bytes")


def test_many_nodes_stay_fast(tmp_path):
    net = Net((1, 2, 4, 4))
    x = "x"
    for _ in range(1000):
        x = net.norm(net.conv(x, 2, 2, 1), 2)
    net.save(tmp_path / "m.onnx", x)
    start = time.monotonic()
    assert check(tmp_path / "m.onnx").ok
    assert time.monotonic() - start < 5


def test_changed_attributes_and_settings_of_moving_operators_never_crash(tmp_path):
    from test_onnx_operators import NETS

    rng = np.random.default_rng(3)
    for number, name in enumerate(("slice rows and columns", "split", "pad with a number", "resize", "concat", "gather")):
        net = Net(opset=18)
        model = parse(net.save(tmp_path / "m.onnx", NETS[name](net)))
        for round_ in range(20):
            damaged = onnx.ModelProto()
            damaged.CopyFrom(model)
            settings = [t for t in damaged.graph.initializer if t.data_type == TensorProto.INT64]
            for tensor in settings[:: 1 + round_ % 3]:
                shape = tuple(tensor.dims) if round_ % 4 else (7,)
                data = rng.choice(np.array([0, -1, 5, 2**62, -(2**62), 3], np.int64), shape)
                tensor.CopyFrom(onnx.numpy_helper.from_array(np.asarray(data), tensor.name))
            for node in damaged.graph.node:
                for attribute in node.attribute:
                    if attribute.type == onnx.AttributeProto.INT and number % 2:
                        attribute.i = int(rng.choice([-9, 0, 4, 2**40]))
            (tmp_path / "m.onnx").write_bytes(damaged.SerializeToString())
            start = time.monotonic()
            try:
                load(tmp_path / "m.onnx")
            except McugradError as error:
                assert str(error)
            assert time.monotonic() - start < 5
