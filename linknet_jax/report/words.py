"""What was evaluated and how, in plain sentences."""

from __future__ import annotations

from collections.abc import Sequence

from linknet_jax.report.tables import TASK_TITLES, Block

GIVEN = {
    "predcls": "PredCls: boxes and classes are given, predicates are predicted.",
    "sgcls": "SGCls: boxes are given, classes and predicates are predicted.",
    "sgdet": "SGDet: boxes, classes and predicates are predicted.",
}
WITHOUT_PREDICTIONS = {
    "zero": "An image without predictions counts as 0.",
    "skip": "Images without predictions are left out, as in Scene-Graph-Benchmark.",
}


def evaluated(results: dict, blocks: Sequence[Block]) -> str:
    """Which checkpoint, splits and tasks."""
    step = results.get("step")
    start = "Predictions" if step is None else f"The checkpoint of step {step:,}"
    tasks = [TASK_TITLES[task] for task in dict.fromkeys(b.task for b in blocks)]
    splits = {b.split: b.metrics["counts"] for b in blocks}
    places = [
        f"the {split} split ({counts['images']:,} images, {counts['relations']:,} relations)"
        for split, counts in splits.items()
    ]
    return f"{start}, scored in {_and(tasks)} on {_and(places)}."


def protocol_sentences(blocks: Sequence[Block]) -> list[str]:
    """The protocol of the first block in words, and what each task is given."""
    protocol = blocks[0].metrics["protocol"]
    ends = "counted" if protocol["iou_convention"] == "inclusive" else "not counted"
    frame, predicates = protocol["frame"], protocol["predicates"]
    pixels = f"an image whose longer side is {frame}"
    if frame == "original":
        pixels = "the original image"
    return [
        "A predicted triplet finds an annotated relation if all three labels agree and both boxes "
        f"reach an IoU of {protocol['iou_threshold']:g} in pixels of {pixels}, their end pixels "
        f"{ends}.",
        f"Graph constraint by metric: {protocol['graph_constraint']}.",
        f"Mean recall runs over the {predicates['count']} predicates of the "
        f"{predicates['source']}.",
        WITHOUT_PREDICTIONS[protocol["missing"]],
        *(GIVEN[task] for task in dict.fromkeys(block.task for block in blocks)),
    ]


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
