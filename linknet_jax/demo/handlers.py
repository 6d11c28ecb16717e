"""What happens on the page: an upload, a question, a moved threshold; refusals are messages."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import ImageColor

from linknet_jax.demo import answers
from linknet_jax.demo.answers import UNNAMED, Photograph
from linknet_jax.drawing.colours import class_colour
from linknet_jax.predictor import Predictor
from linknet_jax.scene_graph import SceneGraph

if TYPE_CHECKING:
    import gradio

CORNERS = ("xmin", "ymin", "xmax", "ymax")
Drawn = list[dict[str, Any]]  # CORNERS in pixels of the photograph as shown, and label


class Handlers:
    """Of one checkpoint; what belongs to a visitor is in the arguments."""

    def __init__(self, predictor: Predictor):
        self.predictor = predictor

    def take(self, path: str | None) -> tuple[Photograph, dict]:
        """An upload, and what the editor of boxes shows then."""
        if path is None:
            raise _refusal("no photograph has arrived; choose a file or paste one")
        try:
            photograph = answers.read(path)
        except ValueError as error:
            raise _refusal(str(error)) from error
        return photograph, _editor(photograph, [])

    def find(self, photograph: Photograph | None, drawn: Drawn | None) -> SceneGraph:
        """The whole graph, of which thresholds show a part."""
        if photograph is None:
            raise _refusal("there is no photograph yet; choose a file or paste one")
        _, scale = answers.reduced(photograph)
        drawn = drawn or []
        corners = [[box[x] / scale for x in CORNERS] for box in drawn]
        names = [box.get("label") or UNNAMED for box in drawn]
        try:
            return answers.ask(self.predictor, photograph, np.reshape(corners, (-1, 4)), names)
        except ValueError as error:
            raise _refusal(str(error)) from error

    def show(
        self, graph: SceneGraph | None, least: float, top: float, object_least: float
    ) -> tuple[str, gradio.DownloadButton, gradio.Button]:
        """The graph within the thresholds, as a frame and as a file; the network does not run."""
        import gradio as gr

        if graph is None:
            return (
                "",
                gr.DownloadButton(value=None, interactive=False),
                gr.Button(interactive=False),
            )
        graph = graph.cut(least, int(top), object_least)
        file = gr.DownloadButton(value=answers.line_file(graph), interactive=True)
        return answers.frame(graph), file, gr.Button(interactive=True)

    def reuse(self, photograph: Photograph, graph: SceneGraph, object_least: float) -> dict:
        """The editor with the boxes and classes of a graph, to be corrected."""
        _, scale = answers.reduced(photograph)
        boxes = []
        for thing in graph.cut(objects=object_least).objects:
            corners = dict(zip(CORNERS, [round(scale * x) for x in thing.box], strict=True))
            boxes.append({**corners, "label": thing.label, "color": _rgb(thing.label)})
        return _editor(photograph, boxes)


def _editor(photograph: Photograph, boxes: Drawn) -> dict:
    return {"image": answers.reduced(photograph)[0], "boxes": boxes}


def _rgb(label: str) -> str:
    return "rgb({}, {}, {})".format(*ImageColor.getrgb(class_colour(label)))


def _refusal(message: str) -> gradio.Error:
    """What the page shows; the message may hold a file's name, and the page takes it for HTML."""
    import gradio as gr

    return gr.Error(html.escape(message, quote=False), duration=20, print_exception=False)
