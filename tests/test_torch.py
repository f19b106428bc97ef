"""PyTorch modules and .pt2 files against torch itself."""

import sys

import numpy as np
import pytest

import mcugrad
from mcugrad.errors import McugradError
from mcugrad.ir import interpret, verify

torch = pytest.importorskip("torch", reason="torch is not installed")

import torch_models  # noqa: E402


def outputs(imported, x):
    """float64: what the imported model gives for a real sample [1,C,H,W], [1,C,L] or [1,F], as a flat array."""
    (value,) = imported.graph.inputs
    fed = np.moveaxis(x, 1, -1) if x.ndim > 2 else x
    features = interpret(imported.graph, {value.name: fed.reshape(value.type.shape)}, "real")[imported.graph.outputs[0]]
    if imported.classifier is None:
        return np.moveaxis(features, -1, 1).reshape(-1)
    return features.reshape(-1) @ imported.classifier.weight + imported.classifier.bias


def same(module, x):
    imported = mcugrad.load(module, x)
    verify(imported.graph)
    with torch.no_grad():
        np.testing.assert_allclose(outputs(imported, x.numpy()), module(x).numpy().reshape(-1), atol=1e-4, rtol=1e-4)
    return imported


@pytest.mark.parametrize("name", torch_models.BUILDERS)
def test_module_gives_what_torch_gives(name):
    imported = same(*torch_models.build(name))
    assert imported.report.ok and imported.report.format == "pytorch"


def test_exported_file_needs_no_torch(tmp_path, monkeypatch):
    module, x = torch_models.build("mobilenet_v2")
    torch.export.save(torch.export.export(module, (x,)), tmp_path / "m.pt2")
    with torch.no_grad():
        want = module(x).numpy()
    monkeypatch.setitem(sys.modules, "torch", None)
    imported = mcugrad.load(tmp_path / "m.pt2")
    np.testing.assert_allclose(outputs(imported, x.numpy())[None], want, atol=1e-4)
    assert mcugrad.check(tmp_path / "m.pt2").ok


def test_layers_bear_the_names_of_the_users_modules():
    report = mcugrad.check(*torch_models.build("mobilenet_v2"))
    origins = [layer.origin for layer in report.layers]
    assert "Classifier:features.1.body.0.0" in origins and origins[-1] == "Classifier:fc"


def test_a_blocker_names_the_users_module():
    class Attention(torch.nn.Module):
        def forward(self, x):
            return torch.cumsum(x, 1)

    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), Attention())
    (blocker,) = mcugrad.check(net, torch.zeros(1, 1, 5, 5)).blockers
    assert blocker.node == "1.cumsum" and blocker.op == "aten.cumsum.default" and blocker.remedy
    with pytest.raises(McugradError, match=r"Sequential cannot be imported.*\n.*1\.cumsum \(aten\.cumsum\.default\)"):
        mcugrad.load(net, torch.zeros(1, 1, 5, 5))


def test_module_is_exported_in_evaluation_mode_and_left_alone():
    module, x = torch_models.build("mlp")
    module.train()
    assert mcugrad.load(module, torch.cat([x, x])).classifier is not None
    assert module.training


def test_module_without_example_or_torch_is_an_error(monkeypatch):
    module, x = torch_models.build("mlp")
    with pytest.raises(McugradError, match="Sequential: give an example input"):
        mcugrad.load(module)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(McugradError, match=r"pip install 'mcugrad\[torch\]'"):
        mcugrad.load(module, x)


def test_module_that_cannot_be_exported_is_an_error():
    class Branch(torch.nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(McugradError, match=r"Branch: torch\.export cannot trace"):
        mcugrad.load(Branch(), torch.zeros(1, 3))


def test_imported_model_is_accepted_wherever_a_path_is():
    imported = mcugrad.load(*torch_models.build("mlp"))
    assert mcugrad.load(imported) is imported
    assert mcugrad.check(imported) is imported.report


WEIGHT = torch.linspace(-1, 1, 72).reshape(2, 4, 3, 3)
FUNCTIONS = {
    "add scaled": lambda x, y: torch.add(x, y, alpha=0.5),
    "subtract a number": lambda x, y: x - 0.25,
    "times a number": lambda x, y: x * 3 + y / 2,
    "hardtanh": lambda x, y: torch.nn.functional.hardtanh(x, -2, 2),
    "clamp": lambda x, y: torch.clamp(x, min=0),
    "clamp both": lambda x, y: torch.clamp(x, -1, 4),
    "mean": lambda x, y: x.mean((2, 3)),
    "mean kept": lambda x, y: x.mean((-1, -2), keepdim=True),
    "adaptive pool": lambda x, y: torch.nn.functional.adaptive_avg_pool2d(x, (2, 3)),
    "average pool": lambda x, y: torch.nn.functional.avg_pool2d(x, 2, stride=(1, 2)),
    "max pool": lambda x, y: torch.nn.functional.max_pool2d(x, 3, 2, 1, ceil_mode=True),
    "view back": lambda x, y: x.reshape(1, 4, 24).view(1, 4, 4, 6),
    "pad before a convolution": lambda x, y: torch.nn.functional.conv2d(torch.nn.functional.pad(x, (1, 2, 0, 1)), WEIGHT),
    "every second pixel": lambda x, y: x[:, :, ::2, ::3],
}  # fmt: skip


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_functions(function):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = torch.nn.Conv2d(3, 4, 1), torch.nn.Conv2d(3, 4, 1)

        def forward(self, x):
            return function(self.first(x), self.second(x))

    torch.manual_seed(0)
    same(Net().eval(), torch.randn(1, 3, 4, 6))


CHECKPOINT = "pytorch_cifar10/resnet20-12fca82f.th"


def test_published_resnet20_through_pytorch():
    """91.7 % is published on clean CIFAR-10; the 200 clean pictures of MLPerf Tiny are part of it."""
    from pathlib import Path

    shared = Path(__file__).resolve().parents[2] / "shared"
    path, data = shared / "models" / CHECKPOINT, shared / "data" / "cifar10" / "mlperf_ic01.npz"
    if not path.exists() or not data.exists():
        pytest.skip("the shared models are not beside the project")
    state = torch.load(path, weights_only=True, map_location="cpu")["state_dict"]
    module = torch_models.ResNet20()
    module.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
    module.eval()
    with np.load(data) as arrays:
        x, y = arrays["x"], arrays["y"]
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    x = torch.from_numpy(((x.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2))
    imported = same(module, x[:1])
    right = np.mean([outputs(imported, s[None].numpy()).argmax() == label for s, label in zip(x[:60], y[:60], strict=True)])
    assert right > 0.85


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "densenet", "unet"])
def test_network_learns_the_same_bits_on_host_and_virtual_mcu(tmp_path, name):
    from mcugrad.trainer import Course

    imported = mcugrad.load(*torch_models.build(name))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, *imported.graph.inputs[0].type.shape[1:])).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(12) % 3)
    own = {"loss": "autoencoder", "keep_head": True} if name == "unet" else {}
    request = mcugrad.Request(imported, scheme="bias", sram=1 << 20, flash=4 << 20, **own)
    results = [
        mcugrad.train(request, tmp_path / "d.npz", Course(steps=4, skip=2.0), on, tmp_path / on) for on in ("host", "vm")
    ]
    assert results[0]["parameters_sha256"] == results[1]["parameters_sha256"]
    assert results[0]["losses"] == results[1]["losses"]
