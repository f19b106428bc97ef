"""How good a model is on held-out data, in the figure that its loss asks for."""

from __future__ import annotations

import numpy as np

from mcugrad.devices.base import Device
from mcugrad.devices.host import Host
from mcugrad.ir import Array
from mcugrad.loss import Loss
from mcugrad.prepare import Prepared

CHUNK = 64  # samples whose outputs are held at once


def measure(device: Device, prepared: Prepared, x: Array, y: Array | None, group: Array | None = None) -> dict[str, float]:
    """Figures by name for int8 samples x [N,H,W,C].

    softmax: accuracy against labels y [N].  sigmoid: accuracy over all labels y [N,K], and the share of samples whose labels
    are all right.  mse: mse and r2 against numbers y [N,K], in their own units.  autoencoder: mse of the reconstruction,
    in real units, and the AUC of that error as a sign of anomaly where labels y [N] tell 0 (normal) from the rest; samples
    of one group [N] are judged by the mean of their errors."""
    loss = prepared.targets.loss
    if loss is Loss.SOFTMAX:
        assert y is not None, "a classifier's samples have labels"
        seen, correct = device.evaluate(x, y.astype(np.int32))
        return {"accuracy": correct / seen}
    if loss is Loss.AUTOENCODER:
        return _reconstruction(device, prepared, x, y, group)
    assert y is not None, "the samples have targets"
    found = prepared.targets.decode(outputs(device, x))
    if loss is Loss.SIGMOID:
        right = (found > 0) == (y != 0)
        return {"accuracy": float(right.mean()), "exact": float(right.all(axis=1).mean())}
    errors = ((found - y) ** 2).sum(axis=0)
    spread = ((y - y.mean(axis=0)) ** 2).sum(axis=0)
    explained = 1 - errors[spread > 0] / spread[spread > 0]
    return {"mse": float(errors.mean() / len(y)), "r2": float(explained.mean()) if len(explained) else 0.0}


def outputs(device: Device, x: Array) -> Array:
    """Logits int32 [N,K] of samples."""
    return device.infer_many(x) if isinstance(device, Host) else np.stack([device.infer(sample) for sample in x])


def reconstruction_errors(device: Device, prepared: Prepared, x: Array) -> Array:
    """float64 [N]: the mean squared error, in real units, of each reconstructed sample."""
    quant = prepared.graph.inputs[0].type.quant
    assert quant is not None, "a prepared graph is quantized"
    errors = []
    for first in range(0, len(x), CHUNK):
        part = x[first : first + CHUNK]
        real = (part.reshape(len(part), -1).astype(np.float64) - quant.zero) * quant.scale[0]
        errors.append(((prepared.targets.decode(outputs(device, part)) - real) ** 2).mean(axis=1))
    return np.concatenate(errors)


def _reconstruction(device: Device, prepared: Prepared, x: Array, y: Array | None, group: Array | None) -> dict[str, float]:
    errors = reconstruction_errors(device, prepared, x)
    if group is not None:
        _, first, of = np.unique(group, return_index=True, return_inverse=True)
        errors = np.bincount(of, errors) / np.bincount(of)
        y = None if y is None else y[first]
    if y is None or not (y != 0).any() or (y != 0).all():
        return {"mse": float(errors.mean())}
    return {"mse": float(errors[y == 0].mean()), "auc": auc(errors, y != 0)}


def auc(scores: Array, positive: Array) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counted half."""
    values, ranks = np.unique(scores, return_inverse=True)
    counts = np.bincount(ranks, minlength=len(values))
    middle = np.cumsum(counts) - (counts - 1) / 2  # mean rank of each value, from 1
    p = int(positive.sum())
    n = len(scores) - p
    return float((middle[ranks][positive].sum() - p * (p + 1) / 2) / (p * n))
