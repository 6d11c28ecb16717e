"""From a checkpoint to the variables that predict: what evaluation, prediction and export need."""

from __future__ import annotations

import jax
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from linknet_jax import config as configs
from linknet_jax import parallel
from linknet_jax.checkpoints import Checkpoints, stored_run, vocabulary_of
from linknet_jax.state import create_state, eval_params
from linknet_jax.tasks import create_task
from linknet_jax.types import Vocabulary


def load(workdir: epath.Path, step: str, mesh: Mesh) -> tuple[ConfigDict, Vocabulary, int, dict]:
    """(configuration, class names, step, variables) of a run; `step`: best, latest or a number.

    ValueError for a folder without checkpoints, an unknown step and a damaged checkpoint.
    """
    config = stored_run(workdir, configs.get_default)
    with Checkpoints(workdir, config.eval.metric) as saved:
        number = saved.resolve(step)
        vocabulary = vocabulary_of(saved.about(number))
        return config, vocabulary, number, variables(config, saved, number, mesh)


def variables(config: ConfigDict, saved: Checkpoints, step: int, mesh: Mesh) -> dict:
    """Those of one step, on whatever devices there are; the averaged ones, if the run averaged."""
    about = saved.about(step)
    stored = config.copy_and_resolve_references()
    stored.data.detections = about["config"]["data"].get("detections", "")  # decides what is stored
    task = create_task(stored, *vocabulary_of(about).sizes)
    shapes = jax.eval_shape(lambda: create_state(config, task, jax.random.key(0), {}, {}, {}))
    items = {"params": shapes.params}
    if shapes.constants:
        items["constants"] = shapes.constants
    if config.train.ema:
        items["ema"] = shapes.ema
    stored = saved.restore(step, parallel.placed(items, mesh))
    params = eval_params(stored["params"], stored.get("ema", {}), config)
    return {"params": params, **stored.get("constants", {})}
