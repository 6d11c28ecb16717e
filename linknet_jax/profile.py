"""`profile.steps`: a trace of some training steps, for TensorBoard and Perfetto."""

from __future__ import annotations

import jax
from etils import epath
from jaxtyping import PyTree
from ml_collections import ConfigDict


class Profile:
    """Traces `config.steps` steps from the one that is `config.after` steps behind the first."""

    def __init__(self, config: ConfigDict, folder: epath.Path, first: int):
        """`first` is the step that the run starts after; each process writes its own trace."""
        self._begin = first + 1 + config.after
        self._end = self._begin + config.steps
        self._folder, self._on = folder, False

    def before(self, step: int, running: PyTree) -> str:
        """Starts or ends the trace as it is due before `step`; returns what there is to say.

        `running` is what the device still computes, which belongs to what came before.
        """
        if self._begin == self._end or step not in (self._begin, self._end):
            return ""
        jax.block_until_ready(running)
        if step == self._end:
            return self.close()
        jax.profiler.start_trace(str(self._folder))
        self._on = True
        return ""

    def close(self) -> str:
        """Ends the trace, if it is on; returns what there is to say."""
        if not self._on:
            return ""
        self._on = False
        jax.profiler.stop_trace()
        return f"profile: {self._folder} (tensorboard --logdir, or ui.perfetto.dev)"
