"""The HTML report of an evaluation: one file that needs no network."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Sequence
from typing import Literal

import jinja2
from etils import epath
from PIL import Image

from linknet_jax.atomic import replacing
from linknet_jax.metrics.table import percent
from linknet_jax.report import published, tables
from linknet_jax.report.confusion import calibration_error, mistakes
from linknet_jax.report.figures import calibration_plot, recall_curve
from linknet_jax.report.heatmap import confusion_matrix
from linknet_jax.report.tables import CEILING, Block
from linknet_jax.report.words import evaluated, protocol_sentences

Diagnoses = dict[str, dict[str, dict]]  # by split and task
MODEL = "this model"
KIND_TITLES = {"best": "Highest recall", "worst": "Lowest recall"}
JPEG = {"quality": 88, "subsampling": 0, "optimize": True}  # full colour for thin lines and names


@dataclasses.dataclass(frozen=True)
class Example:
    """A picture of one image and its graph, from the split on top of the results."""

    task: str
    kind: Literal["best", "worst"]
    caption: str
    picture: Image.Image


def write_report(
    path: epath.Path,
    results: dict,
    diagnoses: Diagnoses,
    examples: Sequence[Example],
    title: str,
    model: str = MODEL,
) -> None:
    """Writes the report; the same bytes for the same input, and all of the file or nothing.

    Args:
      path: of the HTML file.
      results: as in results.json (docs/evaluation.md); "step", "baselines", "splits" and "ceiling"
        may be absent.
      diagnoses: what `SceneGraphMetrics.diagnosis` returned, where it is known.
      examples: pictures for the end of the page.
      title: of the page.
      model: its name in the tables and curves.

    Raises:
      ValueError: if the results have no task.
    """
    page = render(results, diagnoses, examples, title, model).encode(errors="replace")
    with replacing(epath.Path(path)) as partial:
        partial.write_bytes(page)


def render(
    results: dict,
    diagnoses: Diagnoses,
    examples: Sequence[Example],
    title: str,
    model: str = MODEL,
) -> str:
    """The page of `write_report` as text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("linknet_jax", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    blocks = tables.blocks_of(results, model)
    return environment.get_template("page.html").render(
        title=title,
        evaluated=evaluated(results, blocks),
        sentences=protocol_sentences(blocks),
        protocol=tables.protocol_rows(blocks),
        blocks=blocks,
        none_text=tables.NONE,
        recall_rows=tables.recall_rows,
        single_rows=tables.single_rows,
        comparable=tables.is_vg150(blocks),
        published=tables.published_tables(blocks),
        published_metrics=published.METRICS,
        published_ks=published.KS,
        predicates=_predicates(blocks),
        curves=_curves(blocks),
        confusions=_confusions(blocks, diagnoses),
        calibrations=_calibrations(blocks, diagnoses),
        pictures=_pictures(blocks, examples),
    )


def _predicates(blocks: Sequence[Block]) -> list[dict]:
    groups = {b.split: [x for x in blocks if x.split == b.split] for b in blocks}
    return [
        {"split": split, "blocks": group, "rows": tables.predicate_rows(group)}
        for split, group in groups.items()
    ]


def _curves(blocks: Sequence[Block]) -> list[tuple[str, str]]:
    found = []
    for block in blocks:
        curves = [
            (name, metrics["curve"])
            for name, metrics in block.methods
            if name != CEILING and metrics["counts"]["images"]
        ]
        if curves:
            found.append((block.title, recall_curve(curves, f"curve-{len(found)}")))
    return found


def _confusions(blocks: Sequence[Block], diagnoses: Diagnoses) -> list[dict]:
    found = []
    for block, diagnosis in _diagnosed(blocks, diagnoses):
        if sum(map(sum, diagnosis["confusion"])):
            drawn = confusion_matrix(diagnosis, f"confusion-{len(found)}")
            found.append({"title": block.title, "figure": drawn, "rows": mistakes(diagnosis)})
    return found


def _calibrations(blocks: Sequence[Block], diagnoses: Diagnoses) -> list[dict]:
    found = []
    for block, diagnosis in _diagnosed(blocks, diagnoses):
        errors = calibration_error(diagnosis["calibration"])
        if errors:
            drawn = calibration_plot(diagnosis["calibration"], f"scores-{len(found)}")
            found.append({"title": block.title, "figure": drawn, "errors": errors})
    return found


def _diagnosed(blocks: Sequence[Block], diagnoses: Diagnoses) -> list[tuple[Block, dict]]:
    pairs = [(block, diagnoses.get(block.split, {}).get(block.task)) for block in blocks]
    return [(block, diagnosis) for block, diagnosis in pairs if diagnosis]


def _pictures(blocks: Sequence[Block], examples: Sequence[Example]) -> list[dict]:
    """Of every task that has some, (heading, examples with their pictures) of each kind."""
    first = [block for block in blocks if block.split == blocks[0].split]
    return [
        {
            "title": block.title,
            "kinds": [
                (heading, [(x, _data_uri(x.picture)) for x in of_task if x.kind == kind])
                for kind, heading in KIND_TITLES.items()
            ],
        }
        for block in first
        if (of_task := [x for x in examples if x.task == block.task])
    ]


def _data_uri(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, format="JPEG", **JPEG)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
