"""The benchmark of the host twin: what it compares with does what it says."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.models import model_file

from mcugrad.importers.mcunet import read_pickle, reference_features

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from benchmarks import host_simulator as simulator  # noqa: E402
from benchmarks import learning_float as fp32  # noqa: E402

MODEL = "mcunet-5fps"
pytestmark = pytest.mark.skipif(not model_file(MODEL).exists(), reason="the published model is not here")


@pytest.fixture(scope="module")
def network():
    return read_pickle(model_file(MODEL))


def test_the_simulated_features_are_those_of_the_published_semantics(network):
    x = np.random.default_rng(0).integers(-128, 128, (1, 128, 128, 3)).astype(np.int8)
    net, quant = simulator.Net(network, 10), network.blocks[-1].layers[-1].y
    with torch.no_grad():
        real = net.features(torch.from_numpy(x).permute(0, 3, 1, 2).float())[0].numpy()
    off = np.abs(real / quant.scale[0] + quant.zero - reference_features(network, x))  # of which its rounding is up to 0.5
    assert off.mean() < 0.5 and off.max() < 2


def test_a_simulated_step_moves_what_the_scheme_names_and_nothing_else(network):
    net, last = simulator.Net(network, 2), list(network.layers())[-1].name
    convs = list(net.convs.values())
    before = {c.name: (c.weight.clone(), c.bias.clone()) for c in convs}
    sgd = simulator.Sgd(net, fp32.Trainable({last: (0, 5)}, (last,)))
    x = torch.randint(-128, 128, (1, 3, 128, 128), generator=torch.Generator().manual_seed(0)).float()
    for _ in range(2):  # the first step moves the head alone
        sgd.step(torch.nn.functional.cross_entropy(net.logits(x), torch.tensor([1])), 1e-2)
    moved = {
        c.name for c in convs if not torch.equal(c.weight, before[c.name][0]) or not torch.equal(c.bias, before[c.name][1])
    }
    assert moved == {last}
    change = (net.convs[last].weight - before[last][0]).abs().sum((0, 2, 3))
    assert (change > 0).nonzero().flatten().tolist() == [0, 5]
