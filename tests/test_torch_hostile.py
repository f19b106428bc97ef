""".pt2 files that are damaged, absurd or hostile: a clear error, nothing run, in bounded time and memory."""

import io
import json
import time
import zipfile

import numpy as np
import pytest

from mcugrad.errors import McugradError
from mcugrad.importers import check, load

torch = pytest.importorskip("torch", reason="torch writes the files")


@pytest.fixture(scope="module")
def members():
    """The members of a good file."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Flatten(), torch.nn.Linear(64, 3),
    ).eval()  # fmt: skip
    file = io.BytesIO()
    torch.export.save(torch.export.export(net, (torch.zeros(1, 3, 8, 8),)), file)
    with zipfile.ZipFile(file) as archive:
        return {i.filename: archive.read(i) for i in archive.infolist()}


def write(path, members, compress=False):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def changed(members, ending, change):
    """The members with the JSON of one changed by `change`."""
    (name,) = [n for n in members if n.endswith(ending)]
    data = json.loads(members[name])
    change(data)
    return {**members, name: json.dumps(data).encode()}


def refused(path, *words, seconds=5.0):
    for function in (lambda p: check(p).require(), load):
        start = time.monotonic()
        with pytest.raises(McugradError) as error:
            function(path)
        assert time.monotonic() - start < seconds
        assert all(word in str(error.value) for word in words), str(error.value)


def test_the_rewritten_file_is_good(tmp_path, members):
    assert load(write(tmp_path / "m.pt2", members)).report.ok


def test_truncated_and_damaged_files_never_crash(tmp_path, members):
    path = write(tmp_path / "m.pt2", members)
    data, rng = path.read_bytes(), np.random.default_rng(0)
    for size in range(1, len(data), len(data) // 30):
        path.write_bytes(data[:size])
        refused(path, "m.pt2")
    for _ in range(150):
        damaged = bytearray(data)
        for where in rng.integers(0, len(data), 6):
            damaged[where] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            load(path)
        except McugradError as error:
            assert str(error)


class Trap:
    """Unpickling it would leave a mark."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


def test_pickles_are_never_read(tmp_path, members):
    import pickle

    trap = pickle.dumps(Trap(tmp_path / "mark"))
    bad = {n: trap if n.endswith((".pt", "weight_0")) else d for n, d in members.items()}
    first = "model_weights_config.json"
    bad = changed(bad, first, lambda c: next(iter(c["config"].values())).update(use_pickle=True))
    refused(write(tmp_path / "m.pt2", bad), "stored as a Python pickle")
    samples = {n: trap if n.endswith(".pt") else d for n, d in members.items()}
    assert load(write(tmp_path / "m.pt2", samples)).report.ok
    assert not (tmp_path / "mark").exists()


def test_targets_and_expressions_are_never_evaluated(tmp_path, members):
    def call(model):
        model["graph_module"]["graph"]["nodes"][0]["target"] = "torch.os.system"

    refused(write(tmp_path / "m.pt2", changed(members, "models/model.json", call)), "os.system is not supported")

    def symbol(model):
        size = {"as_expr": {"expr_str": "__import__('os').system('true')", "hint": None}}
        model["graph_module"]["graph"]["tensor_values"]["input"]["sizes"][0] = size

    refused(write(tmp_path / "m.pt2", changed(members, "models/model.json", symbol)), "dynamic shapes")


def test_bombs_are_refused_before_they_are_unpacked(tmp_path, members):
    name = next(n for n in members if n.endswith("weight_0"))
    refused(write(tmp_path / "m.pt2", {**members, name: bytes(300 << 20)}, compress=True), "unpacks to", seconds=2)
    name = next(n for n in members if n.endswith("model.json"))
    refused(write(tmp_path / "m.pt2", {**members, name: b" " * (100 << 20)}, compress=True), "unpacks to", seconds=2)
    refused(write(tmp_path / "m.pt2", {**members, name: b"[" * 100_000}), "m.pt2", seconds=2)


@pytest.mark.parametrize(
    ("sizes", "strides", "offset"),
    [([4, 3, 3, 3], [27, 9, 3, 1], 1), ([1 << 40, 3, 3, 3], [0, 9, 3, 1], 0), ([4, 3, 3, 3], [-27, 9, 3, 1], 100),
     ([4, 3, 3, 3], [10**30, 9, 3, 1], 0)],
)  # fmt: skip
def test_views_outside_the_stored_numbers(tmp_path, members, sizes, strides, offset):
    def view(config):
        meta = next(iter(config["config"].values()))["tensor_meta"]
        meta["sizes"], meta["strides"] = ([{"as_int": n} for n in v] for v in (sizes, strides))
        meta["storage_offset"] = {"as_int": offset}

    word = "parameters" if sizes[0] > 4 else "elements"
    refused(write(tmp_path / "m.pt2", changed(members, "model_weights_config.json", view)), word)


def test_one_number_seen_as_many_parameters(tmp_path, members):
    """Views with stride 0 need no bytes in the file, but would in memory."""

    def view(config):
        for entry in config["config"].values():
            entry["tensor_meta"]["sizes"] = [{"as_int": 1 << 23}]
            entry["tensor_meta"]["strides"] = [{"as_int": 0}]

    refused(write(tmp_path / "m.pt2", changed(members, "model_weights_config.json", view)), "parameters", seconds=2)


def test_changed_arguments_never_crash(tmp_path, members):
    rng = np.random.default_rng(2)
    values = [{"as_ints": [0, 0]}, {"as_int": -(2**62)}, {"as_none": True}, {"as_ints": []}, {"as_float": float("nan")}, {}]

    def argument(model):
        nodes = model["graph_module"]["graph"]["nodes"]
        inputs = nodes[int(rng.integers(len(nodes)))]["inputs"]
        inputs[int(rng.integers(len(inputs)))]["arg"] = values[int(rng.integers(len(values)))]

    for _ in range(60):
        path = write(tmp_path / "m.pt2", changed(members, "models/model.json", argument))
        try:
            load(path)
        except McugradError as error:
            assert str(error)


def test_names_outside_the_archive(tmp_path, members):
    def outside(config):
        next(iter(config["config"].values()))["path_name"] = "../../../../../../etc/passwd"

    refused(write(tmp_path / "m.pt2", changed(members, "model_weights_config.json", outside)), "m.pt2", "torch.export.save")


def test_cycles_and_absurd_shapes(tmp_path, members):
    def cycle(model):
        nodes = model["graph_module"]["graph"]["nodes"]
        nodes[0]["inputs"][0]["arg"]["as_tensor"]["name"] = nodes[-1]["outputs"][0]["as_tensor"]["name"]

    refused(write(tmp_path / "m.pt2", changed(members, "models/model.json", cycle)), "before anything computes it")

    def huge(model):
        model["graph_module"]["graph"]["tensor_values"]["input"]["sizes"] = [{"as_int": n} for n in (1, 3, 1 << 20, 1 << 20)]

    refused(write(tmp_path / "m.pt2", changed(members, "models/model.json", huge)), "too large")

    def empty(model):
        model["graph_module"]["graph"]["tensor_values"]["input"]["sizes"] = []

    refused(write(tmp_path / "m.pt2", changed(members, "models/model.json", empty)), "batch 1")


def test_files_of_another_layout(tmp_path, members):
    refused(write(tmp_path / "m.pt2", {"serialized_exported_program.json": b"{}"}), "written by an older torch")
    refused(write(tmp_path / "m.pt2", {"a/models/model.json": b"{}", "a/byteorder": b"big"}), "big-endian")
    state = tmp_path / "state.pt"
    torch.save({"w": torch.zeros(3)}, state)
    refused(state, "parameters without the network", "weights_only=True")
    state.rename(tmp_path / "state.pt2")
    refused(tmp_path / "state.pt2", "no exported program")


def test_two_inputs_are_refused(tmp_path):
    class Two(torch.nn.Module):
        def forward(self, x, y):
            return x + y

    x = torch.zeros(1, 3)
    torch.export.save(torch.export.export(Two(), (x, x)), tmp_path / "m.pt2")
    refused(tmp_path / "m.pt2", "one input is expected, this model has 2")
