"""From a photograph to pixels: the one decoder and resizer of training, evaluation and prediction.

The photograph is padded to a square on the right and at the bottom and then resized (in
neural-motifs' order), so that both axes are scaled by exactly `size / longer side` and boxes need
one number. The kernel is Pillow's antialiased bilinear one (a triangle as wide as the scale).
"""

from __future__ import annotations

import io
import math
import os

import numpy as np
import simplejpeg
from etils import epath
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from linknet_jax.data.retry import read_bytes

PADDING = (124, 116, 103)
KERNEL = Image.Resampling.BILINEAR
_ORIENTATION = 0x0112
# Pillow keeps this many freed images of up to 16 MB: a sixth of the time went into fresh pages.
Image.core.set_blocks_max(8)


class ImageError(ValueError):
    """A photograph that cannot be used; names the file and the remedy."""


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
        source = _picture(source)
    if not isinstance(source, Image.Image):
        return _decode(*_read(source))
    try:
        return np.asarray(_to_rgb(ImageOps.exif_transpose(source)))
    except Exception as error:
        raise _unreadable("in memory", error) from error


def image_size(source: str | os.PathLike | bytes) -> tuple[int, int]:
    """(width, height) of the upright photograph, from its header; raises ImageError.

    A file that does not end as a complete JPEG does is decoded, which tells whether it is readable.
    """
    data, name = _read(source)
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            sideways = image.getexif().get(_ORIENTATION, 1) >= 5
            complete = image.format in ("JPEG", "MPO") and data.endswith(b"\xff\xd9")
    except Exception as error:
        raise _unreadable(name, error) from error
    if not complete:
        _decode(data, name)
    return (height, width) if sideways else (width, height)


def resize_and_pad(
    image: UInt8[np.ndarray, "h w 3"], size: int, flip: bool = False
) -> tuple[UInt8[np.ndarray, "size size 3"], Float[np.ndarray, "2"], float]:
    """Pads an RGB array to a square and resizes that to `size`; as `load_image`."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ImageError(
            f"expected uint8 RGB pixels [height, width, 3], none of them 0, "
            f"got {image.dtype} {list(image.shape)}"
        )
    height, width = image.shape[:2]
    side = max(height, width)
    picture = Image.fromarray(image)
    if flip:  # here, as a reversed array is slow to copy
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    resized = _resize(picture, side, size)
    return np.asarray(resized), *covered(width, height, size)


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
        with Image.open(io.BytesIO(data)) as image:
            plain = image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L")
            if plain and image.getexif().get(_ORIENTATION, 1) == 1:
                pixels = _decode_jpeg(data)
                if pixels is not None:
                    return pixels
            return np.asarray(_to_rgb(ImageOps.exif_transpose(image)))
    except Exception as error:
        raise _unreadable(name, error) from error


def _decode_jpeg(data: bytes) -> UInt8[np.ndarray, "h w 3"] | None:
    """The fast path; None where the file has flaws, of which Pillow knows which are harmless."""
    try:
        return simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False)
    except ValueError:
        return None


def _to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB; transparency is dropped, 16 bits keep the higher 8 as Pillow does for colour."""
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of 32 bits ({image.mode}) have no defined white")
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


def _picture(pixels: np.ndarray) -> Image.Image:
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


def _unreadable(name: str, error: Exception) -> ImageError:
    if isinstance(error, Image.DecompressionBombError):
        return ImageError(f"the image {name} is too large: {error}; store it smaller")
    reason = "not a known image format" if isinstance(error, UnidentifiedImageError) else error
    return ImageError(
        f"cannot decode the image {name}: {reason}; "
        "replace it by a complete JPEG, PNG or WebP file of 8 or 16 bits a channel"
    )
