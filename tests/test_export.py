"""Learned weights out: what is written holds exactly what was learned, runs elsewhere, and is compared with the device."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import mcugrad
from corpus import NETWORKS, program
from graphs import random_training
from learned_runs import CLASSES, blobs, copied, initial, weights
from mcugrad import Course, Request, cli
from mcugrad.errors import McugradError
from mcugrad.exporters.compare import compare, device_logits, real_input
from mcugrad.exporters.graph import DOMAIN
from mcugrad.exporters.learned import canonical, read_run
from mcugrad.exporters.onnx import CLASSES_KEY, onnx_model
from mcugrad.graphfile import load_graph, save_graph
from mcugrad.ir import interpret
from mcugrad.ops.example import activation, single
from mcugrad.ops.pool import AvgPool, Ties
from mcugrad.ops.spatial import Window
from mcugrad.preprocess import Input, Preprocess
from mcugrad.program import inference_graph
from onnx_models import Net as OnnxNet

# What a run holds


@pytest.mark.parametrize("name", NETWORKS)
def test_a_graph_survives_its_file(name: str, tmp_path: Path) -> None:
    graph = program(name).graph
    save_graph(graph, tmp_path / "graph.npz")
    again = load_graph(tmp_path / "graph.npz")
    assert str(again) == str(graph)
    assert [n.op for n in again.nodes] == [n.op for n in graph.nodes] and again.meta == graph.meta
    assert all(np.array_equal(a.data, b.data) for a, b in zip(again.params, graph.params, strict=True))


def test_how_an_average_rounds_survives_the_file_of_a_graph(tmp_path: Path) -> None:
    graph = single(AvgPool(Window((2, 2)), Ties.EVEN), x=activation(4, 4, 3))
    save_graph(graph, tmp_path / "graph.npz")
    assert str(load_graph(tmp_path / "graph.npz")) == str(graph)


@pytest.mark.parametrize("seed", range(8))
def test_the_whole_weights_of_a_training_graph_are_those_before_it_was_split(seed: int, tmp_path: Path) -> None:
    net, training = random_training(seed)
    save_graph(training, tmp_path / "graph.npz")
    whole = canonical(inference_graph(load_graph(tmp_path / "graph.npz")))
    found = {p.value.name: p.data for p in whole.params}
    assert all(np.array_equal(found[p.value.name], p.data) for p in net.graph.params if p.value.name in found)
    feeds = {net.graph.inputs[0].name: net.feeds(0)[net.graph.inputs[0].name]}
    np.testing.assert_array_equal(interpret(whole, feeds)[whole.outputs[0]], interpret(net.graph, feeds)[net.graph.outputs[0]])


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 nothing", "cut", "other"])
def test_a_damaged_graph_file_is_said_clearly(damage: bytes | str, tmp_path: Path) -> None:
    path = tmp_path / "graph.npz"
    save_graph(program("pools-full").graph, path)
    if isinstance(damage, bytes):
        path.write_bytes(damage)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    else:
        np.savez(path, graph=np.frombuffer(b'{"version": 1, "values": []}', np.uint8))
    with pytest.raises(McugradError, match=r"graph\.npz: .*compile again"):
        load_graph(path)


def test_a_run_holds_what_was_learned_in_canonical_order(onnx_run: Path) -> None:
    learned, before = read_run(onnx_run), initial(onnx_run)
    after = weights(learned)
    assert learned.sha256 == json.loads((onnx_run / "training.json").read_text())["parameters_sha256"]
    moved = {n for n, data in after.items() if not np.array_equal(data, before[n])}
    assert {"conv3_weight", "head_weight", "head_bias"} <= moved
    assert "conv0_weight" not in moved and "conv2_weight" not in moved
    channels = (
        (after["conv3_weight"] != before["conv3_weight"]).any(axis=(0, 1, 2)) if after["conv3_weight"].ndim == 4 else None
    )
    assert channels is not None and set(np.flatnonzero(channels)) <= {1, 4, 5, 11}
    assert learned.classes == ("dark", "grey", "bright")


def test_the_twin_and_the_interpreter_classify_with_the_learned_weights(onnx_run: Path) -> None:
    learned = read_run(onnx_run)
    found = device_logits(learned, learned.x[:4])
    (x,), (logits,) = learned.graph.inputs, learned.graph.outputs
    step = learned.graph.nodes[-1].inputs[0].type.quant.scale[0] / 4096
    want = [interpret(learned.graph, {x.name: q[None]})[logits] * step for q in learned.x[:4]]
    np.testing.assert_allclose(found, np.stack(want), rtol=1e-12)


# ONNX


def test_onnx_holds_the_learned_integers_and_onnxruntime_agrees(onnx_run: Path, tmp_path: Path) -> None:
    result = mcugrad.export(onnx_run, "onnx", tmp_path / "out.onnx", onnx_run.parent / "data.npz")
    model, learned = onnx.load(tmp_path / "out.onnx"), read_run(onnx_run)
    onnx.checker.check_model(model, full_check=True)
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for name, data in weights(learned).items():
        if name.endswith("_bias") and name != "head_bias":
            np.testing.assert_array_equal(stored[f"{name}_int32"], data)
        elif name.startswith("conv"):
            order = (3, 0, 1, 2) if data.shape[0] == 1 and stored[f"{name}_int8"].shape[1] == 1 else (0, 3, 1, 2)
            np.testing.assert_array_equal(stored[f"{name}_int8"], data.transpose(order))
    np.testing.assert_array_equal(stored["head_weight"] * 4096, weights(learned)["head_weight"].T)
    found = result["agreement"]
    assert found["runtime"] == "onnxruntime" and found["samples"] == 30
    assert found["top1"] >= 0.9 and found["largest"] <= 4 and found["within"] >= 0.8
    assert abs(found["device_accuracy"] - found["exported_accuracy"]) <= 0.1


@pytest.mark.parametrize("kind", ["onnx", "int8", "float"])
def test_the_exact_form_computes_what_the_device_computes(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    run = request.getfixturevalue(f"{kind}_run")
    result = mcugrad.export(run, "onnx-exact", tmp_path / "out.onnx", run.parent / "data.npz")
    found = result["agreement"]
    assert found["top1"] == found["within"] == 1 and found["largest"] < 1e-4 and not result["notes"]
    with pytest.raises(McugradError, match="an exact export of mcugrad"):
        mcugrad.load(tmp_path / "out.onnx")


@pytest.mark.parametrize(("kind", "to"), [("onnx", "onnx"), ("int8", "onnx"), ("float", "onnx"), ("int8", "tflite")])
def test_the_exported_model_imports_again_with_the_same_integers(
    kind: str, to: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    run = request.getfixturevalue(f"{kind}_run")
    mcugrad.export(run, to, tmp_path / f"out.{to}")
    learned, again = read_run(run), mcugrad.load(tmp_path / f"out.{to}")
    found = {p.value.name: p.data for p in again.graph.params}
    for name, data in weights(learned).items():
        if name.endswith("_weight") and name != "head_weight":
            np.testing.assert_array_equal(found[name], data)
    assert again.classifier is not None
    np.testing.assert_array_equal(np.rint(again.classifier.weight * 4096), weights(learned)["head_weight"])
    assert again.report.params == sum(d.size for d in weights(learned).values())


def test_onnx_says_how_it_is_fed_and_what_it_tells_apart(onnx_run: Path) -> None:
    learned = read_run(onnx_run)
    model = onnx.load_model_from_string(onnx_model(learned))
    said = {p.key: p.value for p in model.metadata_props}
    assert json.loads(said[CLASSES_KEY]) == ["dark", "grey", "bright"]
    assert Preprocess.from_dict(json.loads(said["mcugrad.preprocess"])) == learned.preprocess
    (x,), (y,) = model.graph.input, model.graph.output
    assert x.name == "x" and [d.dim_value for d in x.type.tensor_type.shape.dim] == [1, 3, 17, 13]
    assert [d.dim_value for d in y.type.tensor_type.shape.dim] == [1, CLASSES]


def test_an_int8_model_becomes_one_that_reads_real_numbers(int8_run: Path) -> None:
    learned = read_run(int8_run)
    model = onnx.load_model_from_string(onnx_model(learned))
    said = Preprocess.from_dict(json.loads(next(p.value for p in model.metadata_props if p.key == "mcugrad.preprocess")))
    raw, quant = blobs((9, 8, 3))["x"], learned.input_quant
    assert said.kind is Input.FLOAT
    np.testing.assert_array_equal(said.quantized(raw, quant.scale[0], quant.zero), learned.quantize(raw))


# The training graph


def test_the_training_graph_opens_in_viewers(onnx_run: Path, tmp_path: Path) -> None:
    mcugrad.export(onnx_run, "graph", tmp_path / "graph.onnx")
    model, graph = onnx.load(tmp_path / "graph.onnx"), read_run(onnx_run).training
    onnx.checker.check_model(model)
    assert {n.domain for n in model.graph.node} == {DOMAIN} and len(model.graph.node) == len(graph.nodes)
    names = {v.name for v in (*model.graph.value_info, *model.graph.output, *model.graph.input)}
    assert names >= {v.name for n in graph.nodes for v in n.outputs}
    updates = json.loads(next(p.value for p in model.metadata_props if p.key == "mcugrad.updates"))
    assert updates == {old.name: new.name for old, new in graph.updates}
    conv = next(n for n in model.graph.node if n.op_type == "Conv2d")
    found = {a.name: onnx.helper.get_attribute_value(a) for a in conv.attribute}
    assert found["window_kernel"] == [3, 3] and found["groups"] == 1 and found["phase"] == b"forward"


@pytest.mark.parametrize("name", NETWORKS)
def test_every_training_graph_of_the_corpus_is_well_formed_onnx(name: str) -> None:
    from mcugrad.exporters.graph import graph_model

    onnx.checker.check_model(onnx.load_model_from_string(graph_model(program(name).graph, name)))


# Comparison


def test_a_regression_comes_out_in_the_units_of_its_targets(onnx_run: Path, tmp_path: Path) -> None:
    """A new head learns numbers of zero mean and unit variance; what is exported gives those of the user."""
    data, onnxruntime = blobs((17, 13, 3)), pytest.importorskip("onnxruntime")
    targets = np.stack([1000 + 50 * data["y"], -3 + 0.1 * data["y"]], axis=1).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=data["x"], y=targets, split=data["split"])
    request = Request(onnx_run.parent / "net.onnx", "head", loss="mse", rate=0.05)
    mcugrad.train(request, tmp_path / "data.npz", Course(steps=300, skip=2.0), folder=tmp_path / "run")
    found = mcugrad.export(tmp_path / "run", "onnx", tmp_path / "out.onnx")["agreement"]
    assert found["within"] >= 0.9
    session = onnxruntime.InferenceSession(str(tmp_path / "out.onnx"), providers=["CPUExecutionProvider"])
    learned = read_run(tmp_path / "run")
    images = real_input(learned, learned.quantize(data["x"][60:])).transpose(0, 3, 1, 2)
    out = np.concatenate([session.run(None, {"x": image[None]})[0] for image in images])
    assert (np.abs(out.mean(0) - targets[60:].mean(0)) <= [40, 0.08]).all()
    assert np.corrcoef(out[:, 0], targets[60:, 0])[0, 1] > 0.7


def test_one_lsb_is_a_step_of_an_8_bit_grid_over_the_logits() -> None:
    device = np.array([[0.0, 255.0], [10.0, 0.0]])
    exported = np.array([[0.0, 255.0], [10.0, 12.5]])
    found = compare(device, exported, "x", np.array([1, 0]))
    assert (found.top1, found.within, found.largest, found.lsb) == (0.5, 0.75, 12.5, 1.0)
    assert (found.device_accuracy, found.exported_accuracy) == (1.0, 0.5)


def test_without_the_runtime_the_file_is_written_and_the_gap_is_said(
    onnx_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = mcugrad.export(onnx_run, "onnx", tmp_path / "out.onnx")
    assert result["agreement"] is None and "onnxruntime is not installed" in result["notes"][0]
    assert (tmp_path / "out.onnx").exists()


# Wrong input


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(McugradError, match="is not a run of mcugrad"):
        mcugrad.export(tmp_path)


def test_a_build_that_never_learned_is_refused(onnx_run: Path, tmp_path: Path) -> None:
    run = copied(onnx_run, tmp_path / "run")
    (run / "parameters.bin").unlink()
    (run / "training.json").unlink()
    with pytest.raises(McugradError, match="was compiled but nothing has learned in it"):
        mcugrad.export(run)


def test_parameters_of_a_board_can_be_exported_from_the_compiled_folder(onnx_run: Path, tmp_path: Path) -> None:
    run = copied(onnx_run, tmp_path / "run")
    (run / "training.json").unlink()
    assert mcugrad.export(run, "graph")["parameters_sha256"] == read_run(onnx_run).sha256
    assert (tmp_path / "run.graph.onnx").exists()


@pytest.mark.parametrize("change", ["short", "flipped"])
def test_parameters_of_another_run_are_refused(change: str, onnx_run: Path, tmp_path: Path) -> None:
    run = copied(onnx_run, tmp_path / "run")
    block = bytearray((run / "parameters.bin").read_bytes())
    block[5] ^= 1
    (run / "parameters.bin").write_bytes(block[:-4] if change == "short" else block)
    with pytest.raises(McugradError, match="another model's" if change == "short" else "does not hold what training.json says"):
        mcugrad.export(run)


def test_nothing_of_someone_else_is_replaced_and_own_files_are(onnx_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    net = OnnxNet((1, 1, 4, 4))
    net.save(out, net.conv("x", 1, 2))
    before = out.read_bytes()
    with pytest.raises(McugradError, match="exists and mcugrad did not write it"):
        mcugrad.export(onnx_run, "onnx", out)
    assert out.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    out.unlink()
    mcugrad.export(onnx_run, "onnx", out)
    mcugrad.export(onnx_run, "graph", out)
    with pytest.raises(McugradError, match="is a folder"):
        mcugrad.export(onnx_run, "onnx", tmp_path)


def test_an_unknown_format_is_refused(onnx_run: Path) -> None:
    with pytest.raises(McugradError, match="--to coreml: use onnx, onnx-exact, tflite, torch, graph"):
        mcugrad.export(onnx_run, "coreml")


def test_the_command_prints_the_agreement_or_json_and_exit_codes_are_those_of_the_others(
    onnx_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["mcugrad", *map(str, arguments)])
        monkeypatch.setattr("signal.signal", lambda *_: None)
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    code, out, _ = command("export", onnx_run, "-o", tmp_path / "a.onnx", "--data", onnx_run.parent / "data.npz")
    assert code == 0 and "same top class" in out and "accuracy: device" in out and "a.onnx" in out
    code, out, _ = command("export", onnx_run, "--to", "onnx", "-o", tmp_path / "b.onnx", "--json")
    assert code == 0 and json.loads(out)["agreement"]["data"] == "calibration samples of the run"
    assert command("export", tmp_path)[0] == 1
    code, _, err = command("export", onnx_run, "--to", "tflite")
    assert code == 1 and "use --to onnx" in err
    assert command("export", onnx_run, "--to", "coreml")[0] == 2
