"""Whether an exported model predicts what the Predictor of its checkpoint predicts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np

from linknet_jax.data.synthetic import scenes
from linknet_jax.exported import SYMBOLIC, Exported
from linknet_jax.predictor import Predictor
from linknet_jax.types import Prediction

LIMIT = 1e-5
SIDE, HEIGHT = 160, 120  # of the drawn photographs, which are cut to be wider than high
COUNT = 3  # of them, where the batch is not fixed


@dataclasses.dataclass(frozen=True)
class Agreement:
    """What was compared, and the largest difference; infinite where labels, predicates, pairs or
    numbers differ.

    Attributes:
      difference: of probabilities, and of boxes as parts of the input's side.
    """

    platform: str
    photographs: int
    objects: int
    relations: int
    difference: float

    @property
    def passed(self) -> bool:
        """Whether it is within LIMIT."""
        return self.difference <= LIMIT

    def __str__(self) -> str:
        return (
            f"check on {self.platform}: {self.photographs} photographs, {self.objects} objects, "
            f"{self.relations} relations; largest difference from the Predictor "
            f"{self.difference:.1e}, {'within' if self.passed else 'BEYOND'} {LIMIT:.0e}"
        )


def compare(exported: Exported, predictor: Predictor, task: str) -> Agreement:
    """Predicts drawn photographs with both, through the preparation of each."""
    fixed = exported.metadata["batch"] != SYMBOLIC
    count = exported.metadata["batch"] if fixed else COUNT
    asked = [_question(number, predictor, task) for number in range(count)]
    rows = [exported.inputs(*question)[0] for question in asked]
    found = exported(**{name: np.concatenate([x[name] for x in rows]) for name in rows[0]})
    queries = [predictor.read(*question) for question in asked]
    groups = [queries] if fixed else [[query] for query in queries]
    wanted = [x for group in groups for x in predictor.predict(group, task, len(group))]
    side = exported.metadata["image_size"]
    differences, objects = [], 0
    for row, (query, prediction) in enumerate(zip(queries, wanted, strict=True)):
        mine = {name: x[row] for name, x in found.items()}
        given = prediction.boxes is None
        number = len(query.annotation.boxes) if given else int(prediction.box_count)
        differences.append(difference(mine, prediction, number, side))
        objects += number
    relations = sum(int(prediction.count) for prediction in wanted)
    return Agreement(jax.default_backend(), count, objects, relations, float(np.max(differences)))


def difference(
    found: Mapping[str, np.ndarray], wanted: Prediction, objects: int, side: int
) -> float:
    """The largest one of an image with so many objects, in an input of `side` pixels.

    Pairs are compared by name, as rounding may swap neighbours in the ranking.
    """
    counts = [name for name in ("count", "free_count", "box_count") if name in found]
    if any(found[name] != getattr(wanted, name) for name in counts):
        return np.inf
    mine, theirs = (_tables(x, objects) for x in (found, vars(wanted)))
    if any(not np.array_equal(*x) for x in zip(mine[0], theirs[0], strict=True)):
        return np.inf
    pairs = list(zip(mine[1], theirs[1], strict=True))
    if "boxes" in found:
        pairs.append((found["boxes"][:objects] / side, wanted.boxes[:objects] / side))
    return float(np.max([np.abs(a - b).max(initial=0) for a, b in pairs]))  # NaN stays NaN


def _tables(p: Mapping[str, np.ndarray], objects: int) -> tuple[list, list]:
    """What must be equal, and what may differ a little, in an order that ties do not change."""
    rows, free = slice(int(p["count"])), slice(int(p["free_count"]))
    pairs = np.asarray(p["pairs"])[rows]
    order = np.lexsort(pairs.T[::-1])
    exact = [p["labels"][:objects], pairs[order], p["predicates"][rows][order]]
    return exact, [p["label_scores"][:objects], p["scores"][rows][order], p["free_scores"][free]]


def _question(number: int, predictor: Predictor, task: str) -> tuple:
    """A drawn photograph with the boxes and class names that the task needs."""
    layout = scenes.layout(0, "test", number)
    annotation, _ = scenes.describe(layout, "", SIDE)
    boxes = annotation.boxes[: predictor.config.data.max_objects]
    classes = predictor.vocabulary.objects[1:]
    labels = [classes[i % len(classes)] for i in range(len(boxes))]
    image = np.ascontiguousarray(scenes.picture(layout, SIDE)[:HEIGHT])
    return (
        image,
        None if task == "sgdet" else boxes,
        labels if task == "predcls" else None,
    )
