"""The page: a photograph with boxes on the left, thresholds on the right, the graph below."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from linknet_jax.demo.answers import UNNAMED
from linknet_jax.demo.handlers import Handlers
from linknet_jax.drawing.colours import GREY, class_colour
from linknet_jax.predictor import Predictor

if TYPE_CHECKING:
    import gradio

TITLE = "Scene graph of a photograph"
TOP = (20, 200)  # triplets that are shown: at first, at most
WAITING = 20  # questions in the queue; the next one is refused
FORGET = 3600  # seconds after which uploads and answers leave the disk and the memory
LEAST_BOX = 4  # pixels on the screen
STYLE = """
button[title^="Rotate"] { display: none; }
.linknet-graph { width: 100%; height: 85vh; border: 1px solid #d8dee4; border-radius: 8px;
                 background: white; resize: vertical; }
"""
ABOUT = {
    "sgdet": "The network finds the boxes; draw boxes to give them instead.",
    "sgcls": "This checkpoint needs boxes: draw one around every object.",
    "predcls": "This checkpoint needs boxes with classes: draw one around every object.",
}
DRAWING = (
    "Drag to draw a box. With the hand, drag a box or its corners to change it; the bin removes "
    "it, a double click sets its class. Classes are taken as given where every box has one."
)


class Parts(NamedTuple):
    """What events read and write."""

    upload: gradio.Image
    asking: gradio.Column
    boxes: Any
    editing: gradio.Column
    another: gradio.Button
    find: gradio.Button
    limits: list[gradio.Slider]
    reuse: gradio.Button
    download: gradio.DownloadButton
    result: gradio.HTML
    photograph: gradio.State
    graph: gradio.State


def build(predictor: Predictor) -> gradio.Blocks:
    """The interface; `predictor` should leave out nothing, because the page's thresholds do.

    One question at a time reaches the network; the others wait.
    """
    import gradio as gr

    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, FORGET)) as page:
        gr.Markdown(f"# {TITLE}\n{ABOUT[predictor.tasks[0]]}")
        with gr.Row():
            with gr.Column(scale=3):
                left = [*_asking(), *_editing(predictor)]
            with gr.Column(scale=1, min_width=280):
                right = _controls(predictor)
        states = [gr.State(time_to_live=FORGET) for _ in range(2)]
        _connect(Parts(*left, *right, gr.HTML(), *states), Handlers(predictor))
    return page.queue(max_size=WAITING, default_concurrency_limit=4, api_open=False)


def _asking() -> tuple[gradio.Image, gradio.Column]:
    import gradio as gr

    with gr.Column() as column:
        upload = gr.Image(
            label="Photograph",
            sources=["upload", "clipboard"],
            type="filepath",
            image_mode=None,
            height=480,
        )
    # Gradio would decode the file before this package's reader has checked it. Visibility is the
    # column's, as a component that is updated loses this.
    upload.preprocess = lambda payload: payload and payload.path
    return upload, column


def _editing(predictor: Predictor) -> tuple[Any, gradio.Column, gradio.Button]:
    import gradio as gr
    from gradio_image_annotation import image_annotator

    classes = list(predictor.vocabulary.objects[1:])
    with gr.Column(visible=False) as column:
        boxes = image_annotator(
            label="Photograph and boxes",
            label_list=[UNNAMED, *classes],
            label_colors=[GREY, *map(class_colour, classes)],
            use_default_label=True,
            sources=[],
            box_min_size=LEAST_BOX,
            boxes_alpha=0.15,
            height=480,
            show_download_button=False,
            show_clear_button=False,
            show_remove_button=True,
        )
        gr.Markdown(DRAWING)
        another = gr.Button("Another photograph")
    boxes.preprocess = lambda payload: payload and boxes.preprocess_boxes(payload.boxes)
    return boxes, column, another


def _controls(
    predictor: Predictor,
) -> tuple[gradio.Button, list[gradio.Slider], gradio.Button, gradio.DownloadButton]:
    import gradio as gr

    limits = predictor.config.predict
    find = gr.Button("Find the scene graph", variant="primary")
    sliders = [
        gr.Slider(0, 1, limits.least, step=0.001, label="Least score of a triplet"),
        gr.Slider(1, TOP[1], min(TOP[0], limits.top), step=1, label="Triplets at most"),
        gr.Slider(0, 1, limits.object_least, step=0.01, label="Least score of an object"),
    ]
    reuse = gr.Button("Edit the boxes of this graph", interactive=False)
    download = gr.DownloadButton("Download JSON", interactive=False)
    return find, sliders, reuse, download


def _connect(parts: Parts, handlers: Handlers) -> None:
    import gradio as gr

    private = {"api_visibility": "private"}
    shown = [parts.result, parts.download, parts.reuse]
    taken = parts.upload.upload(
        handlers.take, parts.upload, [parts.photograph, parts.boxes], **private
    )
    taken.failure(lambda: None, None, parts.upload, **private)
    taken.success(
        lambda: (gr.Column(visible=False), gr.Column(visible=True)),
        None,
        [parts.asking, parts.editing],
        **private,
    )
    parts.another.click(
        lambda: (gr.Column(visible=True), gr.Column(visible=False), None, None, None),
        None,
        [parts.asking, parts.editing, parts.upload, parts.photograph, parts.graph],
        **private,
    ).then(handlers.show, [parts.graph, *parts.limits], shown, **private)
    parts.find.click(
        handlers.find, [parts.photograph, parts.boxes], parts.graph, concurrency_limit=1, **private
    ).success(handlers.show, [parts.graph, *parts.limits], shown, **private)
    gr.on(
        [limit.change for limit in parts.limits],
        handlers.show,
        [parts.graph, *parts.limits],
        shown,
        trigger_mode="always_last",
        show_progress="hidden",
        **private,
    )
    parts.reuse.click(
        handlers.reuse, [parts.photograph, parts.graph, parts.limits[2]], parts.boxes, **private
    )
