"""Learned weights back into the TFLite file or the state dict that they came from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mcugrad
from learned_runs import CLASSES, blobs, copied, initial, weights
from mcugrad import Course, Request
from mcugrad.errors import McugradError
from mcugrad.exporters.compare import compare, device_logits, real_input
from mcugrad.exporters.learned import read_run
from mcugrad.exporters.tflite import file_quant
from mcugrad.importers.tflite_read import contents, read

# TFLite


@pytest.mark.parametrize("kind", ["int8", "uint8", "float"])
def test_tflite_runs_and_agrees(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    run = request.getfixturevalue(f"{kind}_run")
    found = mcugrad.export(run, "tflite", tmp_path / "out.tflite", run.parent / "data.npz")["agreement"]
    assert found["runtime"] == "LiteRT" and found["top1"] >= 0.9
    assert found["largest"] <= (16 if kind == "float" else 4)


def test_tflite_holds_the_learned_integers_and_leaves_the_rest(int8_run: Path, tmp_path: Path) -> None:
    mcugrad.export(int8_run, "tflite", tmp_path / "out.tflite")
    old, new = read(int8_run / "source.tflite"), read(tmp_path / "out.tflite")
    learned, before = read_run(int8_run), initial(int8_run)
    after = weights(learned)
    assert [n.op for n in new.nodes] == [*(n.op for n in old.nodes[:-2]), "DEQUANTIZE", "FULLY_CONNECTED"]
    assert [t.name for t in new.tensors[: len(old.tensors)]] == [t.name for t in old.tensors]
    layers = [n for n in new.nodes if n.op in ("CONV_2D", "DEPTHWISE_CONV_2D")]
    assert any(not np.array_equal(after[n], before[n]) for n in after if n.endswith("_weight") and n != "head_weight")
    for i, node in enumerate(layers):
        np.testing.assert_array_equal(contents(new.tensors[node.inputs[1]]), after[f"conv{i}_weight"])
        np.testing.assert_array_equal(contents(new.tensors[node.inputs[2]]), after[f"conv{i}_bias"])
    head = new.nodes[-1]
    np.testing.assert_array_equal(contents(new.tensors[head.inputs[1]]) * 4096, after["head_weight"].T)
    grew = (tmp_path / "out.tflite").stat().st_size - (int8_run / "source.tflite").stat().st_size
    assert grew < 6000, "only the head and a few tables are new"
    assert file_quant(new) == file_quant(old)


def test_tensors_that_share_a_buffer_get_their_own_when_one_learns(int8_run: Path, tmp_path: Path) -> None:
    """Converters store equal constants once; a bias that learns must not take the others along."""
    run = copied(int8_run, tmp_path / "run")
    source = read(run / "source.tflite")
    biases = [n.inputs[2] for n in source.nodes if n.op == "CONV_2D"]
    file = bytearray((run / "source.tflite").read_bytes())
    shared, other = biases[0], biases[1]
    import tflite

    tensors = tflite.Model.GetRootAs(file, 0).Subgraphs(0)
    place = tensors.Tensors(other)._tab
    at = place.Pos + place.Offset(8)
    file[at : at + 4] = np.array(tensors.Tensors(shared).Buffer(), "<u4").tobytes()
    (run / "source.tflite").write_bytes(file)
    mcugrad.export(run, "tflite", tmp_path / "out.tflite")
    new, after = read(tmp_path / "out.tflite"), weights(read_run(run))
    found = [contents(new.tensors[n.inputs[2]]) for n in new.nodes if n.op == "CONV_2D"]
    np.testing.assert_array_equal(found[0], after["conv0_bias"])
    np.testing.assert_array_equal(found[1], after["conv2_bias"])


def test_a_run_that_did_not_come_from_tflite_is_refused(onnx_run: Path, tmp_path: Path) -> None:
    with pytest.raises(McugradError, match=r"came from net\.onnx \(onnx\), no TFLite file: use --to onnx"):
        mcugrad.export(onnx_run, "tflite", tmp_path / "out.tflite")
    assert not any(tmp_path.iterdir())


# PyTorch


@pytest.fixture(scope="module")
def torch_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a PyTorch module with batch norms, in which two layers and the biases of three learned."""
    torch = pytest.importorskip("torch")
    import torch_models

    folder = tmp_path_factory.mktemp("torch")
    module, x = torch_models.build("efficientnet_lite0")
    torch.export.save(torch.export.export(module, (x,)), folder / "net.pt2")
    torch.save(module.state_dict(), folder / "before.pt")
    np.savez(folder / "data.npz", **blobs((32, 32, 3)))
    (folder / "part.toml").write_text("biases = 3\n[weights]\nconv18 = 1.0\nconv17 = 1.0\n", encoding="utf-8")
    request = Request(folder / "net.pt2", str(folder / "part.toml"), rate=0.05)
    mcugrad.train(request, folder / "data.npz", Course(steps=60, skip=2.0), folder=folder / "run")
    return folder / "run"


def test_a_state_dict_has_the_users_names_and_changes_only_what_learned(torch_run: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    import torch_models

    found = mcugrad.export(torch_run, "torch", tmp_path / "out.pt", torch_run.parent / "data.npz")["agreement"]
    after = torch.load(tmp_path / "out.pt", weights_only=True)
    before = torch.load(torch_run.parent / "before.pt", weights_only=True)
    assert set(after) >= {k for k in before if "num_batches" not in k}
    moved = {k for k in after if after[k].shape != before[k].shape or not torch.equal(after[k], before[k])}
    assert moved and all(k.startswith(("features.6.", "features.7.", "fc.")) for k in moved), moved
    assert torch.equal(after["features.7.1.running_mean"], torch.zeros(64))
    module = torch_models.efficientnet_lite0(CLASSES).eval()
    module.load_state_dict(after)
    learned = read_run(torch_run)
    with torch.no_grad():
        logits = module(torch.from_numpy(np.moveaxis(real_input(learned, learned.x), -1, 1).copy())).numpy()
    assert compare(device_logits(learned, learned.x), logits, "torch").top1 >= 0.9
    assert found["runtime"] == "PyTorch" and found["top1"] >= 0.9
    with pytest.raises(McugradError, match="exists and mcugrad did not write it"):
        mcugrad.export(torch_run, "torch", torch_run.parent / "before.pt")
    mcugrad.export(torch_run, "torch", tmp_path / "out.pt")


def test_a_run_that_did_not_come_from_pytorch_has_no_state_dict(onnx_run: Path, tmp_path: Path) -> None:
    with pytest.raises(McugradError, match=r"came from net\.onnx \(onnx\), not from PyTorch: use --to onnx"):
        mcugrad.export(onnx_run, "torch", tmp_path / "out.pt")
