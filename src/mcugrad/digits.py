"""Handwritten digits as two sensors see them: the one a network was pretrained on, and a changed one."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from .data import TEST, TRAIN, Dataset
from .errors import McugradError
from .preprocess import Input, Preprocess

SIZE = 16  # pixels per side; the digits of scikit-learn have 8
TEST_SAMPLES = 540
SPLIT_SEED = 0
PREPROCESS = Preprocess(Input.FLOAT, scale=1 / 255)


@dataclass(frozen=True)
class Sensor:
    """What a sensor does to an image with values 0 (background) to 1 (ink), in this order."""

    rotation: float = 0.0  # degrees, counter-clockwise
    blur: float = 0.0  # standard deviation of a Gaussian, pixels
    gamma: float = 1.0  # value ** gamma
    gain: float = 1.0  # value * gain + offset; a negative gain inverts
    offset: float = 0.0
    noise: float = 0.0  # standard deviation of white noise, in values


SENSORS = {
    "original": Sensor(noise=0.02),
    "changed": Sensor(rotation=20.0, blur=0.5, gamma=0.7, gain=0.75, offset=0.15, noise=0.06),
}


def digits(sensor: str = "original", seed: int = 0) -> Dataset:
    """The 1797 digits of scikit-learn as uint8 [N, 16, 16, 1], "original" or "changed"; the seed draws the noise.

    The split is the same for both sensors and every seed: 540 test samples, drawn per class.
    Raises McugradError if the sensor is unknown or scikit-learn is missing.
    """
    if sensor not in SENSORS:
        raise McugradError(f"digits: no sensor '{sensor}': choose one of {', '.join(SENSORS)}")
    images, labels = _load()
    x = observe(images, SENSORS[sensor], seed)
    classes = tuple(str(i) for i in range(10))
    return Dataset(x, labels, _split(labels), classes, f"scikit-learn digits, {sensor} sensor, seed {seed}")


def observe(images: NDArray[np.float64], sensor: Sensor, seed: int) -> NDArray[np.uint8]:
    """Digits [N, 8, 8] with values 0 to 16 as the uint8 pixels [N, SIZE, SIZE, 1] of a sensor."""
    rng = np.random.default_rng(seed)
    values = np.stack([_optics(image, sensor) for image in images]) / 255
    values = values**sensor.gamma * sensor.gain + sensor.offset
    values += sensor.noise * rng.standard_normal(values.shape)
    pixels: NDArray[np.uint8] = np.rint(values.clip(0, 1) * 255).astype(np.uint8)
    return pixels[..., None]


def _optics(image: NDArray[np.float64], sensor: Sensor) -> NDArray[np.uint8]:
    """One digit [8, 8] enlarged, rotated and blurred: uint8 [SIZE, SIZE]."""
    pixels = Image.fromarray(np.rint(image * (255 / 16)).astype(np.uint8))
    pixels = pixels.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    pixels = pixels.rotate(sensor.rotation, Image.Resampling.BILINEAR)
    return np.asarray(pixels.filter(ImageFilter.GaussianBlur(sensor.blur)), np.uint8)


def _load() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise McugradError("digits: scikit-learn is not installed: pip install 'mcugrad[demo]'") from error
    bunch: Any = load_digits()
    return np.asarray(bunch.images, np.float64), np.asarray(bunch.target, np.int64)


def _split(labels: NDArray[np.int64]) -> NDArray[np.uint8]:
    """TEST for 54 samples of each digit, else TRAIN."""
    rng = np.random.default_rng(SPLIT_SEED)
    split = np.full(len(labels), TRAIN, np.uint8)
    for digit in range(10):
        split[rng.permutation(np.flatnonzero(labels == digit))[: TEST_SAMPLES // 10]] = TEST
    return split
