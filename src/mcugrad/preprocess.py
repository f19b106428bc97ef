"""How raw samples become a model's input; stored as JSON beside the model."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import McugradError
from .images import MODES, resize

CHUNK = 64


class Input(Enum):
    """What a model reads."""

    INT8 = "int8"  # uint8 pixel - 128; int8 samples as they are
    FLOAT = "float"  # (value * scale - mean) / std as float32


class Layout(Enum):
    """Axis order of what `apply` returns; raw samples are channels-last."""

    NHWC = "NHWC"
    NCHW = "NCHW"


@dataclass(frozen=True)
class Preprocess:
    """The mapping from raw samples [N, ...] to a model's input; mean and std have one entry, or one per channel."""

    kind: Input
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: Layout = Layout.NHWC
    size: tuple[int, int] | None = None  # height, width to which uint8 images are resized

    def __post_init__(self) -> None:
        values = np.array([self.scale, *self.mean, *self.std])
        if not self.mean or not self.std or not np.isfinite(values).all() or self.scale == 0 or 0.0 in self.std:
            raise McugradError(f"preprocessing: scale, mean and std must be finite, scale and std not zero: {self}")
        if self.size is not None and min(self.size) < 1:
            raise McugradError(f"preprocessing: size must be a positive height and width, got {self.size}")

    @staticmethod
    def default(dtype: np.dtype[Any], *, quantized: bool) -> "Preprocess":
        """The mapping when a model says nothing: INT8 for 8-bit data of a quantized model, pixel / 255 for images, else
        the value."""
        if quantized and dtype in (np.uint8, np.int8):
            return Preprocess(Input.INT8)
        return Preprocess(Input.FLOAT, scale=1 / 255 if dtype == np.uint8 else 1.0)

    def apply(self, x: NDArray[Any]) -> NDArray[Any]:
        """Raw samples [N, ...] (uint8, int8, int16 or float) as the model's input, int8 or float32.

        Raises McugradError if the dtype, the rank or the number of channels does not suit this mapping.
        """
        x = self._resized(np.asarray(x))
        y = _to_int8(x) if self.kind is Input.INT8 else self._to_float(x)
        return y if self.layout is Layout.NHWC else np.ascontiguousarray(np.moveaxis(y, -1, 1))

    def quantized(self, x: NDArray[Any], scale: float, zero: int) -> NDArray[np.int8]:
        """Raw samples [N, ...] as the int8 input of a quantized model, CHUNK samples at a time.

        scale and zero are the input's quantization; INT8 inputs are on the grid already and ignore them.
        """
        parts = [self._quantized(part, scale, zero) for part in _chunks(x)]
        return np.concatenate(parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `from_dict` restores an equal object."""
        size = None if self.size is None else list(self.size)
        numbers = {"scale": self.scale, "mean": list(self.mean), "std": list(self.std)}
        return {"kind": self.kind.value, **numbers, "layout": self.layout.value, "size": size}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> "Preprocess":
        """The inverse of `to_dict`; raises McugradError if a field is missing, unknown or malformed."""
        try:
            fields = dict(data)
            size = fields.pop("size")
            result = Preprocess(
                kind=Input(fields.pop("kind")),
                scale=float(fields.pop("scale")),
                mean=tuple(float(v) for v in fields.pop("mean")),
                std=tuple(float(v) for v in fields.pop("std")),
                layout=Layout(fields.pop("layout")),
                size=None if size is None else (int(size[0]), int(size[1])),
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise McugradError(f"preprocessing: malformed entry ({error!r}) in {data}: compile again") from error
        if fields:
            raise McugradError(f"preprocessing: unknown fields {sorted(fields)}: compile again")
        return result

    def _resized(self, x: NDArray[Any]) -> NDArray[Any]:
        if self.size is None or x.shape[1:3] == self.size:
            return x
        if x.dtype != np.uint8 or x.ndim != 4 or x.shape[-1] not in MODES:
            raise McugradError(
                f"preprocessing: only uint8 images [N, H, W, 1 or 3] can be resized to {self.size}, "
                f"got {x.dtype} {list(x.shape)}: resize the data before it is stored"
            )
        return resize(x, *self.size, x.shape[-1])

    def _to_float(self, x: NDArray[Any]) -> NDArray[np.float32]:
        counts = {len(self.mean), len(self.std)} - {1}
        if counts and (x.ndim < 2 or counts != {x.shape[-1]}):
            raise McugradError(
                f"preprocessing: {len(self.mean)} means and {len(self.std)} deviations for samples of shape "
                f"{list(x.shape[1:])}: give one, or one per channel (the last axis)"
            )
        y: NDArray[np.float64] = (x.astype(np.float64) * self.scale - np.array(self.mean)) / np.array(self.std)
        return y.astype(np.float32)

    def _quantized(self, x: NDArray[Any], scale: float, zero: int) -> NDArray[np.int8]:
        y = self.apply(x)
        return y if self.kind is Input.INT8 else quantize(y, scale, zero)


NAMED = {
    "pixel-128": Preprocess(Input.INT8),
    "0..255": Preprocess(Input.FLOAT),
    "0..1": Preprocess(Input.FLOAT, scale=1 / 255),
    "-1..1": Preprocess(Input.FLOAT, scale=1 / 127.5, mean=(1.0,)),
    "imagenet": Preprocess(Input.FLOAT, scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
}
"""Preprocessing of images by name: how a pixel enters."""


def parse(text: str) -> Preprocess:
    """A name of NAMED, the path of a JSON file as `compile` writes it, or settings: scale=1/255,mean=0.5,std=0.2:0.3:0.2.

    Raises McugradError for anything else."""
    if text in NAMED:
        return NAMED[text]
    if text.endswith(".json"):
        try:
            return Preprocess.from_dict(json.loads(Path(text).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise McugradError(f"--preprocess {text}: cannot be read ({error})") from None
    try:
        pairs = dict(part.split("=") for part in text.split(","))
        numbers = {key: tuple(_number(v) for v in value.split(":")) for key, value in pairs.items()}
    except (ValueError, ZeroDivisionError):
        numbers = {"": ()}
    if not numbers.keys() <= {"scale", "mean", "std"} or len(numbers.get("scale", (1.0,))) != 1:
        names = ", ".join(NAMED)
        raise McugradError(f"--preprocess {text!r}: use {names}, a .json file, or scale=1/255,mean=0.5:0.4:0.3,std=0.2")
    (scale,) = numbers.get("scale", (1.0,))
    return Preprocess(Input.FLOAT, scale, numbers.get("mean", (0.0,)), numbers.get("std", (1.0,)))


def _number(text: str) -> float:
    """A decimal number or a fraction."""
    above, _, below = text.partition("/")
    return float(above) / float(below) if below else float(above)


def quantize(x: NDArray[Any], scale: float, zero: int) -> NDArray[np.int8]:
    """q = clamp(rint(x / scale) + zero) to [-128, 127], in float64; McugradError on a scale that is not positive."""
    if not scale > 0 or not np.isfinite(scale):
        raise McugradError(f"quantize: the scale must be positive and finite, got {scale}")
    q: NDArray[np.float64] = np.rint(np.asarray(x, np.float64) / scale) + zero
    return np.clip(q, -128, 127).astype(np.int8)


def _to_int8(x: NDArray[Any]) -> NDArray[np.int8]:
    if x.dtype == np.int8:
        return x
    if x.dtype == np.uint8:
        return (x ^ np.uint8(0x80)).view(np.int8)
    raise McugradError(f"preprocessing: an int8 model reads uint8 images or int8 samples, not {x.dtype}: convert x")


def _chunks(x: NDArray[Any]) -> Iterator[NDArray[Any]]:
    return (x[i : i + CHUNK] for i in range(0, max(len(x), 1), CHUNK))
