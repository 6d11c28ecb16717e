"""From Visual Genome's own files to what reading Xu et al.'s VG-SGG.h5 gives (docs/data.md)."""

from __future__ import annotations

import math

import numpy as np
from etils import epath

from linknet_jax.data.collection import Collection, Finding
from linknet_jax.data.formats.visual_genome import IMAGES, WITHOUT_ROW
from linknet_jax.data.raw.assembling import assemble
from linknet_jax.data.raw.entries import entries
from linknet_jax.data.raw.gathering import OBJECTS, RELATIONS, Gatherer
from linknet_jax.data.raw.names import Names, read_aliases
from linknet_jax.data.raw.report import Report, describe_splits
from linknet_jax.data.raw.vocabulary import vg150
from linknet_jax.types import Vocabulary

TRAIN_SHARE = 0.7
SHOWN_IDS = 5
ALIASES = ("object_alias.txt", "relationship_alias.txt")


def convert_raw(
    folder: epath.Path, vocabulary: Vocabulary | None = None
) -> tuple[Collection, Report]:
    """Raw Visual Genome (releases 1.2 and 1.4) as VG150, and what was left out.

    `folder` holds objects.json, relationships.json, image_data.json and, if wanted,
    object_alias.txt and relationship_alias.txt. `vocabulary` is VG150's by default. The splits are
    train and test; boxes are those of the official file to the bit, in pixels of the original.
    Takes about 6 KB of memory an image; the files may list the images in different orders.

    Raises ValueError that names the file, the image and the entry that is wrong.
    """
    report = Report()
    names, predicates = (Names(_aliases(folder / file)) for file in ALIASES)
    report.object_aliases, report.predicate_aliases = names.explained, predicates.explained
    sizes = _sizes(folder / IMAGES, report)
    gatherer = Gatherer(folder, sizes, frozenset(WITHOUT_ROW), names, predicates, report)
    gatherer.run()
    vocabulary = vocabulary or vg150()
    table = assemble(gatherer, vocabulary)
    cut = math.floor(TRAIN_SHARE * len(table))
    train, test = table.select(np.arange(cut)), table.select(np.arange(cut, len(table)))
    describe_splits(report, train, test)
    splits = {name: part for name, part in (("train", train), ("test", test)) if len(part)}
    return Collection(vocabulary, splits, _findings(gatherer, report)), report


def _aliases(path: epath.Path) -> dict[str, str]:
    return read_aliases(path) if path.exists() else {}


def _sizes(path: epath.Path, report: Report) -> dict[int, tuple[int, int]]:
    """(width, height) of the images that VG150 knows, in the order of the file."""
    sizes = {}
    for image_id, entry in entries(path):
        size = entry.get("width"), entry.get("height")
        if [type(v) for v in size] != [int, int] or not 0 < min(size) <= max(size) < 2**20:
            raise ValueError(
                f"{path}, image {image_id}: width {size[0]!r} and height {size[1]!r} must be "
                "numbers of pixels; take them from the photograph"
            )
        report.images_read += 1
        if image_id in WITHOUT_ROW:
            report.images_removed += 1
        else:
            sizes[image_id] = size
    return sizes


def _findings(gatherer: Gatherer, report: Report) -> list[Finding]:
    """Images that the three files do not all have, one warning for each file."""
    report.images_without_objects = len(gatherer.missing[OBJECTS])
    report.images_without_relationships = len(gatherer.missing[RELATIONS])
    report.images_unknown = len({i for ids in gatherer.unknown.values() for i in ids})
    cases = [
        (gatherer.missing, f"of {IMAGES} are not in this file, and are kept without what it adds"),
        (gatherer.unknown, f"of this file are not in {IMAGES}, and are left out"),
    ]
    return [
        Finding("warning", str(gatherer.folder / file), "", _listed(ids, what))
        for by_file, what in cases
        for file, ids in by_file.items()
        if ids
    ]


def _listed(ids: list[int], what: str) -> str:
    more = ", ..." * (len(ids) > SHOWN_IDS)
    shown = ", ".join(map(str, ids[:SHOWN_IDS]))
    return f"{len(ids)} images ({shown}{more}) {what}; take all files from one release"
