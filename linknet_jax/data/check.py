"""Everything that is wrong with a data set: `python -m linknet_jax.data check`."""

from __future__ import annotations

import collections
from concurrent.futures import ThreadPoolExecutor

import tqdm
from etils import epath

from linknet_jax.data.collection import Collection, Finding
from linknet_jax.data.files import load
from linknet_jax.data.photographs import Photographs, photograph_name
from linknet_jax.data.transforms import ImageError, image_size
from linknet_jax.types import Annotation

STATUS = {"warning": 1, "error": 2}
SHOWN = 5  # findings of one kind
THREADS = 8


def check(folder: epath.Path, images: str = "", pixels: bool = True, every: bool = False) -> int:
    """Prints what is found, by kind, and returns 0 (nothing), 1 (warnings only) or 2 (errors).

    With `pixels` every photograph is looked for, opened, and its size compared. `every` prints all
    findings of a kind, not the first few.
    """
    try:
        collection, photographs = load("custom", str(folder), images)
    except ValueError as error:
        print(f"error: {error}")
        return STATUS["error"]
    findings = [*collection.findings, *_empty(collection, folder)]
    if pixels:
        findings += _photographs(collection, photographs, folder)
    print("\n".join([*summary(collection), *report(findings, every)]))
    return max((STATUS[f.severity] for f in findings), default=0)


def summary(collection: Collection) -> list[str]:
    """Counts of classes and splits."""
    objects, predicates = collection.vocabulary.sizes
    lines = [f"{objects - 1:,} object classes, {predicates - 1:,} predicates"]
    for split, table in collection.splits.items():
        related = int((table.relation_counts > 0).sum())
        lines.append(
            f"{split}: {len(table):,} images ({related:,} with relations), "
            f"{table.box_counts.sum():,} boxes, {table.relation_counts.sum():,} relations; "
            f"at most {table.box_counts.max(initial=0)} boxes an image"
        )
    return lines


def report(findings: list[Finding], every: bool) -> list[str]:
    """The findings, errors first, those of one kind together and shortened unless `every`."""
    kinds = collections.defaultdict(list)
    for finding in findings:
        kinds[finding.severity, finding.file, _kind(finding.message)].append(finding)
    lines = []
    for key in sorted(kinds, key=lambda k: (-STATUS[k[0]], k[1:])):
        found = kinds[key]
        shown = found if every else found[:SHOWN]
        lines += [str(finding) for finding in shown]
        if len(found) > len(shown):
            lines.append(f"  ... {len(found) - len(shown):,} more of this kind (--all lists them)")
    counts = collections.Counter(f.severity for f in findings)
    return [*lines, f"{counts['error']:,} errors, {counts['warning']:,} warnings"]


def _kind(message: str) -> str:
    """A message without its numbers and names: equal for findings of one kind."""
    words = [w for w in message.split() if w.isascii() and w.strip(",;:").isalpha()]
    return " ".join(words)


def _empty(collection: Collection, folder: epath.Path) -> list[Finding]:
    """A warning for every split that nothing can be trained or evaluated on."""
    return [
        Finding("warning", str(folder), f"split {split}", "has no image with relations")
        for split, table in collection.splits.items()
        if not table.relation_counts.any()
    ]


def _photographs(
    collection: Collection, photographs: Photographs, folder: epath.Path
) -> list[Finding]:
    annotations = [a for table in collection.splits.values() for a in table]
    if not any(photographs.find(photograph_name(a)) for a in annotations):
        sought = f"none of the {len(annotations):,} photographs is in {photographs}"
        remedy = "name their folders (--images), or train with --config.model.visual=False"
        return [Finding("warning", str(folder), "", f"{sought}; {remedy}")]
    with ThreadPoolExecutor(THREADS) as executor:
        work = executor.map(lambda a: _photograph(a, photographs, collection.relative), annotations)
        progress = tqdm.tqdm(work, "photographs", len(annotations), leave=False, disable=None)
        return [finding for found in progress for finding in found]


def _photograph(annotation: Annotation, photographs: Photographs, relative: bool) -> list[Finding]:
    name = photograph_name(annotation)
    path, where = photographs.find(name), f"image {annotation.image_id!r}, {name!r}"
    if path is None:
        return [Finding("error", str(photographs), where, "there is no such photograph")]
    folder = str(path.parent)
    try:
        width, height = image_size(path)
    except ImageError as error:
        return [Finding("error", folder, where, str(error))]
    stated = annotation.width, annotation.height
    if (width, height) == stated:
        return []
    message = f"upright the photograph has {width} x {height} pixels, the annotation says "
    message += f"{stated[0]} x {stated[1]}"
    if relative:
        return [Finding("warning", folder, where, f"{message}; boxes are scaled to fit")]
    return [Finding("error", folder, where, f"{message}: its boxes would be shifted")]
