"""Quantized training as the published method simulates it: fp32 tensors that hold int8 values, in PyTorch.

Every convolution computes in integer units, requantizes by a float scale, rounds and clamps; rounding passes gradients
through, the clamp stops them, and each gradient of an activation is itself rounded to 8 bits of its tensor's largest
value.  The step divides a weight's gradient by the square of its scale (quantization-aware scaling).  The head is fp32.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.learning_float import DEAD, Trainable
from mcugrad.importers.mcunet import Layer, Model
from mcugrad.ir import Quant


class Requantize(torch.autograd.Function):
    """clamp(round(acc * scale) + zero); its gradient is masked, scaled and rounded to 8 bits."""

    @staticmethod
    def forward(ctx: Any, acc: Tensor, scale: Tensor, zero: int) -> Tensor:
        y = torch.round(acc * scale).add_(zero)
        ctx.save_for_backward((y > -128) & (y < 127), scale)
        return y.clamp_(-128, 127)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        inside, scale = ctx.saved_tensors
        passed = gradients[0] * inside * scale
        unit = passed.abs().max().clamp_min(1e-30) / 127
        return torch.round(passed / unit) * unit, None, None


class Conv:
    """A convolution in integer units; a dead channel's scale is 1, so that its squared inverse stays finite."""

    def __init__(self, layer: Layer) -> None:
        self.name = layer.name
        self.scales = torch.tensor(np.where(layer.w_scales < DEAD, 1.0, layer.w_scales), dtype=torch.float32)
        self.weight = torch.tensor(np.where(layer.w_scales < DEAD, 0, layer.weight.T).T, dtype=torch.float32)
        self.bias = torch.tensor(layer.bias, dtype=torch.float32)
        self.x, self.y = layer.x, layer.y
        factor = layer.x.scale[0] * layer.w_scales / layer.y.scale[0]
        self.factor = torch.tensor(factor, dtype=torch.float32)[:, None, None]
        self.stride, self.groups, self.padding = layer.stride, layer.groups, (layer.kernel - 1) // 2

    def __call__(self, x: Tensor) -> Tensor:
        acc = functional.conv2d(x - self.x.zero, self.weight, self.bias, self.stride, self.padding, groups=self.groups)
        return Requantize.apply(acc, self.factor, self.y.zero)


def real(x: Tensor, quant: Quant) -> Tensor:
    return (x - quant.zero) * quant.scale[0]


class Net:
    """The backbone and a zero head of `classes` outputs."""

    def __init__(self, model: Model, classes: int) -> None:
        self.blocks = [([Conv(layer) for layer in block.layers], block.residual) for block in model.blocks]
        self.convs = {conv.name: conv for convs, _ in self.blocks for conv in convs}
        self.head_weight = torch.zeros(model.blocks[-1].layers[-1].weight.shape[0], classes)
        self.head_bias = torch.zeros(classes)

    def features(self, x: Tensor, first: int = 0) -> Tensor:
        """Pooled features in real units [N, F] of int8 values [N, C, H, W] that enter block `first`."""
        quant = self.blocks[first][0][0].x
        for convs, residual in self.blocks[first:]:
            y = x
            for conv in convs:
                y = conv(y)
            if residual is None:
                x, quant = y, convs[-1].y
            else:
                total = real(y, convs[-1].y) + real(x, quant)
                x, quant = Requantize.apply(total, torch.tensor(1 / residual.scale[0]), residual.zero), residual
        return real(x.mean((2, 3)), quant)

    def logits(self, x: Tensor, first: int = 0) -> Tensor:
        return self.features(x, first) @ self.head_weight + self.head_bias


class Sgd:
    """Plain SGD with quantization-aware scaling on what a scheme updates, and on the head."""

    def __init__(self, net: Net, what: Trainable) -> None:
        self.parts = [(net.head_weight, torch.tensor(1.0), None), (net.head_bias, torch.tensor(1.0), None)]
        for name in what.biases:
            conv = net.convs[name]
            self.parts.append((conv.bias, (conv.scales * conv.x.scale[0]) ** -2, None))
        for name, channels in what.weights.items():
            conv = net.convs[name]
            kept = None if channels is None else list(channels)
            self.parts.append((conv.weight, conv.scales[:, None, None, None] ** -2, kept))
        for tensor in self._tensors():
            tensor.requires_grad_(True)

    def _tensors(self) -> list[Tensor]:
        return [tensor for tensor, _, _ in self.parts]

    def step(self, loss: Tensor, rate: float) -> None:
        with torch.no_grad():
            gradients: Iterable[Tensor] = torch.autograd.grad(loss, self._tensors())
            for (tensor, scaling, channels), gradient in zip(self.parts, gradients, strict=True):
                change = gradient * scaling * rate
                if channels is None:
                    tensor.sub_(change)
                else:
                    tensor[:, channels] -= change[:, channels]
                if tensor.dim() == 4:
                    tensor.clamp_(-128, 127)
