"""Pictures as files: PNG, SVG, or a page to explore, by the end of the name."""

from __future__ import annotations

import io
import os

from etils import epath
from PIL import Image

from linknet_jax.atomic import replacing
from linknet_jax.drawing import html, picture, png, svg
from linknet_jax.drawing.shapes import Drawing
from linknet_jax.scene_graph import SceneGraph

SUFFIXES = (".png", ".svg", ".html")


def save(
    graph: SceneGraph,
    image: Image.Image | None,
    path: str | os.PathLike,
    truth: SceneGraph | None = None,
) -> None:
    """Writes `picture.draw` or, for .html, a page; all of the file or nothing.

    ValueError for a suffix that is none of SUFFIXES.
    """
    path = _checked(path, SUFFIXES)
    if path.suffix.lower() == ".html":
        page = html.render([html.View(graph, image, truth)], str(graph.image_id))
        _write(path, page.encode(errors="replace"))
    else:
        save_drawing(picture.draw(graph, image, truth), path)


def save_drawing(drawing: Drawing, path: str | os.PathLike) -> None:
    """Writes any drawing as .png or .svg; ValueError for another suffix."""
    path = _checked(path, SUFFIXES[:2])
    if path.suffix.lower() == ".svg":
        _write(path, svg.render(drawing).encode(errors="replace"))
        return
    file = io.BytesIO()
    png.render(drawing).save(file, "PNG")
    _write(path, file.getvalue())


def _checked(path: str | os.PathLike, suffixes: tuple[str, ...]) -> epath.Path:
    path = epath.Path(path)
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"{path}: the name of a picture must end in one of {', '.join(suffixes)}")
    return path


def _write(path: epath.Path, content: bytes) -> None:
    with replacing(path) as partial:
        partial.write_bytes(content)
