"""Pixels of a photograph: made RGB, upright, and fitted into a square. NumPy and Pillow alone.

The photograph is padded to a square on the right and at the bottom and then resized (in
neural-motifs' order), so that both axes are scaled by exactly `size / longer side` and boxes need
one number. The kernel is Pillow's antialiased bilinear one (a triangle as wide as the scale).
"""

from __future__ import annotations

import math
import os
from typing import IO, TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

if TYPE_CHECKING:  # what serves an exported model has no jaxtyping
    from jaxtyping import Float, UInt8

PADDING = (124, 116, 103)
KERNEL = Image.Resampling.BILINEAR
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # others run programs, as EPS does
LONGEST = 65_535  # pixels of a side, JPEG's limit: padding a strip takes the square of its length
# Pillow keeps this many freed images of up to 16 MB: a sixth of the time went into fresh pages.
Image.core.set_blocks_max(8)


class ImageError(ValueError):
    """A photograph that cannot be used; names the file and the remedy."""


def resize_and_pad(
    image: UInt8[np.ndarray, "h w 3"], size: int, flip: bool = False
) -> tuple[UInt8[np.ndarray, "size size 3"], Float[np.ndarray, "2"], float]:
    """Pads an RGB array to a square and resizes that to `size`.

    `flip` mirrors it first, left to right. Returns the pixels, (height, width) of the area that
    the photograph covers, and the scale: boxes of the photograph times scale are boxes of the
    result. Raises ImageError.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ImageError(
            f"expected uint8 RGB pixels [height, width, 3], none of them 0, "
            f"got {image.dtype} {list(image.shape)}"
        )
    height, width = image.shape[:2]
    side = max(height, width)
    whole = Image.fromarray(image)
    if flip:  # here, as a reversed array is slow to copy
        whole = whole.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(_resize(whole, side, size)), *covered(width, height, size)


def covered(width: int, height: int, size: int) -> tuple[Float[np.ndarray, "2"], float]:
    """What a photograph becomes in a square of `size`: its (height, width) there, and the scale."""
    side = max(width, height)
    valid = [max(1, length * size // side) for length in (height, width)]
    return np.array(valid, np.float32), size / side


def _resize(image: Image.Image, side: int, size: int) -> Image.Image:
    """What resizing the padded square gives, without computing what only sees the padding."""
    step = side / size
    reach = max(step, 1.0)
    kept = [min(size, math.ceil((length + reach) / step) + 1) for length in image.size]
    canvas = Image.new("RGB", [min(side, math.ceil(n * step + reach)) for n in kept], PADDING)
    canvas.paste(image)
    box = (0, 0, kept[0] * side / size, kept[1] * side / size)
    result = Image.new("RGB", (size, size), PADDING)
    result.paste(canvas.resize(kept, KERNEL, box=box))
    return result


def open_image(file: IO[bytes] | os.PathLike) -> Image.Image:
    """An image of which the header is read; what is too large is not decoded."""
    image = Image.open(file, formats=FORMATS)
    check_size(image)
    return image


def check_size(image: Image.Image) -> None:
    """Pillow warns of what it decodes all the same, a gigabyte to become RGB and be padded."""
    width, height = image.size
    most = Image.MAX_IMAGE_PIXELS or math.inf
    if width * height > most or max(width, height) > LONGEST:
        raise Image.DecompressionBombError(
            f"it has {width} x {height} pixels, at most are {most} and {LONGEST} a side"
        )


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB; transparency is dropped, 16 bits keep the higher 8 as Pillow does for colour."""
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of 32 bits ({image.mode}) have no defined white")
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


def picture(pixels: np.ndarray) -> Image.Image:
    """An array as an image of Pillow."""
    shape = pixels.shape[:2] if pixels.shape[2:] == (1,) else pixels.shape
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if len(shape) not in (2, 3) or shape[2:] not in ((), (3,), (4,)) or pixels.dtype != np.uint8:
        raise ImageError(
            f"expected pixels [height, width], or with 3 or 4 channels, of uint8 or uint16; got "
            f"{pixels.dtype} {list(pixels.shape)}"
        )
    if not pixels.size:
        raise ImageError(f"an image of {shape[1]} x {shape[0]} pixels shows nothing")
    return Image.fromarray(pixels.reshape(shape))


def unreadable(name: str, error: Exception) -> ImageError:
    """The error of a file that cannot be decoded, with its remedy."""
    if isinstance(error, Image.DecompressionBombError):
        return ImageError(f"the image {name} is too large: {error}; store it smaller")
    reason = "not a known image format" if isinstance(error, UnidentifiedImageError) else error
    return ImageError(
        f"cannot decode the image {name}: {reason}; "
        "replace it by a complete JPEG, PNG or WebP file of 8 or 16 bits a channel"
    )
