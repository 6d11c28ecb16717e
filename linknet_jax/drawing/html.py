"""One page for one or many scene graphs: point at a triplet and its boxes light up."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import math
from collections.abc import Sequence
from typing import NamedTuple

import jinja2
from markupsafe import Markup
from PIL import Image

from linknet_jax.drawing import graph as graph_panel
from linknet_jax.drawing import photograph, svg
from linknet_jax.drawing.plates import LONGEST, Thing, things_of
from linknet_jax.drawing.truth import judge
from linknet_jax.report.labels import shorten
from linknet_jax.scene_graph import Relation, SceneGraph

FILES = importlib.resources.files("linknet_jax.drawing")
TITLE = 120  # columns of a heading
STEPS = 200  # of the threshold


class View(NamedTuple):
    """A graph to show; `truth` as for `picture.draw`."""

    graph: SceneGraph
    image: Image.Image | None = None
    truth: SceneGraph | None = None


def render(views: Sequence[View], title: str) -> str:
    """The page, which needs no other file and no network.

    Labels may come from anywhere: all text is escaped, and the page's policy lets the browser run
    its own script only.
    """
    style, script = (FILES.joinpath(f"page.{x}").read_text("utf-8") for x in ("css", "js"))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("linknet_jax", "drawing"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        title=shorten(title, TITLE),
        views=[_view(x) for x in views],
        style=Markup(style),
        script=Markup(script),
        policy=_policy(style, script),
    )


def _view(view: View) -> dict:
    judged = judge(view.graph, view.truth)
    things = things_of(view.graph, judged)
    left = photograph.panel(view.graph, view.image, things)
    right = graph_panel.panel(view.graph, judged, things)
    highest = _round_up(max([r.score for r in view.graph.best()], default=1.0))
    return {
        "name": shorten(str(view.graph.image_id), TITLE),
        "photograph": Markup(svg.render(left, interactive=True)),
        "graph": Markup(svg.render(right, interactive=True)),
        "highest": highest,
        "step": highest / STEPS,
        "rows": [
            _row(r, verdict, things)
            for r, verdict in zip(judged.relations, judged.verdicts, strict=True)
        ],
    }


def _row(relation: Relation, verdict: str, things: Sequence[Thing]) -> dict:
    """A missed relation has no score, and no threshold hides it."""
    missed = verdict == "missed"
    ends = (relation.subject, relation.object)
    return {
        "ends": ends,
        "things": [things[x] for x in ends],
        "predicate": shorten(relation.predicate, LONGEST),
        "verdict": verdict,
        "score": "" if missed else f"{relation.score:.6g}",
        "shown": "" if missed else f"{relation.score:.3f}",
    }


def _round_up(score: float) -> float:
    """To one significant digit, for the end of a slider."""
    if not score > 0:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(score))
    return float(f"{math.ceil(score / unit) * unit:.6g}")


def _policy(style: str, script: str) -> str:
    """Content Security Policy: this style, this script, embedded images, and nothing else."""
    allowed = {"style-src": style, "script-src": script}
    hashes = [
        f"{key} 'sha256-{base64.b64encode(hashlib.sha256(x.encode()).digest()).decode()}'"
        for key, x in allowed.items()
    ]
    return "; ".join(["default-src 'none'", "img-src data:", *hashes])
