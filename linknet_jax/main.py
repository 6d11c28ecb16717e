"""Train or evaluate LinkNet.

  python -m linknet_jax.main --config configs/sgcls.py [--workdir DIR] [--config.KEY=VALUE ...]
  python -m linknet_jax.main --mode eval --workdir DIR [--config.data.dir=DIR ...]
  python -m linknet_jax.main --mode baselines --config configs/predcls.py:vg150 ...

The same training command in the same workdir resumes. Evaluation takes its configuration from the
checkpoint. FREQ and FREQ+OVERLAP need none: baselines counts and scores them.
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
from absl import flags, logging
from etils import epath
from ml_collections import ConfigDict

from linknet_jax import checkpoints, parallel, settings, validation
from linknet_jax import config as configs
from linknet_jax.baselines import evaluate_baselines
from linknet_jax.command import exit_status
from linknet_jax.evaluate import evaluate
from linknet_jax.train import train


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    wrong_input = (ValueError, OSError, FloatingPointError, ImportError, flags.Error)
    return exit_status(lambda: run(list(sys.argv if argv is None else argv)), wrong_input)


def run(argv: list[str]) -> None:
    """Parses flags, joins the other processes, trains and evaluates."""
    if {"--help", "-h"} & set(argv):
        print(__doc__)
        return
    logging.set_verbosity(logging.ERROR)  # Orbax warns of what the errors here say better
    parallel.initialize_distributed()  # before anything that starts JAX, as checkpoints do
    config, mode, workdir = parse(argv)
    validation.validate(config)
    if mode == "baselines":
        config.model.visual = False  # they see no pixels
        evaluate_baselines(config, workdir)
        return
    validation.check_devices(config, jax.device_count(), mode == "train")
    cache = config.compilation_cache or str(workdir / "jax_cache")
    jax.config.update("jax_compilation_cache_dir", cache)
    if mode == "train" and not train(config, workdir):
        return  # interrupted: saved, to be resumed
    evaluate(config, workdir)


def parse(argv: list[str]) -> tuple[ConfigDict, str, epath.Path]:
    """(configuration, mode, workdir) of a command line; ValueError or absl's flags.Error."""
    values = flags.FlagValues()
    values.set_gnu_getopt(True)
    flags.DEFINE_enum(
        "mode", "train", ["train", "eval", "baselines"], "what to do", flag_values=values
    )
    flags.DEFINE_string("workdir", "", "folder of the run", flag_values=values)
    flags.DEFINE_string("config", "", "configuration file", flag_values=values)
    rest = values(argv, known_only=True)[1:]
    if values.config:
        config = settings.load_config(values.config)
    elif values.mode != "eval":
        raise ValueError(f"--mode {values.mode} needs --config, for example configs/sgcls.py")
    elif not values.workdir:
        raise ValueError("--mode eval needs --workdir, the folder of a training run")
    else:
        config = checkpoints.stored_run(epath.Path(values.workdir), configs.get_default)
    config = settings.override(config, rest)
    workdir = epath.Path(values.workdir or f"runs/{config.name}")
    if values.mode == "eval":
        stored = checkpoints.stored_run(workdir, configs.get_default)
        validation.check_same_model(stored, config)
    return config, values.mode, workdir


if __name__ == "__main__":
    sys.exit(main())
