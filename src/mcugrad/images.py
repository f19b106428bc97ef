"""Image files in and resized uint8 arrays out, the same pixels on every run."""

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from .errors import McugradError

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
MAX_PIXELS = 50_000_000
MODES = {1: "L", 3: "RGB"}
GREY_MODES = ("1", "L", "LA")


def image_files(folder: Path) -> list[Path]:
    """The image files directly in folder, by name; hidden files and other extensions are left out."""
    files = (f for f in folder.iterdir() if f.suffix.lower() in EXTENSIONS and not f.name.startswith("."))
    return sorted(f for f in files if f.is_file())


def decode(file: Path, height: int | None, width: int | None, channels: int | None) -> NDArray[np.uint8]:
    """One image as uint8 [H, W, C], turned as its EXIF says; None keeps what the file has (C is 1 for grey, else 3).

    Raises McugradError naming the file when it cannot be read, has more than MAX_PIXELS, or more than 8 bits.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _decode(file, height, width, channels)
    except McugradError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(file, "far too many") from error
    except Exception as error:  # Pillow lets many types through when a file is damaged or hostile
        raise McugradError(f"{file}: not a readable image ({error}): replace or remove this file") from error


def _decode(file: Path, height: int | None, width: int | None, channels: int | None) -> NDArray[np.uint8]:
    with Image.open(file) as image:
        pixels = image.width * image.height
        if pixels > MAX_PIXELS:
            raise _too_large(file, f"{pixels:,}")
        if image.mode[0] in "IF":
            raise McugradError(f"{file}: {image.mode} pixels have over 8 bits: convert the image to 8-bit grey or RGB")
        mode = MODES[channels] if channels else "L" if image.mode in GREY_MODES else "RGB"
        upright = ImageOps.exif_transpose(image).convert(mode)
    size = (width or upright.width, height or upright.height)
    return _array(upright.resize(size, Image.Resampling.BILINEAR))


def _too_large(file: Path, pixels: str) -> McugradError:
    return McugradError(f"{file}: the image has {pixels} pixels, the limit is {MAX_PIXELS:,}: scale it down first")


def resize(x: NDArray[np.uint8], height: int, width: int, channels: int) -> NDArray[np.uint8]:
    """uint8 images [N, H, W, C] with C 1 or 3 as [N, height, width, channels], by Pillow's bilinear filter.

    Enlarging interpolates between pixel centres, shrinking averages over the covered area; grey is ITU-R 601 luma.
    """
    if x.shape[1:] == (height, width, channels):
        return x
    out = np.empty((len(x), height, width, channels), np.uint8)
    for source, target in zip(x, out, strict=True):
        image = Image.fromarray(source[..., 0] if source.shape[-1] == 1 else source)
        target[:] = _array(image.convert(MODES[channels]).resize((width, height), Image.Resampling.BILINEAR))
    return out


def _array(image: Image.Image) -> NDArray[np.uint8]:
    array = np.asarray(image, np.uint8)
    return array[..., None] if array.ndim == 2 else array
