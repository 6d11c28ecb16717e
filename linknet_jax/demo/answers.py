"""What the page asks for: reading a photograph, its graph, the picture and the file of it."""

from __future__ import annotations

import contextlib
import html
import os
import tempfile
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Float, UInt8
from PIL import Image

from linknet_jax.data.transforms import ImageError, upright
from linknet_jax.drawing.html import View, render
from linknet_jax.predictor import Predictor
from linknet_jax.scene_graph import SceneGraph

BYTES, PIXELS = 20 * 2**20, 50_000_000  # of an upload at most
SCREEN = (1200, 640)  # width and height of the photograph in which boxes are drawn, at most
UNNAMED = "any class"  # a box of which the network is to find the class


class Photograph(NamedTuple):
    """An upload that has been read; `pixels` are upright."""

    name: str
    pixels: UInt8[np.ndarray, "h w 3"]


def read(path: str | os.PathLike) -> Photograph:
    """Decodes an upload with the reader of training and prediction.

    ImageError for more than BYTES or PIXELS, known before anything is decoded, and for a file that
    is no photograph.
    """
    name = os.path.basename(os.fspath(path))
    size = epath.Path(path).stat().length
    if size > BYTES:
        raise ImageError(
            f"{name} has {size / 2**20:.1f} MiB; at most {BYTES >> 20} are taken: store it smaller"
        )
    width, height = _declared_size(path)
    if width * height > PIXELS:
        raise ImageError(
            f"{name} has {width} x {height} pixels; at most {PIXELS:,} are taken: store it smaller"
        )
    try:
        return Photograph(name, upright(path))
    except ImageError as error:
        raise ImageError(str(error).replace(os.fspath(path), name)) from error


def reduced(photograph: Photograph) -> tuple[UInt8[np.ndarray, "h w 3"], float]:
    """The photograph for the screen, and its pixels per pixel of the original."""
    picture = Image.fromarray(photograph.pixels)
    longest = max(picture.size)
    picture.thumbnail(SCREEN)
    return np.asarray(picture), max(picture.size) / longest


def ask(
    predictor: Predictor,
    photograph: Photograph,
    boxes: Float[np.ndarray, "n 4"],
    names: Sequence[str],
) -> SceneGraph:
    """The graph of the photograph, with every pair of objects.

    No boxes: they are found. Boxes, in pixels of the photograph: their classes are found, unless
    each has a name other than UNNAMED. ValueError for what the checkpoint cannot do.
    """
    given, named = bool(len(boxes)), UNNAMED not in names
    task = predictor.task("", given, given and named)
    labels = names if task == "predcls" else None
    query = predictor.read(photograph.pixels, boxes, labels, photograph.name)
    return next(predictor.graphs([query], task))


def frame(graph: SceneGraph) -> str:
    """The page of `drawing.html` as a frame within a page, in which it can reach nothing."""
    page = render([View(graph, Image.fromarray(graph.source))], str(graph.image_id))
    title = html.escape(f"Scene graph of {graph.image_id}")
    return (
        f'<iframe class="linknet-graph" title="{title}" sandbox="allow-scripts" '
        f'srcdoc="{html.escape(page)}"></iframe>'
    )


def line_file(graph: SceneGraph) -> str:
    """Path of a new file, named as the photograph: the graph as one line of scene-graph JSON."""
    folder = epath.Path(tempfile.mkdtemp(dir=os.environ.get("GRADIO_TEMP_DIR")))
    path = folder / f"{epath.Path(str(graph.image_id)).stem}.jsonl"
    path.write_text(graph.to_json() + "\n")
    return os.fspath(path)


def _declared_size(path: str | os.PathLike) -> tuple[int, int]:
    """(width, height) by the file's header; (0, 0) where Pillow knows none, as `upright` tells."""
    with contextlib.suppress(Exception), Image.open(path) as image:
        return image.size
    return 0, 0
