"""Dumped predictions: the parts of several processes become one file, and nothing else is left."""

from __future__ import annotations

import gzip
import json

import jax
import numpy as np
import pytest
import scoring
from etils import epath
from jax.experimental import multihost_utils

from linknet_jax import dump
from linknet_jax.data.formats.prediction_lines import read_predictions, read_truth
from linknet_jax.data.formats.vg_dicts import read_training_counts, read_vocabulary
from linknet_jax.data.statistics import read_triplets

NAME = "sgcls_test"
PROCESSES = 3


def write_parts(monkeypatch, folder, images):
    """As each process in turn writes its share; the first joins when all have written."""
    synced = []
    monkeypatch.setattr(jax, "process_count", lambda: PROCESSES)
    monkeypatch.setattr(multihost_utils, "sync_global_devices", synced.append)
    for process in reversed(range(PROCESSES)):
        monkeypatch.setattr(jax, "process_index", lambda p=process: p)
        with dump.prediction_writer(folder, NAME, scoring.NAMES) as write:
            for image in images[process::PROCESSES]:
                write(image.annotation, image.annotation.boxes, image.prediction)
        assert not (folder / f"{NAME}.jsonl.gz").exists()
        if process:
            dump.join(folder, [NAME])
    dump.join(folder, [NAME])
    assert len(synced) == PROCESSES


@pytest.mark.parametrize("count", [20, 2])  # 2: a process without any image
def test_parts_of_processes_are_joined(tmp_path, monkeypatch, count):
    folder, images = epath.Path(tmp_path) / "predictions", scoring.images("sgcls", count)
    write_parts(monkeypatch, folder, images)
    assert [x.name for x in folder.iterdir()] == [f"{NAME}.jsonl.gz"]
    read = {i: x for _, i, _, x in read_predictions(folder / f"{NAME}.jsonl.gz", scoring.NAMES)}
    assert len(read) == count
    for image in images:
        got, expected = read[image.annotation.image_id], image.prediction
        for x, y in zip(got.ranking(), expected.ranking(), strict=True):
            np.testing.assert_array_equal(x, y)
    with gzip.open(folder / f"{NAME}.jsonl.gz", "rt") as file:
        assert len(list(file)) == count


def test_interrupted_process_leaves_no_part(tmp_path, monkeypatch):
    folder, image = epath.Path(tmp_path), scoring.images("sgcls", 1)[0]
    with pytest.raises(KeyboardInterrupt):
        with dump.prediction_writer(folder, NAME, scoring.NAMES) as write:
            write(image.annotation, image.annotation.boxes, image.prediction)
            raise KeyboardInterrupt
    assert not list(folder.iterdir())


class Split:
    """What `write_truth` needs of a data set."""

    vocabulary = scoring.NAMES
    annotations = tuple(x.annotation for x in scoring.images("sgcls"))


def test_truth(tmp_path):
    folder = epath.Path(tmp_path)
    dump.write_truth(folder, "val", Split, scoring.UNSEEN)
    dump.write_classes(folder, scoring.NAMES, scoring.TRAINING)
    names = read_vocabulary(folder / "dicts.json")
    assert names == scoring.NAMES
    np.testing.assert_array_equal(
        read_training_counts(folder / "dicts.json", names), scoring.TRAINING
    )
    assert read_triplets(folder / "zero_shot_val.json", names) == scoring.UNSEEN
    assert len(json.loads((folder / "zero_shot_val.json").read_text())) == len(scoring.UNSEEN)
    table, _ = read_truth(folder / "val.jsonl.gz", names, "dicts.json")
    for got, expected in zip(table, Split.annotations, strict=True):
        assert got.image_id == expected.image_id and got.boxes.tobytes() == expected.boxes.tobytes()
        np.testing.assert_array_equal(got.labels, expected.labels)
        np.testing.assert_array_equal(got.relations, expected.relations)
