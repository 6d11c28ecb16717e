"""Every metric on graphs so small that its value can be read off the drawing."""

import re

import numpy as np
import pytest
from test_metrics import assert_same

from linknet_jax.metrics.matching import (
    NO_MATCH,
    assigned_ranks,
    first_ranks,
    match,
    object_overlaps,
)
from linknet_jax.metrics.scene_graph import CURVE, SceneGraphMetrics
from linknet_jax.metrics.summary import groups
from linknet_jax.types import Annotation, Prediction, Vocabulary

VOCABULARY = Vocabulary(
    ("background", "man", "horse", "hat"), ("absent", "on", "has", "wears", "near")
)
MAN, HORSE, HAT = 1, 2, 3
ON, HAS, WEARS, NEAR = 1, 2, 3, 4
KS = (1, 2, 3, 4, 110)


def at(x, width=10) -> list[int]:
    """A box from x, ten pixels high; inclusive: `width` pixels wide."""
    return [x, 0, x + width - 1, 9]


def image(objects, relations, best=(), free=(), scores=(), labels=None, boxes=None):
    """(annotation, predicted boxes, prediction); triplets are (subject, predicate, object)."""
    relations, best, free = (np.array(x, int).reshape(-1, 3) for x in (relations, best, free))
    classes, places = (np.array(x) for x in zip(*objects, strict=True))
    labels = classes if labels is None else np.array(labels)
    scores = np.array(scores or np.ones(len(best)), np.float32)
    prediction = Prediction(
        labels=labels, label_scores=np.ones(len(labels), np.float32),
        pairs=best[:, [0, 2]], predicates=best[:, 1], scores=scores, count=np.int32(len(best)),
        free_pairs=free[:, [0, 2]], free_predicates=free[:, 1],
        free_scores=np.ones(len(free), np.float32), free_count=np.int32(len(free)),
    )  # fmt: skip
    places = places.astype(float)
    annotation = Annotation("by hand", 512, 200, places, classes, relations[:, [0, 2, 1]])
    return annotation, places if boxes is None else np.array(boxes, float), prediction


# RIDER   man 0 --on--> horse 1, twice          one predicate a pair:   every predicate:
#         man 0 --has--> hat 2                  1. horse 1 near man 0   1. man 0 wears hat 2   *
#         man 0 --wears--> hat 2                2. man 0 on horse 1 **  2. man 0 has hat 2     *
#                                               3. man 0 wears hat 2 *  3. horse 1 near man 0
#                                                                       4. man 0 on horse 1    **
RIDER = image(
    [(MAN, at(0)), (HORSE, at(50)), (HAT, at(100))],
    [(0, ON, 1), (0, ON, 1), (0, HAS, 2), (0, WEARS, 2)],
    best=[(1, NEAR, 0), (0, ON, 1), (0, WEARS, 2)],
    free=[(0, WEARS, 2), (0, HAS, 2), (1, NEAR, 0), (0, ON, 1)],
    scores=[7 / 8, 3 / 4, 1 / 4],
)
# The same, but the hat is taken for a horse: only "on" can be found.
MISNAMED = (*RIDER[:2], RIDER[2].replace(labels=np.array([MAN, HORSE, HORSE])))

# HATTER  man 0 --has--> hat 1                  1. man 0 wears hat 1    1. man 0 wears hat 1
#                                                                       2. man 0 has hat 1     *
HATTER = image(
    [(MAN, at(0)), (HAT, at(50))],
    [(0, HAS, 1)],
    best=[(0, WEARS, 1)],
    free=[(0, WEARS, 1), (0, HAS, 1)],
    scores=[5 / 8],
)
# SILENT  man 0 --on--> horse 1                 no prediction
SILENT = image([(MAN, at(0)), (HORSE, at(50))], [(0, ON, 1)])

# IDLE    man 0, horse 1; no relation           1. man 0 on horse 1: the image is skipped
IDLE = image([(MAN, at(0)), (HORSE, at(50))], [], best=[(0, ON, 1)], free=[(0, ON, 1)])

# HATS    man 0 --wears--> hat 1                1. man 0 wears hat 2    ** of hats 2 and 1
#         man 0 --wears--> hat 2                2. man 0 wears hat 3    *  of hat 1
#   hat 3: x = 97 .. 106, hat 1: 100 .. 109, hat 2: 103 .. 112. Neighbours have an IoU of 7 / 13,
#   hats 2 and 3 one of 4 / 16. One to one, the first prediction takes hat 2, the second hat 1.
HATS = image(
    [(MAN, at(0)), (HAT, at(100)), (HAT, at(103)), (HAT, at(97))],
    [(0, WEARS, 1), (0, WEARS, 2)],
    best=[(0, WEARS, 2), (0, WEARS, 3)],
    free=[(0, WEARS, 2), (0, WEARS, 3)],
)
# CROWD   man 10 --near--> man 9                110 pairs, each "on", except the last: 10 near 9
PAIRS = [(i, ON, j) for i in range(11) for j in range(11) if i != j]
CROWD = image(
    [(MAN, at(20 * i)) for i in range(11)], [(10, NEAR, 9)], [*PAIRS[:-1], (10, NEAR, 9)], PAIRS
)
# HALF    man 0 --near--> horse 1               1. man 0 near horse 1, the man half as wide
#   inclusive IoU 5 / 10; exclusive 4 / 9; inclusive in twice the pixels 9 / 19
HALF = image(
    [(MAN, at(0)), (HORSE, at(50))], [(0, NEAR, 1)], [(0, NEAR, 1)], [(0, NEAR, 1)],
    boxes=[at(0, 5), at(50)],
)  # fmt: skip
ZERO_SHOT = {"zero_shot": {(MAN, ON, HORSE), (MAN, HAS, HAT)}}
SKIP = {"missing": "skip"}
TRAINED = {"training": (0, 1, 2, 3, 4)}

TABLE = [
    # metric, images, expected, settings
    ("R@1", [RIDER], 0),
    ("R@2", [RIDER], 2 / 4),
    ("R@3", [RIDER], 3 / 4),
    ("R@4", [RIDER], 3 / 4),  # there is no fourth
    ("R@3", [RIDER, HATTER, IDLE], (3 / 4 + 0) / 2),
    ("R@3", [RIDER, HATTER, SILENT], (3 / 4 + 0 + 0) / 3),
    ("R@3", [RIDER, HATTER, SILENT], (3 / 4 + 0) / 2, SKIP),
    ("R@1", [HATS], 2 / 2),
    ("R@4", [CROWD], 0),
    ("R@110", [CROWD], 1),
    ("R@4", [MISNAMED], 2 / 4, {"task": "sgcls"}),
    ("R@1", [HALF], 1, {"task": "sgdet"}),
    ("R@1", [HALF], 0, {"task": "sgdet", "inclusive": False}),
    ("R@1", [HALF], 0, {"task": "sgdet", "frame": "1024"}),
    ("R@1", [IDLE], None),
    ("R@1", [SILENT], None, SKIP),
    ("ng-R@1", [RIDER], 1 / 4),
    ("ng-R@2", [RIDER], 2 / 4),
    ("ng-R@3", [RIDER], 2 / 4),
    ("ng-R@4", [RIDER], 4 / 4),
    ("ng-R@2", [RIDER, HATTER], (2 / 4 + 1) / 2),
    ("ng-R@110", [RIDER], None),  # a hundred candidates are kept
    # on, has, wears, near: each over the images that have it; near is in none
    ("mR@2", [RIDER], (1 + 0 + 0 + 0) / 4),
    ("mR@3", [RIDER], (1 + 0 + 1 + 0) / 4),
    ("mR@3", [RIDER, SILENT], ((1 + 0) / 2 + 0 + 1 + 0) / 4),
    ("mR@3", [RIDER, SILENT], (1 + 0 + 1 + 0) / 4, SKIP),
    ("ng-mR@1", [RIDER, HATTER], (0 + 0 + 1 + 0) / 4),
    ("ng-mR@2", [RIDER, HATTER], (0 + (1 + 1) / 2 + 1 + 0) / 4),
    ("ng-mR@110", [RIDER], None),
    # unseen: man on horse, man has hat
    ("zR@2", [RIDER], 2 / 3, ZERO_SHOT),
    ("zR@2", [RIDER, HATTER, HATS], (2 / 3 + 0) / 2, ZERO_SHOT),  # none in HATS
    ("zR@2", [HATS], None, ZERO_SHOT),
    ("zR@2", [RIDER], None),  # no list
    ("ng-zR@2", [RIDER, HATTER], (1 / 3 + 1) / 2, ZERO_SHOT),
    ("ng-zR@110", [RIDER], None, ZERO_SHOT),
    ("F1@1", [RIDER], 0),
    ("F1@2", [RIDER], 2 * (1 / 2) * (1 / 4) / (1 / 2 + 1 / 4)),
    # only predictions for (0, 1) and (0, 2) count in RIDER, for (10, 9) in CROWD
    ("A@1", [RIDER], 2 / 4),
    ("A@2", [RIDER], 3 / 4),
    ("A@1", [RIDER, HATTER], (2 + 0) / (4 + 1)),
    ("A@2", [RIDER, SILENT], (3 + 0) / (4 + 1)),
    ("A@1", [CROWD], 1),
    ("A@1", [CROWD], 1, {"ks": (1,)}),  # whatever else is asked for
    ("A@1", [HALF], None, {"task": "sgdet"}),
    # hits over relations; a prediction takes one relation, so "on" twice needs two
    ("pooled-R@2", [RIDER], 1 / 4),
    ("pooled-R@3", [RIDER], 2 / 4),
    ("pooled-R@3", [RIDER, HATTER, SILENT], (2 + 0 + 0) / (4 + 1 + 1)),
    ("pooled-R@3", [RIDER, HATTER, SILENT], (2 + 0) / (4 + 1), SKIP),
    ("pooled-R@1", [HATS], 1 / 2),
    ("pooled-R@2", [HATS], 2 / 2),
    ("ng-pooled-R@4", [RIDER], 3 / 4),
    ("ng-pooled-R@2", [HATS], 2 / 2),
    ("ng-pooled-R@110", [HATS], None),
    # in RIDER on (2 relations), has, wears | near: head has two of four predicates
    ("groups", [RIDER], ["head", "head", "body", "tail"]),
    ("head-mR@3", [RIDER], (1 + 0) / 2),
    ("body-mR@3", [RIDER], 1),
    ("tail-mR@3", [RIDER], 0),
    ("tail-mR@3", [IDLE], None),
    # in training near is the most frequent, then wears, has, on
    ("groups", [RIDER], ["tail", "body", "head", "head"], TRAINED),
    ("head-mR@3", [RIDER], (0 + 1) / 2, TRAINED),
    ("body-mR@3", [RIDER], 0, TRAINED),
    ("tail-mR@3", [RIDER], 1, TRAINED),
    ("object_accuracy", [MISNAMED], 2 / 3, {"task": "sgcls"}),
    ("object_accuracy", [MISNAMED, SILENT, IDLE], (2 + 2) / (3 + 2), {"task": "sgcls"}),
    ("object_accuracy", [MISNAMED, SILENT], 2 / 3, {"task": "sgcls", **SKIP}),
    ("object_accuracy", [RIDER], None),
    ("mAP@50", [HALF], None, {"task": "sgdet"}),
    ("AP", [RIDER], None),
    ("on.recall@2", [RIDER, SILENT], (2 / 2 + 0) / 2),
    ("on.ng-recall@4", [RIDER], 2 / 2),
    ("on.ng-recall@110", [RIDER], None),
    ("on.count", [RIDER, SILENT], 2 + 1),
    ("on.images", [RIDER, SILENT], 1 + 1),
    ("near.recall@2", [RIDER], None),
    ("near.images", [RIDER], 0),
    ("near.count", [RIDER], 0),
    ("curve.K", [RIDER], list(CURVE)),
    ("curve.R", [RIDER], [0, 2 / 4] + [3 / 4] * 5),
    ("curve.mR", [RIDER], [0, 1 / 4] + [2 / 4] * 5),
    ("curve.ng-R", [RIDER], [1 / 4, 2 / 4] + [4 / 4] * 5),
    ("curve.ng-mR", [RIDER], [1 / 4, 2 / 4] + [3 / 4] * 5),
    ("counts.images", [RIDER, SILENT, IDLE], 2),
    ("counts.images", [RIDER, SILENT, IDLE], 1, SKIP),
    ("counts.skipped_without_relations", [RIDER, SILENT, IDLE], 1),
    ("counts.without_predictions", [RIDER, SILENT, IDLE], 1),
    ("counts.without_predictions", [RIDER, SILENT, IDLE], 1, SKIP),
    ("counts.relations", [RIDER, SILENT, IDLE], 4 + 1),
    ("counts.relations", [RIDER, SILENT, IDLE], 4, SKIP),
    ("counts.absent_predicates", [RIDER], 1),
    ("counts.zero_shot_images", [RIDER, HATTER, HATS], 2, ZERO_SHOT),
    ("protocol.task", [HALF], "sgdet", {"task": "sgdet"}),
    ("protocol.split", [RIDER], "val", {"split": "val"}),
    ("protocol.iou_threshold", [RIDER], 1 / 2),
    ("protocol.iou_convention", [RIDER], "inclusive"),
    ("protocol.iou_convention", [RIDER], "exclusive", {"inclusive": False}),
    ("protocol.frame", [RIDER], "1024", {"frame": "1024"}),
    ("protocol.missing", [RIDER], "zero"),
    ("protocol.missing", [RIDER], "skip", SKIP),
    ("protocol.images_scored", [RIDER, IDLE], 1),
    ("protocol.images_skipped", [RIDER, IDLE], 1),
    ("protocol.zero_shot_triplets", [RIDER], 2, ZERO_SHOT),
    ("protocol.zero_shot_triplets", [RIDER], None),
    # annotated (rows from on) x best prediction of the pair (columns from none)
    ("confusion", [RIDER, HATTER, SILENT],
     [[0] * 5, [1, 2, 0, 0, 0], [0, 0, 0, 2, 0], [0, 0, 0, 1, 0], [0] * 5]),
    # man on horse 3/4 and man wears hat 1/4 are right, HATTER's 5/8 is not
    ("calibration.count", [RIDER, HATTER, SILENT], [0, 0, 1, 0, 0, 0, 1, 1, 0, 0]),
    ("calibration.correct", [RIDER, HATTER, SILENT], [0, 0, 1, 0, 0, 0, 0, 1, 0, 0]),
    ("calibration.score", [RIDER, HATTER, SILENT],
     [None, None, 1 / 4, None, None, None, 5 / 8, 3 / 4, None, None]),
    ("calibration.edges", [], [i / 10 for i in range(11)]),
]  # fmt: skip


def look_up(metrics, name, training):
    """`a.b` is b of a, or of the predicate a."""
    result = metrics.compute(VOCABULARY, training) | metrics.diagnosis(VOCABULARY)
    rows = result["per_predicate"]
    result |= {**rows, "groups": [row["group"] for row in rows.values()]}
    for part in name.split("."):
        result = result[part]
    return result


def describe(row) -> str:
    """R@2 RIDER HATTER missing"""
    names = {id(x): n for n, x in globals().items() if isinstance(x, tuple)}
    return " ".join([row[0], *(names[id(x)] for x in row[1]), *dict(*row[3:])])


@pytest.mark.parametrize("row", TABLE, ids=describe)
def test_by_hand(row):
    name, images, expected, *rest = row
    settings = {"ks": KS, **dict(*rest)}
    training = settings.pop("training", None)
    metrics = SceneGraphMetrics(len(VOCABULARY.predicates), **settings)
    for x in images:
        metrics.update(*x)
    assert_same(look_up(metrics, name, training), expected, name)


def test_ties_of_fifty_predicates_go_by_position():
    counts = np.array([0, *([1, 2] * 25)])
    thirds = groups(counts)
    order = [*range(2, 51, 2), *range(1, 51, 2)]
    assert [len(x) for x in thirds.values()] == [17, 17, 16]
    assert np.concatenate(list(thirds.values())).tolist() == order


def test_every_metric_has_a_row():
    metrics = SceneGraphMetrics(len(VOCABULARY.predicates), (1,))
    result = metrics.compute(VOCABULARY)
    names = {row[0].partition("@")[0] for row in TABLE}
    for group in ("curve", "counts"):
        result |= {f"{group}.{name}": None for name in result.pop(group)}
    result |= {f"on.{name}": None for name in result.pop("per_predicate")["on"]}
    result |= {f"calibration.{x}": None for x in metrics.diagnosis(VOCABULARY)["calibration"]}
    found = {name.partition("@")[0] for name in result}
    assert found - names == {"protocol", "on.group"}  # the first has rows of its own, "groups"


def test_matching_goes_by_overlap_and_class_not_by_index():
    boxes = np.array([[0, 0, 9, 9], [20, 20, 29, 29], [0, 0, 9, 9.0]])
    labels = np.array([1, 2, 1])
    relations = np.array([[0, 1, 4], [2, 1, 4], [0, 1, 4], [1, 0, 4], [0, 1, 5]])
    overlaps = object_overlaps(boxes, labels, boxes, labels, True)
    found = match(relations, overlaps, np.array([[1, 2], [2, 1]]), np.array([3, 4]))
    assert first_ranks(found.hits).tolist() == [1, 1, 1, NO_MATCH, NO_MATCH]
    assert assigned_ranks(found).tolist() == [1, NO_MATCH, NO_MATCH, NO_MATCH, NO_MATCH]


def test_errors_name_value_and_remedy():
    size = len(VOCABULARY.predicates)
    for task in ("predcls", "sgcls"):
        message = rf"image by hand: 2 predicted .*{task}.* 3 annotated.*score as sgdet"
        with pytest.raises(ValueError, match=message):
            SceneGraphMetrics(size, task=task).update(RIDER[0], RIDER[1][:2], RIDER[2])
    for ks in ((20, 0), ()):
        with pytest.raises(ValueError, match=rf"ks = {re.escape(str(ks))}.*from 1.*eval\.ks"):
            SceneGraphMetrics(size, ks)
    with pytest.raises(ValueError, match=r"task 'detection' .*predcls.*config\.task"):
        SceneGraphMetrics(size, task="detection")
    with pytest.raises(ValueError, match=r"missing 'drop' .*'zero', 'skip'.*eval\.missing"):
        SceneGraphMetrics(size, missing="drop")
    with pytest.raises(ValueError, match=r"frame 'motifs' .*'original', '1024'.*eval\.frame"):
        SceneGraphMetrics(size, frame="motifs")
    for wrong in (size - 1, size + 1):
        with pytest.raises(ValueError, match=rf"training counts {wrong} predicates.* {size};"):
            SceneGraphMetrics(size).compute(VOCABULARY, np.ones(wrong, int))
    with pytest.raises(ValueError, match=r"float64\[\d+\].*int64\[\d+\]"):
        metrics = SceneGraphMetrics(size)
        metrics.from_state(metrics.state().astype(float))
    with pytest.raises(ValueError, match=r"5 predicates .* count 51; use"):
        SceneGraphMetrics(51).compute(VOCABULARY)
