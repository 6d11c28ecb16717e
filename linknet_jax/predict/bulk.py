"""Graphs of many photographs and videos, some of which may be unreadable."""

from __future__ import annotations

import dataclasses
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath
from tqdm import tqdm

from linknet_jax.data.transforms import ImageError
from linknet_jax.predict import ahead, inputs, video
from linknet_jax.predict.given import Given
from linknet_jax.predict.graph_folder import GraphFolder
from linknet_jax.predictor import THREADS, Predictor
from linknet_jax.queries import Query

Named = tuple[str, Any]  # an image's name, and a path, pixels, or the error in their place


@dataclasses.dataclass
class Bulk:
    """A run over files.

    Attributes:
      given: boxes, and for predcls labels; None: none are needed.
      fps: frames a second of a video.
      batch: images that go through the network at once.
      written, skipped, failed: images so far.
    """

    predictor: Predictor
    task: str
    folder: GraphFolder
    given: Given | None
    fps: float
    batch: int
    written: int = 0
    skipped: int = 0
    failed: int = 0

    def run(self, files: Sequence[epath.Path]) -> None:
        """Every image that the folder lacks; reading runs ahead while the network computes."""
        total = sum(self._count(path) for path in files)
        size = self.batch if total > 1 else 1
        todo = self._todo(files)
        if any(map(inputs.is_video, files)):
            todo = ahead.taken(todo, 2)
        queries = ahead.mapped(self._read, todo, THREADS, size + THREADS)
        with tqdm(total=total, unit="image", smoothing=0.1) as bar:
            for chunk in _chunks(self._readable(queries, bar), size):
                for graph in self.predictor.graphs(chunk, self.task, size):
                    self._add(graph)
                    bar.update()

    def _count(self, path: epath.Path) -> int:
        if inputs.is_video(path):
            return video.count(path, self.fps)
        return path.name not in self.folder.done

    def _todo(self, files: Sequence[epath.Path]) -> Iterator[Named]:
        for name, image in _photographs(files, self.fps):
            if name in self.folder.done:
                self.skipped += 1
            else:
                yield name, image

    def _read(self, named: Named) -> tuple[str, Query | Exception]:
        """What reading gives or raises."""
        name, image = named
        if isinstance(image, Exception):
            return named
        try:
            boxes = self.given and self.given.boxes(name)
            labels = self.given.labels(name) if self.given and self.task == "predcls" else None
            query = self.predictor.read(image, boxes, labels, name)
            if self.given:
                self.given.check_size(name, query.annotation.width, query.annotation.height)
        except (ValueError, OSError) as error:
            return name, error
        return name, query

    def _readable(self, read: Iterator[tuple[str, Query | Exception]], bar: tqdm) -> Iterator:
        for name, query in read:
            if isinstance(query, Exception):
                self._fail(name, query)
                bar.update()
            else:
                yield query

    def _add(self, graph) -> None:
        try:
            self.folder.add(graph)
            self.written += 1
        except ValueError as error:  # a photograph that changed, a number that is none
            self._fail(graph.image_id, error)

    def _fail(self, name: str, error: Exception) -> None:
        self.failed += 1
        self.folder.fail(f"{name}: {error}")
        tqdm.write(f"failed: {name}: {error}", file=sys.stderr)


def _photographs(files: Sequence[epath.Path], fps: float) -> Iterator[Named]:
    """Every image, with its path, its pixels or why there are none."""
    for path in files:
        if not inputs.is_video(path):
            yield path.name, os.fspath(path)
            continue
        try:
            yield from video.frames(path, fps)
        except ImageError as error:
            yield path.name, error


def _chunks(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while chunk := list(itertools.islice(items, size)):
        yield chunk
