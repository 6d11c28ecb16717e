"""Slow loops written from the definitions."""

from __future__ import annotations

import numpy as np


def box_iou(a, b, inclusive: bool) -> float:
    """IoU of two boxes."""
    extra = 1 if inclusive else 0
    width = min(a[2], b[2]) - max(a[0], b[0]) + extra
    height = min(a[3], b[3]) - max(a[1], b[1]) + extra
    shared = max(width, 0.0) * max(height, 0.0)
    areas = [(c[2] - c[0] + extra) * (c[3] - c[1] + extra) for c in (a, b)]
    total = sum(areas) - shared
    return shared / total if total > 0 else 0.0


def found_relations(annotation, boxes, labels, triplets, inclusive: bool = True) -> set[int]:
    """The ground-truth relations that any of the (subject, object, predicate) triplets finds."""

    def same(g, i):
        near = box_iou(annotation.boxes[g], boxes[i], inclusive) >= 0.5
        return near and annotation.labels[g] == labels[i]

    found = set()
    for row, (s, o, p) in enumerate(annotation.relations):
        for i, j, q in triplets:
            if p == q and same(s, i) and same(o, j):
                found.add(row)
    return found


def scene_graph_metrics(images, num_predicates, ks, zero_shot=None, inclusive=True) -> dict:
    """R, ng-R, mR, ng-mR, zR, ng-zR, A and F1 image by image, predicate by predicate.

    `images` holds (annotation, boxes, labels, constrained triplets, free triplets).
    """
    result = {}
    images = [image for image in images if len(image[0].relations)]
    for k in ks:
        for prefix, column in (("", 3), ("ng-", 4)):
            recalls, unseen_recalls, by_predicate = (
                [],
                [],
                {p: [] for p in range(1, num_predicates)},
            )
            for image in images:
                annotation, boxes, labels = image[:3]
                found = found_relations(annotation, boxes, labels, image[column][:k], inclusive)
                recalls.append(len(found) / len(annotation.relations))
                for p in by_predicate:
                    rows = [r for r, row in enumerate(annotation.relations) if row[2] == p]
                    if rows:
                        by_predicate[p].append(len(found & set(rows)) / len(rows))
                classes = [
                    (annotation.labels[s], p, annotation.labels[o])
                    for s, o, p in annotation.relations
                ]
                unseen = {r for r, c in enumerate(classes) if zero_shot and c in zero_shot}
                if unseen:
                    unseen_recalls.append(len(found & unseen) / len(unseen))
            result[f"{prefix}R@{k}"] = sum(recalls) / len(recalls) if recalls else None
            means = [sum(x) / len(x) if x else 0.0 for x in by_predicate.values()]
            result[f"{prefix}mR@{k}"] = sum(means) / len(means) if recalls else None
            result[f"{prefix}zR@{k}"] = (
                sum(unseen_recalls) / len(unseen_recalls) if unseen_recalls else None
            )
        hits = 0
        for annotation, boxes, labels, constrained, _ in images:
            related = {(s, o) for s, o, _ in annotation.relations.tolist()}
            kept = [t for t in constrained if (t[0], t[1]) in related][:k]
            hits += len(found_relations(annotation, boxes, labels, kept, inclusive))
        relations = sum(len(image[0].relations) for image in images)
        result[f"A@{k}"] = hits / relations if relations else None
        r, m = result[f"R@{k}"], result[f"mR@{k}"]
        result[f"F1@{k}"] = None if r is None else (2 * r * m / (r + m) if r + m else 0.0)
    return result


def ranked_triplets(label_scores, probabilities, pair_mask) -> tuple[list, list]:
    """Constrained and free (subject, object, predicate) lists; ties by pair, then predicate."""
    label_scores, probabilities = np.float32(label_scores), np.float32(probabilities)
    best, free = [], []
    for i in range(len(label_scores)):
        for j in range(len(label_scores)):
            if not pair_mask[i, j]:
                continue
            candidates = [
                (-(label_scores[i] * label_scores[j] * probabilities[i, j, p]), i, j, p)
                for p in range(1, probabilities.shape[-1])
            ]
            best.append(min(candidates))
            free.extend(candidates)
    return [c[1:] for c in sorted(best)], [c[1:] for c in sorted(free)[:100]]


def bilinear(image, y, x) -> np.ndarray:
    """The map at a point of its own grid, between the four nearest cells."""
    height, width, _ = image.shape
    top, left = min(int(np.floor(y)), height - 1), min(int(np.floor(x)), width - 1)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = y - top, x - left
    upper = image[top, left] * (1 - dx) + image[top, right] * dx
    lower = image[bottom, left] * (1 - dx) + image[bottom, right] * dx
    return upper * (1 - dy) + lower * dy


def onnx_sample(image, y, x) -> np.ndarray:
    """A sample of RoIAlign: clamped up to one cell outside the map, 0 beyond."""
    height, width, channels = image.shape
    if y < -1 or y > height or x < -1 or x > width:
        return np.zeros(channels)
    return bilinear(image, np.clip(y, 0, height - 1), np.clip(x, 0, width - 1))


def roi_align_aligned(features, boxes, image_ids, stride, size=7, ratio=2) -> np.ndarray:
    """RoIAlign with half-pixel centres and the mean of ratio x ratio samples a bin, float64."""
    features, boxes = np.asarray(features, np.float64), np.asarray(boxes, np.float64) / stride
    pooled = np.zeros((len(boxes), size, size, features.shape[-1]))
    for r, (x1, y1, x2, y2) in enumerate(boxes):
        bin_height, bin_width = (y2 - y1) / size, (x2 - x1) / size
        for i, j in np.ndindex(size, size):
            for a, b in np.ndindex(ratio, ratio):
                y = y1 - 0.5 + (i + (a + 0.5) / ratio) * bin_height
                x = x1 - 0.5 + (j + (b + 0.5) / ratio) * bin_width
                pooled[r, i, j] += onnx_sample(features[image_ids[r]], y, x) / ratio**2
    return pooled


def roi_align_motifs(features, boxes, image_ids, stride, size=7) -> np.ndarray:
    """One sample a bin on the corner grid x1 + k (x2 - x1) / (size - 1), 0 outside the map."""
    features, boxes = np.asarray(features, np.float64), np.asarray(boxes, np.float64)
    _, height, width, channels = features.shape
    pooled = np.zeros((len(boxes), size, size, channels))
    for r, (x1, y1, x2, y2) in enumerate(boxes):
        for i, j in np.ndindex(size, size):
            y = (y1 + i * (y2 - y1) / (size - 1)) / stride
            x = (x1 + j * (x2 - x1) / (size - 1)) / stride
            if 0 <= y <= height - 1 and 0 <= x <= width - 1:
                pooled[r, i, j] = bilinear(features[image_ids[r]], y, x)
    return pooled


def pair_counts(annotations, num_objects, num_predicates, overlap) -> tuple:
    """How often classes are related by a predicate, and how often they are candidates at all."""
    foreground = np.zeros((num_objects, num_objects, num_predicates))
    background = np.zeros((num_objects, num_objects))
    for annotation in annotations:
        boxes, labels = annotation.boxes, annotation.labels
        for s, o, predicate in annotation.relations:
            foreground[labels[s], labels[o], predicate] += 1
        pairs = [(s, o) for s in range(len(boxes)) for o in range(len(boxes)) if s != o]
        touching = [(s, o) for s, o in pairs if box_iou(boxes[s], boxes[o], True) > 0]
        for s, o in touching if overlap and touching else pairs:
            background[labels[s], labels[o]] += 1
    return foreground, background


def layout_of_pair(subject, object_) -> list[float]:
    """b_{o|s} in the centre form with inclusive sizes."""
    (ws, hs), (wo, ho) = ((b[2] - b[0] + 1, b[3] - b[1] + 1) for b in (subject, object_))
    dx = (object_[0] + wo / 2) - (subject[0] + ws / 2)
    dy = (object_[1] + ho / 2) - (subject[1] + hs / 2)
    return [dx / ws, dy / hs, np.log(wo / ws), np.log(ho / hs)]


def frequency_ranking(labels, probabilities) -> list[tuple[int, int, int]]:
    """FREQ on ground-truth labels: the likeliest predicate of every pair, likeliest pair first."""
    scored = []
    for s in range(len(labels)):
        for o in range(len(labels)):
            if s != o:
                row = probabilities[labels[s], labels[o]]
                scored.append((-row.max(), (s, o, int(row.argmax()))))
    return [triplet for _, triplet in sorted(scored, key=lambda x: x[0])]


def mean_recall_of_rankings(rankings, annotations, k) -> float:
    """R@K in PredCls, by exact match of rows; the mean over images."""
    found = [
        np.mean([tuple(map(int, row)) in ranking[:k] for row in annotation.relations])
        for ranking, annotation in zip(rankings, annotations, strict=True)
    ]
    return float(np.mean(found))
