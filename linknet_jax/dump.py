"""Predictions of an evaluation, and what they are scored with, as files for `linknet_jax.score`."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from jaxtyping import Float, Int

from linknet_jax.atomic import replacing, write_json
from linknet_jax.data import Dataset
from linknet_jax.data.formats.jsonl import record_of
from linknet_jax.data.formats.lines import line_writer
from linknet_jax.data.formats.prediction_lines import prediction_record
from linknet_jax.data.formats.vg_dicts import training_dicts
from linknet_jax.types import Annotation, Prediction, Triplets, Vocabulary


def write_truth(
    folder: epath.Path,
    split: str,
    dataset: Dataset,
    unseen: Triplets,
) -> None:
    """The annotations of a split and its zero-shot triplets."""
    names = dataset.vocabulary
    with line_writer(folder / f"{split}.jsonl.gz") as write:
        for annotation in dataset.annotations:
            write(record_of(annotation, names))
    rows = [[names.objects[s], names.predicates[p], names.objects[o]] for s, p, o in sorted(unseen)]
    write_json(folder / f"zero_shot_{split}.json", rows)


def write_classes(
    folder: epath.Path, vocabulary: Vocabulary, training: Int[np.ndarray, "p"]
) -> None:
    """The classes, with the relations of each predicate in training."""
    write_json(folder / "dicts.json", training_dicts(vocabulary, training))


@contextlib.contextmanager
def prediction_writer(
    folder: epath.Path, name: str, vocabulary: Vocabulary
) -> Iterator[Callable[[Annotation, Float[np.ndarray, "n 4"], Prediction], None]]:
    """A function that writes this process's predictions to its part of FOLDER/NAME.jsonl.gz.

    It takes the image, its boxes in pixels of the original, and the prediction.
    """
    with line_writer(_part(folder, name, jax.process_index())) as write:

        def write_prediction(
            annotation: Annotation, boxes: Float[np.ndarray, "n 4"], prediction: Prediction
        ) -> None:
            write(prediction_record(annotation.image_id, boxes, prediction, vocabulary))

        yield write_prediction


def join(folder: epath.Path, names: Sequence[str]) -> None:
    """The parts of all processes become one file a name, whose order of lines means nothing.

    Every process calls it.
    """
    multihost_utils.sync_global_devices("predictions are written")
    if jax.process_index() == 0:
        for name in names:
            _join(folder, name)


def _join(folder: epath.Path, name: str) -> None:
    parts = [_part(folder, name, process) for process in range(jax.process_count())]
    with replacing(folder / f"{name}.jsonl.gz") as partial, partial.open("wb") as whole:
        for part in parts:  # compressed files, one after the other, are a compressed file
            with part.open("rb") as file:
                shutil.copyfileobj(file, whole)
    for part in parts:
        part.unlink()


def _part(folder: epath.Path, name: str, process: int) -> epath.Path:
    return folder / f"{name}.part{process}.jsonl.gz"
