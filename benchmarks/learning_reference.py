"""The published algorithm, simulated: int8 graph, fp32 masters, random fp32 head; and the rule that its device follows.

The released device code subtracts a float from an int8 weight: the result is truncated toward zero and wraps around.
Easy samples are skipped as the device skips them.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from benchmarks.host_simulator import Net, Sgd
from benchmarks.learning_float import BATCH, EASY, Trainable
from mcugrad.importers.mcunet import Model


class DeviceRule(Sgd):
    """int8 -= float, int32 -= float, as C converts them; the head stays fp32."""

    def step(self, loss: Tensor, rate: float) -> None:
        with torch.no_grad():
            gradients = torch.autograd.grad(loss, self._tensors())
            for (tensor, scaling, channels), gradient in zip(self.parts, gradients, strict=True):
                at = ... if channels is None else (slice(None), channels)
                moved = tensor[at] - (gradient * scaling * rate)[at]
                tensor[at] = moved if tensor is self.parts[0][0] or tensor is self.parts[1][0] else truncated(moved)


def truncated(x: Tensor) -> Tensor:
    """What is left of float values in int8 weights (4 axes) or in int32 biases."""
    if x.dim() < 4:
        return torch.trunc(x)
    return torch.remainder(torch.trunc(x) + 128, 256) - 128


class PlainGradient(Sgd):
    """Without quantization-aware scaling: the gradient of the integers themselves, at the same learning rate."""

    def __init__(self, net: Net, what: Trainable) -> None:
        super().__init__(net, what)
        self.parts = [(tensor, torch.ones(()), channels) for tensor, _, channels in self.parts]


RULES: dict[str, type[Sgd]] = {"reference": Sgd, "device rule": DeviceRule, "zero head": Sgd, "no QAS": PlainGradient}
ZERO_HEAD = ("zero head", "no QAS")


def train(
    model: Model, what: Trainable, method: str, data: tuple[Tensor, NDArray[np.int64]], order: NDArray[np.int64], first: int,
    rate: Callable[[int], float], classes: int, seed: int,
) -> tuple[Net, list[float], float]:  # fmt: skip
    """One step per index in `order` on int8 values [N,C,H,W] that enter block `first`; (network, losses, seconds)."""
    net = Net(model, classes)
    if method not in ZERO_HEAD:
        bound = len(net.head_weight) ** -0.5
        torch.manual_seed(seed)
        net.head_weight.uniform_(-bound, bound)
    x, y = data[0], torch.from_numpy(data[1])
    sgd, losses, start = RULES[method](net, what), [], time.perf_counter()
    for step, i in enumerate(order.tolist()):
        loss = functional.cross_entropy(net.logits(x[i : i + 1].float(), first), y[i : i + 1])
        if float(loss.detach()) > EASY:
            sgd.step(loss, rate(step))
        losses.append(float(loss.detach()))
    return net, losses, time.perf_counter() - start


@torch.no_grad()
def guesses(net: Net, x: Tensor, first: int) -> NDArray[np.int64]:
    """Class of each of the int8 values x [N,C,H,W] that enter block `first`."""
    parts = [net.logits(x[i : i + BATCH].float(), first).argmax(1) for i in range(0, len(x), BATCH)]
    found: NDArray[np.int64] = torch.cat(parts).numpy()
    return found
