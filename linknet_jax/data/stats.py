"""What a data set holds, in numbers and pictures: `python -m linknet_jax.data stats`."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
from collections.abc import Iterable

import numpy as np
from etils import epath
from jaxtyping import Int
from ml_collections import ConfigDict

from linknet_jax import config
from linknet_jax.data import splits
from linknet_jax.data.check import summary
from linknet_jax.data.collection import AnnotationTable, Collection, raise_errors
from linknet_jax.data.files import load
from linknet_jax.data.tally import Tally, Triplets, class_counts, tally, triplets

FREQUENT, RAREST, NAMED = 20, 10, 10  # classes printed; of those without an example
TITLE, VALUE = 36, 10  # widths of printed columns
OPTIONS = ("val_images", "val_list", "images_with", "overlap_filter")


@dataclasses.dataclass(frozen=True)
class Statistics:
    """All that is printed and written to stats.json.

    Attributes:
      options: of the tree's `data`, which choose the images that are used.
      stored: of the splits in the files.
      used: of train, val and test as training and evaluation see them (`splits.choose`).
      objects, predicates: boxes and relations of each class in `used` train, most frequent first.
      triplets: of the used splits.
      max_objects: the least `data.max_objects` that holds every used image.
      max_objects_99: holds 99 % of the images of each used split.
    """

    options: dict[str, int | str | bool]
    stored: dict[str, Tally]
    used: dict[str, Tally]
    objects: dict[str, int]
    predicates: dict[str, int]
    triplets: dict[str, Triplets]
    max_objects: int
    max_objects_99: int


def stats(
    folder: epath.Path, out: epath.Path | None = None, images: str = "", val_images: int = 0
) -> None:
    """Prints counts; with `out` writes stats.json and plots there.

    `images` and `val_images` are data.images and data.val_images. ValueError for data with errors
    and for a split without images.
    """
    collection, _ = load("custom", str(folder), images)
    raise_errors(collection.findings)
    print("\n".join(["In the files:", *summary(collection)]), end="\n\n")
    settings = config.get_default("predcls").data
    settings.update(dir=str(folder), val_images=val_images)
    tables = choose_all(collection, settings)
    found = measure(collection, tables, settings)
    print("\n".join(describe(found)))
    if out is not None:
        _write(found, tables["train"], collection, out)


def choose_all(collection: Collection, settings: ConfigDict) -> dict[str, AnnotationTable]:
    """The images of every split that are used; ValueError as `splits.choose`."""
    return {
        name: splits.choose(collection, name, settings) for name in splits.available(collection)
    }


def measure(
    collection: Collection, tables: dict[str, AnnotationTable], settings: ConfigDict
) -> Statistics:
    """`tables` are what `choose_all` gives for these settings."""
    vocabulary = collection.vocabulary
    objects, predicates = class_counts(tables["train"], vocabulary)
    used = {name: tally(table) for name, table in tables.items()}
    return Statistics(
        options={name: settings[name] for name in OPTIONS},
        stored={name: tally(table) for name, table in collection.splits.items()},
        used=used,
        objects=_ranked(vocabulary.objects, objects),
        predicates=_ranked(vocabulary.predicates, predicates),
        triplets=triplets(tables, vocabulary),
        max_objects=max(x.boxes_an_image.max for x in used.values()),
        max_objects_99=max(x.boxes_an_image.p99 for x in used.values()),
    )


def describe(found: Statistics) -> list[str]:
    """Lines for people."""
    options = ", ".join(f"data.{name}={value}" for name, value in found.options.items())
    return [
        *_table("As stored", found.stored),
        "",
        *_table("As used", found.used),
        f"({options})",
        "",
        *_classes(found),
        "",
        *_triplet_lines(found.triplets),
        "",
        f"--config.data.max_objects={found.max_objects} holds every image; "
        f"99 % of each split have at most {found.max_objects_99} boxes",
    ]


def _ranked(names: Iterable[str], counts: Int[np.ndarray, "c"]) -> dict[str, int]:
    pairs = list(zip(names, counts.tolist(), strict=True))[1:]
    return dict(sorted(pairs, key=lambda pair: -pair[1]))


def _table(title: str, tallies: dict[str, Tally]) -> list[str]:
    columns = [_column(x) for x in tallies.values()]
    lines = [_row(title, tallies)]
    for name, *values in zip(columns[0], *(c.values() for c in columns), strict=True):
        lines.append(_row(name, values))
    return lines


def _column(x: Tally) -> dict[str, str]:
    column = {name: f"{getattr(x, name):,}" for name in ("images", "boxes", "relations")}
    for name, spread in (("boxes", x.boxes_an_image), ("relations", x.relations_an_image)):
        column[f"{name} an image: mean"] = f"{spread.mean:.1f}"
        column[f"{name} an image: median"] = f"{spread.median:g}"
        column[f"{name} an image: 90 % at most"] = f"{spread.p90:,}"
        column[f"{name} an image: largest"] = f"{spread.max:,}"
    return column | {
        "ordered pairs that are related": f"{100 * x.related_share:.2f} %",
        "pairs with several predicates": f"{x.pairs_with_several_predicates:,}",
        "relations stated twice": f"{x.duplicate_relations:,}",
        "relations of a box with itself": f"{x.self_relations:,}",
        "relations of boxes that do not touch": f"{x.relations_apart:,}",
    }


def _row(title: str, values: Iterable[str]) -> str:
    return f"{title:<{TITLE}}" + "".join(f"{value:>{VALUE}}" for value in values)


def _classes(found: Statistics) -> list[str]:
    left, right = _shown(found.objects, "objects"), _shown(found.predicates, "predicates")
    width = max(map(len, left)) + 4
    lines = [f"{a:<{width}}{b}" for a, b in itertools.zip_longest(left, right, fillvalue="")]
    for kind, counts in (("objects", found.objects), ("predicates", found.predicates)):
        absent = [name for name, count in counts.items() if not count]
        if absent:
            more = f" and {len(absent) - NAMED} more" * (len(absent) > NAMED)
            named = ", ".join(absent[:NAMED])
            lines += [
                "",
                f"Never in training: {len(absent)} of {len(counts)} {kind}: {named}{more}",
            ]
    return lines


def _shown(counts: dict[str, int], kind: str) -> list[str]:
    """The most frequent and the rarest classes that occur, with counts and shares."""
    total = sum(counts.values())
    rows = [
        f"{count:>{VALUE},}{100 * count / total:>7.2f} %  {name}"
        for name, count in counts.items()
        if count
    ]
    gap = [f"{'...':>{VALUE}} {len(rows) - FREQUENT - RAREST} more"]
    gap *= len(rows) > FREQUENT + RAREST
    return [f"{kind.capitalize()} of training", *rows[:FREQUENT], *gap, *rows[FREQUENT:][-RAREST:]]


def _triplet_lines(found: dict[str, Triplets]) -> list[str]:
    lines = []
    for name, x in found.items():
        line = f"{name}: {x.distinct:,} distinct triplets"
        if name != "train":
            line += f", {x.new:,} zero-shot (in no split before) in {x.new_relations:,} relations"
            line += f" of {x.new_images:,} images"
        lines.append(line)
    return lines


def _write(
    found: Statistics, train: AnnotationTable, collection: Collection, out: epath.Path
) -> None:
    from linknet_jax.data import plots  # matplotlib takes a second to import

    out.mkdir(parents=True, exist_ok=True)
    values = dataclasses.asdict(found)
    (out / "stats.json").write_text(json.dumps(values, indent=1, allow_nan=False))
    pictures = plots.draw(found.objects, found.predicates, train, collection.vocabulary)
    for name, figure in pictures.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        (out / f"{name}.png").write_bytes(buffer.getvalue())
    print(f"written to {out}: stats.json, " + ", ".join(f"{name}.png" for name in pictures))
