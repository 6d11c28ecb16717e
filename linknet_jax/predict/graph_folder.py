"""The folder of predicted graphs: graphs.jsonl, pictures, errors.txt; it outlives a stop."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from etils import epath

from linknet_jax.atomic import replacing, write_json
from linknet_jax.data.formats.lines import read_lines
from linknet_jax.data.formats.values import shown
from linknet_jax.scene_graph import SceneGraph

SHOWN = 20  # relations of a picture


class GraphFolder:
    """A line is written when the graph's pictures are there: a line says that an image is done.

    Attributes:
      path: the folder.
      done: names of the images whose graphs it has.
    """

    def __init__(
        self,
        path: pathlib.Path,
        formats: tuple[str, ...],
        settings: dict[str, Any],
        wanted: Callable[[str], bool],
        top: int | None = None,
    ):
        """Opens or creates it. A torn last line goes, and so do those of `wanted` images that lack
        a picture; the others are kept.

        `top` is the number of relations in pictures, else SHOWN. ValueError for a graphs.jsonl that
        is none and for one of other `settings`.
        """
        self.path, self._formats, self._top = path, formats, top or SHOWN
        path.mkdir(parents=True, exist_ok=True)
        self._lines, self._errors = path / "graphs.jsonl", path / "errors.txt"
        self._errors.unlink(missing_ok=True)
        self._check_settings(settings)
        self.done = self._kept(wanted)
        self._file = self._lines.open("ab")

    def __enter__(self) -> GraphFolder:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, graph: SceneGraph) -> None:
        """Writes pictures, then the line."""
        for kind in self._formats:
            if kind == "dot":
                text = graph.cut(top=self._top).to_dot()
                with replacing(epath.Path(self._picture(graph.image_id, kind))) as partial:
                    partial.write_bytes(text.encode(errors="replace"))
            elif kind != "json":
                graph.draw(self._picture(graph.image_id, kind), top=self._top)
        line = json.dumps(graph.to_dict(), allow_nan=False)
        self._file.write(f"{line}\n".encode())
        self._file.flush()
        self.done.add(graph.image_id)

    def fail(self, problem: str) -> None:
        """Adds a line to errors.txt."""
        with self._errors.open("a", encoding="utf-8", errors="replace") as file:
            file.write(" ".join(problem.split()) + "\n")

    def _picture(self, name: str, kind: str) -> pathlib.Path:
        return self.path / f"{pathlib.PurePath(name).stem}.{kind}"

    def _check_settings(self, settings: dict[str, Any]) -> None:
        path = epath.Path(self.path / "settings.json")
        stored = json.loads(path.read_text()) if path.exists() and self._lines.exists() else {}
        for key in settings.keys() & stored.keys():
            if stored[key] != settings[key]:
                raise ValueError(
                    f"{self.path} holds graphs of {key}={stored[key]!r}, these would be of "
                    f"{settings[key]!r}; name another --output, or delete the folder"
                )
        write_json(path, settings)

    def _kept(self, wanted: Callable[[str], bool]) -> set[str]:
        """Names of the lines that stay; the file is written anew where others do not."""
        if not self._lines.exists():
            return set()
        self._cut_torn_line()
        lines = list(self._read())
        done = {name for name in lines if not wanted(name) or self._complete(name)}
        if len(done) < len(lines):
            rows = self._lines.read_bytes().splitlines(keepends=True)
            with replacing(epath.Path(self._lines)) as partial:
                kept = (row for row in rows if row.strip() and json.loads(row)["image_id"] in done)
                partial.write_bytes(b"".join(kept))
        return done

    def _complete(self, name: str) -> bool:
        return all(self._picture(name, x).exists() for x in self._formats if x != "json")

    def _cut_torn_line(self) -> None:
        """Ends the file after its last newline: what follows was being written in a crash."""
        with self._lines.open("r+b") as file:
            end = file.seek(0, os.SEEK_END)
            while end:
                start = max(0, end - 2**16)
                file.seek(start)
                place = file.read(end - start).rfind(b"\n")
                if place >= 0:
                    end = start + place + 1
                    break
                end = start
            file.truncate(end)

    def _read(self) -> Iterator[str]:
        for number, record, problem in read_lines(epath.Path(self._lines)):
            name = record.get("image_id") if isinstance(record, dict) else None
            if problem or not isinstance(name, str):
                raise ValueError(
                    f"{self._lines}, line {number}: {problem or shown(record)} is no graph of this "
                    "command; move the file away, or name another --output"
                )
            yield name
