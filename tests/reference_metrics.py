"""Scene-graph metrics in exact fractions, slow loops written from the definitions."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np


def box_iou(a, b, inclusive: bool):
    """IoU of two boxes, exact where their corners are."""
    extra = 1 if inclusive else 0
    width = min(a[2], b[2]) - max(a[0], b[0]) + extra
    height = min(a[3], b[3]) - max(a[1], b[1]) + extra
    shared = max(width, 0) * max(height, 0)
    areas = [(c[2] - c[0] + extra) * (c[3] - c[1] + extra) for c in (a, b)]
    total = sum(areas) - shared
    return shared / total if total > 0 else 0


class Scored(NamedTuple):
    """An image that counts; "" is the ranking with the graph constraint, "ng-" the one without.

    Attributes:
      annotation, labels: the image, and the predicted classes of its boxes.
      best, scores: constrained triplets (subject, object, predicate), best first.
      near: of every prediction {row of a relation: smaller IoU of the two objects}, where both
        objects agree in class and their IoU is at least one half.
      hits: the same where the predicate agrees too.
    """

    annotation: Any
    labels: list
    best: list
    scores: list
    near: dict[str, list[dict[int, Fraction]]]
    hits: dict[str, list[dict[int, Fraction]]]

    @property
    def relations(self) -> list[list[int]]:
        return self.annotation.relations.tolist()


def scored_images(images, inclusive=True, missing="zero", frame="original") -> list[Scored]:
    """Those with relations and, where missing ones are skipped, with predictions.

    `images` holds (annotation, boxes, labels, constrained triplets, free triplets[, scores of the
    constrained ones]), triplets as (subject, object, predicate), best first.
    """
    scored = []
    for annotation, boxes, labels, best, free, *scores in images:
        if not len(annotation.relations) or (missing == "skip" and not best):
            continue
        near = {}
        objects = agreeing_objects(annotation, boxes, labels, inclusive, frame)
        for prefix, triplets in (("", best), ("ng-", free)):
            near[prefix] = [agreeing_pairs(annotation, objects, s, o) for s, o, _ in triplets]
        hits = {
            prefix: [
                {row: x for row, x in rows.items() if annotation.relations[row][2] == p}
                for (_, _, p), rows in zip(triplets, near[prefix], strict=True)
            ]
            for prefix, triplets in (("", best), ("ng-", free))
        }
        scored.append(Scored(annotation, labels, best, *(scores or [[]]), near, hits))
    return scored


def agreeing_objects(annotation, boxes, labels, inclusive, frame) -> dict[tuple, Fraction]:
    """IoU of (annotated, predicted) objects of one class, where it is at least one half."""
    size = max(annotation.width, annotation.height)
    truth = [framed(box, size, frame) for box in annotation.boxes]
    found = [framed(box, size, frame) for box in boxes]
    result = {}
    for g, i in np.ndindex(len(truth), len(found)):
        if annotation.labels[g] == labels[i]:
            shared = box_iou(truth[g], found[i], inclusive)
            if shared >= Fraction(1, 2):
                result[g, i] = shared
    return result


def framed(box, size, frame) -> list[Fraction]:
    """Corners where the longer side has `frame` pixels, to a millionth of them."""
    exact = [Fraction(float(x)) for x in box]
    if frame == "original":
        return exact
    return [round(x * int(frame) / Fraction(size), 6) for x in exact]


def agreeing_pairs(annotation, objects, subject, object_) -> dict[int, Fraction]:
    """Rows of the relations between the objects that this pair shows, with the smaller IoU."""
    result = {}
    for row, (s, o, _) in enumerate(annotation.relations.tolist()):
        if (s, subject) in objects and (o, object_) in objects:
            result[row] = min(objects[s, subject], objects[o, object_])
    return result


def found_by(hits) -> set[int]:
    """The relations that any of these predictions finds."""
    return {row for hit in hits for row in hit}


def found_one_to_one(hits) -> set[int]:
    """Each prediction in turn takes the free relation with the largest IoU, of equals the first."""
    taken = set()
    for hit in hits:
        free = [row for row in sorted(hit) if row not in taken]
        if free:
            taken.add(max(free, key=lambda row: hit[row]))
    return taken


def mean(values):
    """None of nothing."""
    values = list(values)
    return sum(values, Fraction(0)) / len(values) if values else None


def recalls(scored, k, prefix, counts) -> list[Fraction]:
    """Share of the relations that `counts(image, row)` found by the first K, by image."""
    result = []
    for image in scored:
        rows = {row for row in range(len(image.relations)) if counts(image, row)}
        if rows:
            found = found_by(image.hits[prefix][:k])
            result.append(Fraction(len(found & rows), len(rows)))
    return result


def mean_recall(scored, k, prefix, predicates):
    """Mean over the predicates of the mean over the images that have them; an absent one is 0."""
    if not scored:
        return None
    of_one = [recalls(scored, k, prefix, lambda x, row, p=p: x.relations[row][2] == p)
              for p in predicates]  # fmt: skip
    return mean(mean(values) or Fraction(0) for values in of_one)


def in_list(zero_shot):
    """Whether (subject class, predicate, object class) of a relation is in the list."""

    def counts(image, row):
        s, o, p = image.relations[row]
        labels = image.annotation.labels
        return (int(labels[s]), p, int(labels[o])) in (zero_shot or ())

    return counts


def pair_accuracy(scored, k):
    """Hits of the first K predictions on ordered pairs that are annotated, over all relations."""
    hits = 0
    for image in scored:
        related = {(s, o) for s, o, _ in image.relations}
        ranked = zip(image.best, image.hits[""], strict=True)
        kept = [hit for (s, o, _), hit in ranked if (s, o) in related]
        hits += len(found_by(kept[:k]))
    return share_of_relations(hits, scored)


def share_of_relations(hits, scored):
    """Over all relations of the scored images."""
    relations = sum(len(image.relations) for image in scored)
    return Fraction(hits, relations) if relations else None


def thirds(scored, num_predicates, training=None) -> dict[str, list[int]]:
    """Predicates from 1 by falling count, ties by position; the first groups have the rest."""
    counts = training
    if counts is None:
        counts = [0] * num_predicates
        for image in scored:
            for _, _, p in image.relations:
                counts[p] += 1
    order = sorted(range(1, num_predicates), key=lambda p: (-counts[p], p))
    size, rest = divmod(len(order), 3)
    ends = [size * i + min(i, rest) for i in range(4)]
    names = ("head", "body", "tail")
    return {name: order[ends[i] : ends[i + 1]] for i, name in enumerate(names)}


def scene_graph_metrics(
    images, num_predicates, ks, zero_shot=None, inclusive=True, missing="zero", frame="original",
    training=None,
) -> dict:  # fmt: skip
    """Every metric that is one number, image by image, relation by relation."""
    scored = scored_images(images, inclusive, missing, frame)
    predicates, groups = range(1, num_predicates), thirds(scored, num_predicates, training)
    result = {}
    for k in ks:
        for prefix in ("", "ng-"):
            kept = scored if prefix == "" or k <= 100 else []  # 100 free candidates are known
            result[f"{prefix}R@{k}"] = mean(recalls(kept, k, prefix, lambda *_: True))
            result[f"{prefix}mR@{k}"] = mean_recall(kept, k, prefix, predicates)
            result[f"{prefix}zR@{k}"] = mean(recalls(kept, k, prefix, in_list(zero_shot)))
            hits = sum(len(found_one_to_one(image.hits[prefix][:k])) for image in kept)
            result[f"{prefix}pooled-R@{k}"] = share_of_relations(hits, kept)
        r, m = result[f"R@{k}"], result[f"mR@{k}"]
        result[f"F1@{k}"] = None if r is None else 2 * r * m / (r + m) if r + m else 0
        result[f"A@{k}"] = pair_accuracy(scored, k)
        for name, members in groups.items():
            found = mean_recall(scored, k, "", members) if members else None
            result[f"{name}-mR@{k}"] = found
    return {key: None if x is None else float(x) for key, x in result.items()}


def recalls_per_predicate(scored, num_predicates, ks, training=None) -> dict[int, dict]:
    """What is known of every predicate."""
    result = {}
    groups = thirds(scored, num_predicates, training)
    for p in range(1, num_predicates):
        rows = [[row[2] for row in image.relations].count(p) for image in scored]
        images = sum(count > 0 for count in rows)
        group = next(name for name, members in groups.items() if p in members)
        result[p] = {"count": sum(rows), "images": images, "group": group}
        for k in ks:
            for prefix in ("", "ng-"):
                kept = scored if prefix == "" or k <= 100 else []
                values = recalls(kept, k, prefix, lambda x, row, p=p: x.relations[row][2] == p)
                result[p][f"{prefix}recall@{k}"] = mean(values)
    return result


def object_accuracy(scored):
    """Share of the objects of the scored images whose class is right, none without boxes."""
    right = [
        bool(len(image.labels)) and int(image.labels[i]) == int(label)
        for image in scored
        for i, label in enumerate(image.annotation.labels)
    ]
    return mean(map(Fraction, right))


def best_of_pairs(image) -> list[int | None]:
    """For every relation the first of the 100 best predictions that shows its two objects."""
    return [
        next((k for k, rows in enumerate(image.near[""][:100]) if row in rows), None)
        for row in range(len(image.relations))
    ]


def confusion(scored, num_predicates) -> list[list[int]]:
    """How often an annotated predicate (row) is taken for another (column), 0: for none."""
    table = [[0] * num_predicates for _ in range(num_predicates)]
    for image in scored:
        for (_, _, p), k in zip(image.relations, best_of_pairs(image), strict=True):
            table[p][0 if k is None else image.best[k][2]] += 1
    return table


def calibration(scored) -> dict[str, list]:
    """Number, number right and mean score of those predictions, by tenths of the score."""
    bins = [[] for _ in range(10)]
    for image in scored:
        for k in {k for k in best_of_pairs(image) if k is not None}:
            score = Fraction(float(np.float32(image.scores[k])))
            bins[min(int(score * 10), 9)].append((score, bool(image.hits[""][k])))
    return {
        "count": [len(x) for x in bins],
        "correct": [sum(right for _, right in x) for x in bins],
        "score": [mean(score for score, _ in x) for x in bins],
    }
