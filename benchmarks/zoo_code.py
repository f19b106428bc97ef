"""Networks that stand in the tests as code: trained for a minute on real data, seeded, before they are imported."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.models import ROOT
from benchmarks.zoo_data import samples
from benchmarks.zoo_models import FILES, Entry
from mcugrad.errors import McugradError
from mcugrad.importers import Imported, load

sys.path.insert(0, str(ROOT / "tests"))

CACHE = ROOT / "runs" / "zoo"
BATCH = 64
CHECKPOINTS = {"resnet20": "pytorch_cifar10/resnet20-12fca82f.th"}

Array = NDArray[Any]


class Network:
    """A module in evaluation mode with its example input; trained already, or trained here for `entry.epochs`."""

    def __init__(self, entry: Entry) -> None:
        try:
            import torch

            import torch_models
        except ImportError:
            raise McugradError(f"{entry.name} needs PyTorch: pip install 'mcugrad[torch]'") from None
        self.entry, self.torch = entry, torch
        torch.manual_seed(0)
        torch.set_num_threads(1)  # threads that wait for each other waste a shared machine
        self.shape: tuple[int, ...] = torch_models.INPUTS[entry.builder]
        self.module = torch_models.BUILDERS[entry.builder]()
        if entry.builder in CHECKPOINTS:
            state = torch.load(FILES / CHECKPOINTS[entry.builder], weights_only=True, map_location="cpu")["state_dict"]
            self.module.load_state_dict({k.removeprefix("module."): v for k, v in state.items()})
        elif entry.own is not None:
            self._train()
        self.module.eval()

    def imported(self) -> Imported:
        return load(self.module, self.torch.zeros(self.shape))

    def logits(self, x: Array) -> Array:
        """float32 [N,K] for float inputs [N,H,W,C]."""
        fed = self.torch.from_numpy(self._fed(x))
        with self.torch.no_grad():
            parts = [self.module(fed[i : i + BATCH]).numpy() for i in range(0, len(fed), BATCH)]
        found: Array = np.concatenate(parts).reshape(len(x), -1)
        return found

    def _fed(self, x: Array) -> Array:
        moved = np.moveaxis(x, -1, 1).reshape(len(x), *self.shape[1:])
        return np.ascontiguousarray(moved, np.float32)

    def _train(self) -> None:
        """Adam with a cosine schedule, seeded; the result is kept below runs/."""
        torch, entry = self.torch, self.entry
        kept = CACHE / f"{entry.builder}-{entry.own}-{entry.epochs}.pt".replace(" ", "-")
        if kept.exists():
            self.module.load_state_dict(torch.load(kept, weights_only=True))
            return
        assert entry.own is not None and entry.feed is not None
        x, y = samples(entry.own, self.hwc).train
        fed, target = torch.from_numpy(self._fed(entry.feed.apply(x))), torch.from_numpy(y)
        steps = entry.epochs * (len(fed) // BATCH)
        for part in self.module.modules():
            if isinstance(part, torch.nn.Conv2d) and part.bias is not None:  # without batch norm the scale must be right
                torch.nn.init.kaiming_normal_(part.weight)
                torch.nn.init.constant_(part.bias, 0.05)
        optimizer = torch.optim.Adam(self.module.parameters(), 3e-3, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        self.module.train()
        for _ in range(entry.epochs):
            order = torch.randperm(len(fed))
            for at in range(0, len(fed) - BATCH + 1, BATCH):
                chosen = order[at : at + BATCH]
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(self.module(fed[chosen]), target[chosen]).backward()
                optimizer.step()
                schedule.step()
        CACHE.mkdir(parents=True, exist_ok=True)
        torch.save(self.module.state_dict(), kept)

    @property
    def hwc(self) -> tuple[int, int, int]:
        """The input as samples store it."""
        return hwc(self.shape)


def hwc(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """[H,W,C] of [1,C,H,W], [1,C,L] (a row of L) or [1,F]."""
    if len(shape) == 4:
        return shape[2], shape[3], shape[1]
    return (1, shape[2], shape[1]) if len(shape) == 3 else (1, 1, shape[1])


def checkpoint(entry: Entry) -> Path | None:
    """The file that an entry needs, if it needs one."""
    if entry.builder is None:
        return entry.path
    return FILES / CHECKPOINTS[entry.builder] if entry.builder in CHECKPOINTS else None
