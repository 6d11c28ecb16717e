"""A whole data set in memory: the annotations of all images packed into a few arrays."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from linknet_jax.types import Annotation, Vocabulary

BACKGROUND = "__background__"
SPLITS = ("train", "val", "test")
SHOWN_FINDINGS = 10


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something wrong with a data set.

    Attributes:
      severity: error (a data set with errors is not loaded) | warning (it is).
      file: the file that is wrong.
      where: image id, line or field within the file; "" for the whole of it.
      message: the offending value, the rule and the remedy.
    """

    severity: str
    file: str
    where: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}, {self.where}" if self.where else self.file
        text = f"{self.severity}: {place}: {self.message}"
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


@dataclasses.dataclass(frozen=True, eq=False)
class AnnotationTable(Sequence[Annotation]):
    """Annotations as ragged arrays: about 400 bytes an image of Visual Genome.

    Attributes:
      image_ids, file_names: of every stored image.
      sizes: int32 [k, 2], (width, height).
      boxes, labels: of all stored images, one after the other.
      box_start: int64 [k + 1], where the boxes of an image begin.
      relations: rows (subject, object, predicate), which count from the image's first box.
      relation_start: int64 [k + 1].
      rows: which of the stored images this table shows, in order; selections share the arrays.
    """

    image_ids: Sequence[int | str]
    file_names: Sequence[str]
    sizes: Int[np.ndarray, "k 2"]
    boxes: Float[np.ndarray, "n 4"]
    labels: Int[np.ndarray, "n"]
    box_start: Int[np.ndarray, "k+1"]
    relations: Int[np.ndarray, "r 3"]
    relation_start: Int[np.ndarray, "k+1"]
    rows: Int[np.ndarray, "m"]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Annotation:
        row = self.rows[index]
        boxes = slice(self.box_start[row], self.box_start[row + 1])
        relations = slice(self.relation_start[row], self.relation_start[row + 1])
        return Annotation(
            image_id=self.image_ids[row],
            width=int(self.sizes[row, 0]),
            height=int(self.sizes[row, 1]),
            boxes=self.boxes[boxes],
            labels=self.labels[boxes],
            relations=self.relations[relations],
            file_name=self.file_names[row],
        )

    @property
    def box_counts(self) -> Int[np.ndarray, "m"]:
        """Boxes of each image."""
        return np.diff(self.box_start)[self.rows]

    @property
    def relation_counts(self) -> Int[np.ndarray, "m"]:
        """Relations of each image."""
        return np.diff(self.relation_start)[self.rows]

    @functools.cached_property
    def box_images(self) -> Int[np.ndarray, "n"]:
        """Stored image of each stored box."""
        return np.repeat(np.arange(len(self.image_ids)), np.diff(self.box_start))

    @functools.cached_property
    def relation_images(self) -> Int[np.ndarray, "r"]:
        """Stored image of each stored relation."""
        return np.repeat(np.arange(len(self.image_ids)), np.diff(self.relation_start))

    @property
    def ends(self) -> Int[np.ndarray, "r 2"]:
        """Stored box of each stored relation's subject and object."""
        return self.relations[:, :2] + self.box_start[self.relation_images][:, None]

    def select(self, indices: Int[np.ndarray, "q"]) -> AnnotationTable:
        """The images at these positions, in this order."""
        return dataclasses.replace(self, rows=self.rows[indices])

    def with_relations(self, kept: Bool[np.ndarray, "r"]) -> AnnotationTable:
        """With only these of the stored relations."""
        before = np.concatenate([[0], np.cumsum(kept)])
        return dataclasses.replace(
            self, relations=self.relations[kept], relation_start=before[self.relation_start]
        )


def pack(annotations: Iterable[Annotation]) -> AnnotationTable:
    """The table of a stream of annotations, which is read once."""
    ids, names, sizes, boxes, labels, relations = [], [], [], [], [], []
    for a in annotations:
        ids.append(a.image_id)
        names.append(a.file_name)
        sizes.append((a.width, a.height))
        boxes.append(np.asarray(a.boxes, np.float64).reshape(-1, 4))
        labels.append(np.asarray(a.labels, np.int32))
        relations.append(np.asarray(a.relations, np.int32).reshape(-1, 3))
    return AnnotationTable(
        image_ids=ids,
        file_names=names,
        sizes=np.array(sizes, np.int32).reshape(-1, 2),
        boxes=np.concatenate([np.zeros((0, 4)), *boxes]),
        labels=np.concatenate([np.zeros(0, np.int32), *labels]),
        box_start=starts([len(x) for x in boxes]),
        relations=np.concatenate([np.zeros((0, 3), np.int32), *relations]),
        relation_start=starts([len(x) for x in relations]),
        rows=np.arange(len(ids)),
    )


def compact(table: AnnotationTable) -> AnnotationTable:
    """The same images, stored without others and in the table's order."""
    if np.array_equal(table.rows, np.arange(len(table.image_ids))):
        return table
    boxes = runs(table.box_start[table.rows], table.box_counts)
    relations = runs(table.relation_start[table.rows], table.relation_counts)
    return AnnotationTable(
        image_ids=[table.image_ids[row] for row in table.rows],
        file_names=[table.file_names[row] for row in table.rows],
        sizes=table.sizes[table.rows],
        boxes=table.boxes[boxes],
        labels=table.labels[boxes],
        box_start=starts(table.box_counts),
        relations=table.relations[relations],
        relation_start=starts(table.relation_counts),
        rows=np.arange(len(table)),
    )


def runs(first: Int[np.ndarray, "k"], counts: Int[np.ndarray, "k"]) -> Int[np.ndarray, "n"]:
    """first[0], first[0] + 1, .. of k runs with so many numbers each, one after the other."""
    start = starts(counts)
    return np.repeat(first - start[:-1], counts) + np.arange(start[-1])


def starts(counts: Sequence[int]) -> Int[np.ndarray, "k+1"]:
    """Where each of k runs begins, and the end of the last."""
    return np.concatenate([[0], np.cumsum(np.asarray(counts, np.int64))])


@dataclasses.dataclass(eq=False)
class Collection:
    """What a format's reader returns and its writer takes.

    Attributes:
      vocabulary: class names, the background first.
      splits: train, val and test as the files have them, in the order of the files; a split that
        the files do not have is absent.
      findings: what is wrong with the files; images of errors are left out of the splits.
      relative: boxes are stored as parts of the image, so that they fit a photograph whose size is
        not the stated one.
    """

    vocabulary: Vocabulary
    splits: dict[str, AnnotationTable]
    findings: list[Finding] = dataclasses.field(default_factory=list)
    relative: bool = False


def raise_errors(findings: Sequence[Finding]) -> None:
    """ValueError that lists the first errors among the findings, if there are any."""
    errors = [f for f in findings if f.severity == "error"]
    if not errors:
        return
    shown = [str(f).removeprefix("error: ") for f in errors[:SHOWN_FINDINGS]]
    more = [f"... and {len(errors) - len(shown)} more"] * (len(errors) > len(shown))
    head = f"{len(errors)} problems in the data; correct these entries or remove them "
    head += "(`python -m linknet_jax.data check` lists all):"
    raise ValueError("\n  ".join([head, *shown, *more]))
