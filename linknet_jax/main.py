"""Train or evaluate LinkNet.

  python -m linknet_jax.main --config configs/sgcls.py [--workdir DIR] [--config.KEY=VALUE ...]
  python -m linknet_jax.main --mode eval --workdir DIR [--config.data.dir=DIR ...]

The same training command in the same workdir resumes. Evaluation takes its configuration from the
checkpoint.
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
from absl import flags
from etils import epath
from ml_collections import ConfigDict, config_flags

from linknet_jax import checkpoints, parallel, validation
from linknet_jax import config as configs
from linknet_jax.evaluate import evaluate
from linknet_jax.train import train


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status. A wrong input is a message, not a traceback."""
    try:
        run(list(sys.argv if argv is None else argv))
    except (ValueError, OSError, FloatingPointError, flags.Error) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def run(argv: list[str]) -> None:
    """Parses flags, joins the other processes, trains and evaluates."""
    if {"--help", "-h"} & set(argv):
        print(__doc__)
        return
    parallel.initialize_distributed()  # before anything that starts JAX, as checkpoints do
    config, mode, workdir = parse(argv)
    validation.validate(config)
    validation.check_devices(config, jax.device_count())
    cache = config.compilation_cache or str(workdir / "jax_cache")
    jax.config.update("jax_compilation_cache_dir", cache)
    if mode == "train" and not train(config, workdir):
        return  # interrupted: saved, to be resumed
    evaluate(config, workdir)


def parse(argv: list[str]) -> tuple[ConfigDict, str, epath.Path]:
    """(configuration, mode, workdir) of a command line."""
    known = _flags()
    flags.DEFINE_string("config", None, "", flag_values=known)
    known(argv, known_only=True)
    values, stored = _flags(), None
    if known.mode == "eval" and not known.config:
        if not known.workdir:
            raise ValueError("--mode eval needs --workdir, the folder of a training run")
        stored = checkpoints.stored_run(epath.Path(known.workdir), configs.get_default)
        given = config_flags.DEFINE_config_dict(
            "config", stored.copy_and_resolve_references(), flag_values=values, sys_argv=argv
        )
    elif known.config:
        given = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    else:
        raise ValueError("training needs --config, for example --config configs/sgcls.py")
    rest = _parse(values, argv)
    if rest:
        raise ValueError(f"{' '.join(rest)!r} is no flag; settings are --config.KEY=VALUE")
    if stored is not None:
        validation.check_same_model(stored, given.value)
    return given.value, values.mode, epath.Path(values.workdir or f"runs/{given.value.name}")


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_enum("mode", "train", ["train", "eval"], "what to do", flag_values=values)
    flags.DEFINE_string("workdir", None, "folder of the run", flag_values=values)
    return values


def _parse(values: flags.FlagValues, argv: list[str]) -> list[str]:
    """The arguments that are no flags; a mistyped key becomes a ValueError with its neighbours."""
    try:
        return values(argv)[1:]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"command line: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
