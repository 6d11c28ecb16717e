"""From a photograph to pixels: the one decoder of training, evaluation and prediction."""

from __future__ import annotations

import io
import os

import numpy as np
import simplejpeg
from etils import epath
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps

from linknet_jax.data.retry import read_bytes
from linknet_jax.pixels import (
    PADDING,
    ImageError,
    check_size,
    covered,
    open_image,
    picture,
    resize_and_pad,
    to_rgb,
    unreadable,
)

__all__ = [
    "PADDING",
    "ImageError",
    "covered",
    "image_size",
    "load_image",
    "resize_and_pad",
    "upright",
]

_ORIENTATION = 0x0112


def load_image(
    source: str | os.PathLike | bytes, size: int, flip: bool = False
) -> tuple[UInt8[np.ndarray, "size size 3"], Float[np.ndarray, "2"], float]:
    """Decodes an image file (path or contents), upright, and fits it into a `size` square.

    `flip` mirrors the photograph, left to right, before it is padded.

    Returns the pixels, (height, width) of the area that the photograph covers, and the scale:
    boxes of the upright photograph times scale are boxes of the result. Raises ImageError.
    """
    return resize_and_pad(_decode(*_read(source)), size, flip)


def upright(
    source: str | os.PathLike | bytes | Image.Image | UInt8[np.ndarray, "h w *c"],
) -> UInt8[np.ndarray, "h w 3"]:
    """RGB pixels of a file, of its contents, of a Pillow image or of an array, turned upright.

    Arrays are uint8 or uint16: grey [h, w] or [h, w, 1], RGB, or RGBA. Raises ImageError.
    """
    if isinstance(source, np.ndarray):
        source = picture(source)
    if not isinstance(source, Image.Image):
        return _decode(*_read(source))
    try:
        check_size(source)
        return np.asarray(to_rgb(ImageOps.exif_transpose(source)))
    except Exception as error:
        raise unreadable("in memory", error) from error


def image_size(source: str | os.PathLike | bytes) -> tuple[int, int]:
    """(width, height) of the upright photograph, from its header; raises ImageError.

    A file that does not end as a complete JPEG does is decoded, which tells whether it is readable.
    """
    data, name = _read(source)
    try:
        with open_image(io.BytesIO(data)) as image:
            width, height = image.size
            sideways = image.getexif().get(_ORIENTATION, 1) >= 5
            complete = image.format in ("JPEG", "MPO") and data.endswith(b"\xff\xd9")
    except Exception as error:
        raise unreadable(name, error) from error
    if not complete:
        _decode(data, name)
    return (height, width) if sideways else (width, height)


def _read(source: str | os.PathLike | bytes) -> tuple[bytes, str]:
    if isinstance(source, bytes):
        data, name = source, f"{len(source)} bytes in memory"
    else:
        name = os.fspath(source)
        try:
            data = read_bytes(epath.Path(source))
        except Exception as error:  # buckets have errors of their own
            raise ImageError(f"cannot open the image {name}: {error}; check the path") from error
    if not data:
        raise ImageError(f"the image {name} is empty; copy or download the file again")
    return data, name


def _decode(data: bytes, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """Upright RGB pixels. simplejpeg and Pillow share libjpeg-turbo's exact decoder."""
    try:
        with open_image(io.BytesIO(data)) as image:
            plain = image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L")
            if plain and image.getexif().get(_ORIENTATION, 1) == 1:
                pixels = _decode_jpeg(data)
                if pixels is not None:
                    return pixels
            return np.asarray(to_rgb(ImageOps.exif_transpose(image)))
    except Exception as error:
        raise unreadable(name, error) from error


def _decode_jpeg(data: bytes) -> UInt8[np.ndarray, "h w 3"] | None:
    """The fast path; None where the file has flaws, of which Pillow knows which are harmless."""
    try:
        return simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False)
    except ValueError:
        return None
