"""What a run leaves to read: one progress line at an interval, JSON Lines, TensorBoard files."""

from __future__ import annotations

import datetime
import json
import sys
import time

import jax
from etils import epath
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tqdm import tqdm

from linknet_jax.utilisation import peak_memory, utilisation

STARVED, STEADY = 0.2, 10  # part of the time that is too much; over so many steps or more


class Writer:
    """Writes on process 0 only; the other processes' calls do nothing."""

    def __init__(self, workdir: epath.Path, first: int, steps: int, batch_size: int):
        """A run from step `first` to `steps`, `batch_size` images a step."""
        self._active = jax.process_index() == 0
        self._steps, self._batch = steps, batch_size
        self._last = (first, time.monotonic())
        self._flops, self._warned = 0.0, False
        if self._active:
            self._lines = _Lines(epath.Path(workdir) / "metrics.jsonl")
            self._board = _Board(epath.Path(workdir) / "tensorboard")
        self._bar = tqdm(
            total=steps, initial=first, unit="step", leave=False,
            disable=not self._active or not sys.stderr.isatty(),
        )  # fmt: skip

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()
        if self._active:
            self._board.close()

    def advance(self) -> None:
        """One step further on the terminal's bar."""
        self._bar.update()

    def first_step(self, step: int, flops: float) -> None:
        """The step that was compiled; `flops` of a step on one device."""
        taken, self._flops = time.monotonic() - self._last[1], flops
        self.say(f"first step after {taken:.1f} s, {flops / 1e9:.4g} GFLOP a device")
        self.restart_clock(step)

    def progress(self, step: int, values: dict[str, float], shares: dict[str, float]) -> None:
        """The interval's line: step, losses, images a second, where the time went, time left."""
        values = {"loss": values["loss"], **values}
        line = [f"step {step}/{self._steps}", *(f"{k} {x:.4g}" for k, x in values.items())]
        done, start = self._last
        self.restart_clock(step)
        if step > done:
            speed = (step - done) / max(self._last[1] - start, 1e-9)
            values |= self._speed(speed) | {f"time_{k}": x for k, x in shares.items()}
            left = datetime.timedelta(seconds=round((self._steps - step) / speed))
            waits = [f"{name} {part:.0%}" for name, part in shares.items()]
            line += [f"{speed * self._batch:.1f} images/s", *waits, f"left {left}"]
        self.say("  ".join(line))
        if step - done >= STEADY and shares["data"] > STARVED:
            self._warn(shares["data"])
        self.scalars(step, values, "train")

    def _speed(self, steps: float) -> dict[str, float]:
        """What so many steps a second are."""
        images, devices = steps * self._batch, jax.devices()
        return {
            "images_per_second": images,
            "images_per_second_chip": images / len(devices),
            **utilisation(self._flops, 1 / steps, devices[0]),
            "peak_memory_gib": peak_memory(),
        }

    def _warn(self, data: float) -> None:
        if not self._warned:
            self.say(
                f"warning: {data:.0%} of the time goes into waiting for images: raise "
                "--config.data.threads or --config.data.prefetch, store smaller photographs, or "
                "keep the features of a frozen trunk with --config.data.cache=FOLDER"
            )
        self._warned = True

    def restart_clock(self, step: int) -> None:
        """Leaves out of the rate what was not training, such as an evaluation."""
        self._last = (step, time.monotonic())

    def say(self, text: str) -> None:
        """A line above the progress bar, where there is one to say."""
        if self._active and text:
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()

    def scalars(self, step: int, values: dict[str, float], group: str) -> None:
        """Appends to metrics.jsonl and to the TensorBoard file."""
        if not self._active:
            return
        self._lines.append(json.dumps({"step": step, "group": group, **values}) + "\n")
        self._board.append(step, {f"{group}/{name}": x for name, x in values.items()})


class _Board:
    """A TensorBoard file. SummaryWriter's thread dies of a full disk, and its queue then blocks."""

    def __init__(self, folder: epath.Path):
        folder.mkdir(parents=True, exist_ok=True)
        self._events = EventsWriter(str(folder / "events"))

    def append(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            scalar = summary.scalar(name, value)
            self._events.write_event(Event(wall_time=time.time(), step=step, summary=scalar))
        self._events.flush()

    def close(self) -> None:
        self._events.close()


class _Lines:
    """A text file that grows; buckets cannot append, so there the whole file is written again."""

    def __init__(self, path: epath.Path):
        self._path, self._bucket = path, "://" in str(path)
        self._text = path.read_text() if self._bucket and path.exists() else ""

    def append(self, line: str) -> None:
        if self._bucket:
            self._text += line
            self._path.write_text(self._text)
            return
        with self._path.open("a") as file:
            file.write(line)
