"""Frames of videos at a rate, with PyAV (`pip install "linknet-jax[video]"`)."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator

import numpy as np
from etils import epath
from jaxtyping import UInt8
from PIL import Image

from linknet_jax.data.transforms import ImageError


def require() -> None:
    """ValueError where PyAV is not installed."""
    if importlib.util.find_spec("av") is None:
        raise ValueError('videos are read with PyAV: pip install "linknet-jax[video]"')


def frames(path: epath.Path, fps: float) -> Iterator[tuple[str, UInt8[np.ndarray, "h w 3"]]]:
    """(name, upright RGB pixels) of the first frame at or after every 1 / `fps` seconds.

    The name is `{stem}_{milliseconds}ms`, by the second that the frame stands for. ImageError for
    a video that cannot be read, perhaps after some frames.
    """
    import av

    try:
        with path.open("rb") as file, av.open(file) as container:
            for tick, frame in _ticks(container, fps):
                yield f"{path.stem}_{round(1000 * tick / fps):08d}ms", _upright(frame)
    except (av.FFmpegError, OSError, IndexError, ValueError) as error:
        raise ImageError(f"cannot read the video {path}: {error}; convert it to MP4") from error


def count(path: epath.Path, fps: float) -> int:
    """About how many frames there are, from the header; 1 where it does not say."""
    import av

    try:
        with path.open("rb") as file, av.open(file) as container:
            return max(1, math.ceil((container.duration or 0) / av.time_base * fps))
    except (av.FFmpegError, OSError, ValueError):
        return 1


def _ticks(container, fps: float) -> Iterator[tuple[int, object]]:
    """(number of the tick, frame), each tick at most once."""
    if not container.streams.video:
        raise ValueError("it has no pictures")
    stream = container.streams.video[0]
    if stream.width * stream.height > Image.MAX_IMAGE_PIXELS:
        raise ValueError(f"frames of {stream.width} x {stream.height} pixels are too large")
    stream.thread_type = "AUTO"
    first, last = None, -1
    for frame in container.decode(stream):
        first = frame.time if first is None else first
        # Times are multiples of a fraction: 0.9999999 is 1.
        tick = math.floor((frame.time - first) * fps + 1e-6)
        if tick > last:
            last = tick
            yield tick, frame


def _upright(frame) -> UInt8[np.ndarray, "h w 3"]:
    """Turned as the file says that it was filmed."""
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90))
