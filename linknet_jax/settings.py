"""From a configuration file and `--config.KEY=VALUE` to the configuration tree."""

from __future__ import annotations

import difflib
import os
import re
import runpy
from collections.abc import Collection, Sequence

from absl import flags
from ml_collections import ConfigDict, config_flags

from linknet_jax import config as configs
from linknet_jax.validation import flatten


def load_config(setting: str) -> ConfigDict:
    """The tree of FILE or FILE:VARIANT; ValueError names the file and what is wrong with it."""
    path, _, variant = setting.partition(":")
    if not os.path.isfile(path):
        raise ValueError(f"--config={path}: no such file; take for example configs/sgcls.py")
    try:
        config = runpy.run_path(path)["get_config"](variant)
    except ValueError as error:
        raise ValueError(f"--config={setting}: {error}") from error
    except Exception as error:  # whatever a user's file may do
        raise ValueError(f"--config={path}: {type(error).__name__}: {error}") from error
    if not isinstance(config, ConfigDict):
        raise ValueError(f"--config={path}: get_config must return a ConfigDict, got {config!r}")
    known, given = flatten(configs.get_default("").to_dict()), flatten(config.to_dict())
    problems = [_unknown(key, known) for key in given if key not in known]
    problems += [f"{key} is missing" for key in known if key not in given]
    if problems:
        raise ValueError(f"--config={path}: " + "; ".join(problems))
    return config


def override(config: ConfigDict, arguments: Sequence[str]) -> ConfigDict:
    """The tree with every `--config.KEY=VALUE` applied; ValueError for any other argument."""
    known = flatten(config.to_dict())
    keys = [re.match(r"--?config\.([^=\[]*)", argument) for argument in arguments]
    problems = [_unknown(key[1], known) for key in keys if key and key[1] not in known]
    if problems:
        raise ValueError("--config." + "; --config.".join(problems))
    values = flags.FlagValues()
    values.set_gnu_getopt(True)
    given = config_flags.DEFINE_config_dict(
        "config", config.copy_and_resolve_references(), flag_values=values,
        sys_argv=["", *arguments],
    )  # fmt: skip
    try:
        rest = values(["", *arguments])[1:]
    except flags.UnrecognizedFlagError as error:
        rest = [f"--{error.flagname}"]
    if rest:
        raise ValueError(
            f"{' '.join(rest)!r} is no flag; there are --config FILE, --config.KEY=VALUE, "
            "--mode and --workdir"
        )
    return given.value


def _unknown(key: str, known: Collection[str]) -> str:
    """What is said of a key that does not exist."""
    inside = [name for name in known if name.startswith(f"{key}.")]
    if inside:
        return f"{key} is a section, set one of its keys: {', '.join(inside)}"
    last = key.rpartition(".")[2]
    near = [name for name in known if name.rpartition(".")[2] == last]
    near += [n for n in difflib.get_close_matches(key, known, 3, 0.7) if n not in near]
    return f"{key} is no setting; " + (
        f"nearest: {', '.join(near)}" if near else "linknet_jax/config.py lists all"
    )
