"""Networks for keywords, vibration and machine sounds: trained here, seeded, before they are imported and adapted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

BATCH = 64
Array = NDArray[Any]
Layer = nn.Conv1d | nn.Conv2d | nn.Linear


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [layer, nn.BatchNorm2d(outputs), nn.ReLU()]


def keywords(classes: int) -> nn.Sequential:
    """A depthwise-separable network for 49 frames of 40 mel bands [1, 49, 40]."""
    layers = _conv(1, 32, 5, 2)
    for stride in (1, 2, 1, 1):
        layers += [*_conv(32, 32, 3, stride, groups=32), *_conv(32, 32, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, classes))


def vibration(classes: int) -> nn.Sequential:
    """A one-dimensional network for 1024 samples [1, 1024] with a wide first kernel."""
    layers: list[nn.Module] = [nn.Conv1d(1, 8, 64, 8, 28, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2)]
    for inputs, outputs in ((8, 16), (16, 32)):
        layers += [nn.Conv1d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm1d(outputs), nn.ReLU(), nn.MaxPool1d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, classes))


def sounds(_classes: int) -> nn.Sequential:
    """An autoencoder for 5 frames of 128 mel bands [640]."""
    widths = (640, 128, 128, 8, 128, 128)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(128, 640))


def batches(count: int, epochs: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Indices of each step's samples: fresh permutations, whole batches only."""
    rng = np.random.default_rng([seed, 3])
    for _ in range(epochs):
        order = rng.permutation(count)
        for at in range(0, count - BATCH + 1, BATCH):
            yield order[at : at + BATCH]


def pretrained(build: Callable[[int], nn.Sequential], x: Tensor, y: Array | None, epochs: int, kept: Path) -> nn.Sequential:
    """The network in evaluation mode, batch norms folded, trained on x [N, ...] and kept in a file.

    y: classes [N]; None: the network is to restore x.  Adam, cosine schedule, batches of 64."""
    torch.manual_seed(0)
    module = build(1 if y is None else int(y.max()) + 1)
    if kept.exists():
        module.load_state_dict(torch.load(kept, weights_only=True))
    else:
        _train(module, x, None if y is None else torch.from_numpy(y), epochs)
        torch.save(module.state_dict(), kept)
    return folded(module.eval())


def _train(module: nn.Module, x: Tensor, y: Tensor | None, epochs: int) -> None:
    optimizer = torch.optim.Adam(module.parameters(), 3e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * (len(x) // BATCH))
    module.train()
    for at in batches(len(x), epochs, 0):
        optimizer.zero_grad()
        found = module(x[at])
        loss = functional.mse_loss(found, x[at]) if y is None else functional.cross_entropy(found, y[at])
        loss.backward()
        optimizer.step()
        schedule.step()


def folded(module: nn.Sequential) -> nn.Sequential:
    """The same function without batch norms."""
    parts: list[nn.Module] = []
    for part in module:
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            fuse = fuse_linear_bn_eval if isinstance(parts[-1], nn.Linear) else fuse_conv_bn_eval
            parts[-1] = fuse(parts[-1], part)  # type: ignore[type-var, arg-type]
        else:
            parts.append(part)
    return nn.Sequential(*parts).eval()


def weighted(module: nn.Sequential) -> list[Layer]:
    """Layers with weights, in order."""
    return [part for part in module if isinstance(part, Layer)]
