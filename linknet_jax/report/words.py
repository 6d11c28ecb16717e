"""What was evaluated and how, in plain sentences."""

from __future__ import annotations

from collections.abc import Sequence

from linknet_jax.report.tables import TASKS, Scored

GIVEN = {
    "predcls": "PredCls: boxes and classes are given, predicates are predicted.",
    "sgcls": "SGCls: boxes are given, classes and predicates are predicted.",
    "sgdet": "SGDet: boxes, classes and predicates are predicted.",
}
MISSING = {
    "zero": "An image without predictions counts as 0.",
    "skip": "Images without predictions are left out, as in Scene-Graph-Benchmark.",
}


def evaluated(results: dict, blocks: Sequence[Scored]) -> str:
    """Which checkpoint, splits and tasks."""
    step = results.get("step")
    start = "Predictions" if step is None else f"The checkpoint of step {step:,}"
    tasks = [TASKS.get(task, task) for task in dict.fromkeys(b.task for b in blocks)]
    splits = {b.split: b.metrics.get("counts", {}) for b in reversed(blocks)}
    places = [f"the {split} split{_size(counts)}" for split, counts in reversed(splits.items())]
    return f"{start}, scored in {_and(tasks)} on {_and(places)}."


def protocol_sentences(blocks: Sequence[Scored]) -> list[str]:
    """The protocol of the first block in words, and what each task is given."""
    protocol = blocks[0].metrics.get("protocol", {})
    threshold = protocol.get("iou_threshold", 0.5)
    ends = "counted" if protocol.get("iou_convention") == "inclusive" else "not counted"
    frame = protocol.get("frame", "original")
    pixels = f"an image whose longer side is {frame}"
    if frame == "original":
        pixels = "the original image"
    sentences = [
        "A predicted triplet finds an annotated relation if all three labels agree and both boxes "
        f"reach an IoU of {threshold:g} in pixels of {pixels}, their end pixels {ends}.",
        "R, mR, zR, A and F1 allow one predicate for a pair; ng- metrics allow several.",
    ]
    predicates = protocol.get("predicates")
    if predicates:
        sentences.append(
            f"Mean recall runs over the {predicates['count']} predicates of the "
            f"{predicates['source']}."
        )
    sentences += [MISSING[x] for x in [protocol.get("missing")] if x in MISSING]
    tasks = dict.fromkeys(block.task for block in blocks)
    return sentences + [GIVEN[task] for task in tasks if task in GIVEN]


def _size(counts: dict) -> str:
    if "images" not in counts:
        return ""
    return f" ({counts['images']:,} images, {counts.get('relations', 0):,} relations)"


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
