"""The yardstick: the same network in fp32 PyTorch, fine-tuned with the same scheme by plain SGD at batch 1.

Nothing here comes from the project's arithmetic or autodiff.  The pickle is dequantized (weight * w_scale, bias *
x_scale * w_scale), every activation is clamped to the real range of its int8 tensor, the head starts at zero, and
autograd differentiates.  Quantization-aware scaling makes the device's step in real units plain SGD, so both share
one learning rate.  Easy samples are skipped as the device skips them; nothing is rounded.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mcugrad.importers.mcunet import Layer, Model
from mcugrad.ir import Quant

DEAD = 1e-7  # a weight scale below this marks a channel whose weights are noise
BATCH = 16
EASY = -math.log(0.95)  # loss of a sample that is already right


def real_range(quant: Quant) -> tuple[float, float]:
    """The real values of -128 and 127."""
    return (-128 - quant.zero) * quant.scale[0], (127 - quant.zero) * quant.scale[0]


class Conv:
    """A convolution in real units, clamped to the range of its output."""

    def __init__(self, layer: Layer) -> None:
        live = np.where(layer.w_scales < DEAD, 0.0, layer.w_scales)
        weight = layer.weight * live[:, None, None, None]
        bias = layer.bias * (layer.x.scale[0] * layer.w_scales)
        self.name = layer.name
        self.weight = torch.tensor(weight, dtype=torch.float32)
        self.bias = torch.tensor(bias, dtype=torch.float32)
        self.stride, self.groups, self.padding = layer.stride, layer.groups, (layer.kernel - 1) // 2
        self.range = real_range(layer.y)

    def __call__(self, x: Tensor) -> Tensor:
        y = functional.conv2d(x, self.weight, self.bias, self.stride, self.padding, groups=self.groups)
        return functional.hardtanh(y, *self.range)


@dataclass(frozen=True)
class Block:
    """Convolutions in a row; with a range, the block's input is added and the sum clamped to it."""

    convs: tuple[Conv, ...]
    residual: tuple[float, float] | None

    def __call__(self, x: Tensor) -> Tensor:
        y = x
        for conv in self.convs:
            y = conv(y)
        return y if self.residual is None else functional.hardtanh(y + x, *self.residual)


class Net:
    """The backbone's blocks and a zero head of `classes` outputs."""

    def __init__(self, model: Model, classes: int) -> None:
        self.blocks = tuple(
            Block(tuple(Conv(layer) for layer in b.layers), None if b.residual is None else real_range(b.residual))
            for b in model.blocks
        )
        self.input_scale = model.blocks[0].layers[0].x.scale[0]
        self.features = model.blocks[-1].layers[-1].weight.shape[0]
        self.head_weight = torch.zeros(self.features, classes)
        self.head_bias = torch.zeros(classes)

    def conv(self, name: str) -> Conv:
        return next(c for block in self.blocks for c in block.convs if c.name == name)

    def block_of(self, name: str) -> int:
        """Index of the block that holds a layer."""
        return next(i for i, block in enumerate(self.blocks) if any(c.name == name for c in block.convs))

    def pooled(self, x: Tensor, first: int) -> Tensor:
        """Features [N,F] of what enters block `first`."""
        for block in self.blocks[first:]:
            x = block(x)
        return x.mean((2, 3))

    def logits(self, x: Tensor, first: int) -> Tensor:
        return self.pooled(x, first) @ self.head_weight + self.head_bias

    @torch.no_grad()
    def prefix(self, images: NDArray[np.uint8], last: int) -> Tensor:
        """What enters block `last`, for images uint8 [N,H,W,C]."""
        parts = []
        for i in range(0, len(images), BATCH):
            q = torch.from_numpy(images[i : i + BATCH]).permute(0, 3, 1, 2).float() - 128
            x = (q * self.input_scale).contiguous()
            for block in self.blocks[:last]:
                x = block(x)
            parts.append(x)
        return torch.cat(parts)


@dataclass(frozen=True)
class Trainable:
    """What a scheme updates: input channels per weight (None: all) and layers whose bias learns."""

    weights: dict[str, tuple[int, ...] | None]
    biases: tuple[str, ...]


def largest_channels(layer: Layer, ratio: float) -> tuple[int, ...] | None:
    """The share of input channels whose int8 weights have the largest L2 norm; None for all of them."""
    total = layer.weight.shape[1]
    count = int(total * ratio)
    if count == total:
        return None
    norm = (layer.weight.astype(np.int64) ** 2 * (layer.w_scales >= DEAD)[:, None, None, None]).sum(axis=(0, 2, 3))
    return tuple(sorted(int(i) for i in np.argsort(-norm, kind="stable")[:count]))


def trainable(model: Model, ratios: dict[str, float], biases: int) -> Trainable:
    """Ratio of input channels per layer name, and the number of last layers whose bias learns."""
    all_layers = list(model.layers())
    weights = {layer.name: largest_channels(layer, ratios[layer.name]) for layer in all_layers if layer.name in ratios}
    return Trainable(weights, tuple(layer.name for layer in all_layers[len(all_layers) - biases :]))


class Sgd:
    """Plain SGD on the head, the biases and the selected channels of the weights."""

    def __init__(self, net: Net, what: Trainable) -> None:
        self.whole = [net.head_weight, net.head_bias, *(net.conv(n).bias for n in what.biases)]
        self.whole += [net.conv(n).weight for n, channels in what.weights.items() if channels is None]
        self.sliced = [(net.conv(n).weight, list(c)) for n, c in what.weights.items() if c is not None]
        for tensor in self._tensors():
            tensor.requires_grad_(True)

    def _tensors(self) -> list[Tensor]:
        return [*self.whole, *(t for t, _ in self.sliced)]

    def step(self, loss: Tensor, rate: float) -> None:
        gradients = torch.autograd.grad(loss, self._tensors())
        with torch.no_grad():
            for whole, gradient in zip(self.whole, gradients, strict=False):
                whole.sub_(gradient, alpha=rate)
            for (weight, channels), gradient in zip(self.sliced, gradients[len(self.whole) :], strict=True):
                weight[:, channels] -= rate * gradient[:, channels]


@torch.no_grad()
def guesses(net: Net, x: Tensor, first: int) -> NDArray[np.int64]:
    """Class of what enters block `first`, for each of x [N,C,H,W]."""
    parts = [net.logits(x[i : i + BATCH], first).argmax(1) for i in range(0, len(x), BATCH)]
    found: NDArray[np.int64] = torch.cat(parts).numpy()
    return found


def train(
    net: Net, what: Trainable, data: tuple[Tensor, NDArray[np.int64]], order: NDArray[Any], first: int,
    rate: Callable[[int], float],
) -> tuple[list[float], float]:  # fmt: skip
    """One step per index in `order` on what enters block `first`, at rate(step); (losses, seconds)."""
    x, y = data[0], torch.from_numpy(data[1])
    sgd, losses, start = Sgd(net, what), [], time.perf_counter()
    for step, i in enumerate(order.tolist()):
        loss = functional.cross_entropy(net.logits(x[i : i + 1], first), y[i : i + 1])
        if float(loss.detach()) > EASY:
            sgd.step(loss, rate(step))
        losses.append(float(loss.detach()))
    return losses, time.perf_counter() - start
