"""What a run leaves to read: one progress line at an interval, JSON Lines, TensorBoard files."""

from __future__ import annotations

import datetime
import json
import sys
import time

import jax
from etils import epath
from tensorboardX import SummaryWriter
from tqdm import tqdm


class Writer:
    """Writes on process 0 only; the other processes' calls do nothing."""

    def __init__(self, workdir: epath.Path, first: int, steps: int, batch_size: int):
        """A run from step `first` to `steps`, `batch_size` images a step."""
        self._active = jax.process_index() == 0
        self._steps, self._batch = steps, batch_size
        self._last = (first, time.monotonic())
        if self._active:
            self._lines = (epath.Path(workdir) / "metrics.jsonl").open("a")
            self._board = SummaryWriter(str(epath.Path(workdir) / "tensorboard"))
        self._bar = tqdm(
            total=steps, initial=first, unit="step", leave=False,
            disable=not self._active or not sys.stderr.isatty(),
        )  # fmt: skip

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()
        if self._active:
            self._lines.close()
            self._board.close()

    def advance(self) -> None:
        """One step further on the terminal's bar."""
        self._bar.update()

    def progress(self, step: int, values: dict[str, float]) -> None:
        """The interval's line: step, losses, images a second, time left."""
        done, start = self._last
        now = time.monotonic()
        rate = (step - done) / max(now - start, 1e-9)
        self._last = (step, now)
        left = datetime.timedelta(seconds=round((self._steps - step) / rate))
        values = {"loss": values["loss"], **values}
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        images = rate * self._batch
        self.say(f"step {step}/{self._steps}  {numbers}  {images:.1f} images/s  left {left}")
        self.scalars(step, {**values, "images_per_second": images}, "train")

    def restart_clock(self, step: int) -> None:
        """Leaves out of the rate what was not training, such as an evaluation."""
        self._last = (step, time.monotonic())

    def say(self, text: str) -> None:
        """A line above the progress bar."""
        if self._active:
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()

    def scalars(self, step: int, values: dict[str, float], group: str) -> None:
        """Appends to metrics.jsonl and to the TensorBoard file."""
        if not self._active:
            return
        self._lines.write(json.dumps({"step": step, "group": group, **values}) + "\n")
        self._lines.flush()
        for name, value in values.items():
            self._board.add_scalar(f"{group}/{name}", value, step)
