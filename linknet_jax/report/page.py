"""The HTML report of an evaluation: one file that needs no network."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Sequence

import jinja2
from etils import epath
from PIL import Image

from linknet_jax.atomic import replacing
from linknet_jax.report import published, tables
from linknet_jax.report.confusion import calibration_error, mistakes
from linknet_jax.report.figures import calibration_plot, recall_curve
from linknet_jax.report.heatmap import confusion_matrix
from linknet_jax.report.tables import CEILING, Scored
from linknet_jax.report.words import evaluated, protocol_sentences

Diagnoses = dict[str, dict[str, dict]]  # by split and task


@dataclasses.dataclass(frozen=True)
class Example:
    """A picture of one image and its graph, with what it shows ("best", "worst")."""

    heading: str
    caption: str
    picture: Image.Image


def write_report(
    path: epath.Path, results: dict, diagnoses: Diagnoses, examples: Sequence[Example], title: str
) -> None:
    """Writes the report; the same bytes for the same input, and all of the file or nothing.

    Args:
      path: of the HTML file.
      results: as in results.json (docs/evaluation.md); "step", "baselines", "splits" and "ceiling"
        may be absent.
      diagnoses: what `SceneGraphMetrics.diagnosis` returned, where it is known.
      examples: pictures for the end of the page.
      title: of the page.

    Raises:
      ValueError: if the results have no task.
    """
    page = render(results, diagnoses, examples, title).encode(errors="replace")
    with replacing(epath.Path(path)) as partial:
        partial.write_bytes(page)


def render(results: dict, diagnoses: Diagnoses, examples: Sequence[Example], title: str) -> str:
    """The page of `write_report` as text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("linknet_jax", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = tables.percent
    blocks = tables.scored(results)
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
        kinds=published.KINDS,
        published_ks=published.KS,
        predicates=_predicates(blocks),
        curves=_curves(blocks),
        confusions=_confusions(blocks, diagnoses),
        calibrations=_calibrations(blocks, diagnoses),
        examples=[(example, _data_uri(example.picture)) for example in examples],
    )


def _predicates(blocks: Sequence[Scored]) -> list[dict]:
    groups = {b.split: [x for x in blocks if x.split == b.split] for b in blocks}
    return [
        {"split": split, "blocks": group, "rows": tables.predicate_rows(group)}
        for split, group in groups.items()
    ]


def _curves(blocks: Sequence[Scored]) -> list[tuple[str, str]]:
    found = []
    for block in blocks:
        curves = {
            name: metrics["curve"]
            for name, metrics in block.methods.items()
            if name != CEILING and _drawable(metrics.get("curve"))
        }
        if curves:
            found.append((block.title, recall_curve(curves, f"curve-{len(found)}")))
    return found


def _drawable(curve: dict | None) -> bool:
    return bool(curve) and all(x is not None for row in curve.values() for x in row)


def _confusions(blocks: Sequence[Scored], diagnoses: Diagnoses) -> list[dict]:
    found = []
    for block, diagnosis in _diagnosed(blocks, diagnoses):
        if sum(map(sum, diagnosis["confusion"])):
            drawn = confusion_matrix(diagnosis, f"confusion-{len(found)}")
            entry = {"title": block.title, "figure": drawn, "rows": mistakes(diagnosis)}
            found.append(entry | {"predicates": len(diagnosis["predicates"]) - 1})
    return found


def _calibrations(blocks: Sequence[Scored], diagnoses: Diagnoses) -> list[dict]:
    found = []
    for block, diagnosis in _diagnosed(blocks, diagnoses):
        errors = calibration_error(diagnosis["calibration"])
        if errors:
            drawn = calibration_plot(diagnosis["calibration"], f"scores-{len(found)}")
            found.append({"title": block.title, "figure": drawn, "errors": errors})
    return found


def _diagnosed(blocks: Sequence[Scored], diagnoses: Diagnoses) -> list[tuple[Scored, dict]]:
    pairs = [(block, diagnoses.get(block.split, {}).get(block.task)) for block in blocks]
    return [(block, diagnosis) for block, diagnosis in pairs if diagnosis]


def _data_uri(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
