"""The console script `linknet VERB ...`: the same functions as the modules."""

from __future__ import annotations

import importlib
import sys

USAGE = """usage: linknet VERB ...

  linknet train --config configs/sgcls.py ...   as python -m linknet_jax.main
  linknet eval --workdir DIR ...                as python -m linknet_jax.main --mode eval
  linknet predict CHECKPOINT INPUT ...          as python -m linknet_jax.predict
  linknet demo CHECKPOINT                       as python -m linknet_jax.demo
  linknet export CHECKPOINT OUT                 as python -m linknet_jax.export
  linknet checks                                as python -m linknet_jax.checks
  linknet score --task sgcls ...                as python -m linknet_jax.score
  linknet compare WORKDIR_A WORKDIR_B           as python -m linknet_jax.compare
  linknet import SOURCE OUT                     as python -m linknet_jax.import_weights
  linknet strip WORKDIR OUT                     as python -m linknet_jax.strip
  linknet data check FOLDER                     as python -m linknet_jax.data
"""


MODULES = {
    "train": "linknet_jax.main",
    "eval": "linknet_jax.main",
    "predict": "linknet_jax.predict.__main__",
    "demo": "linknet_jax.demo.__main__",
    "export": "linknet_jax.export.__main__",
    "checks": "linknet_jax.checks.__main__",
    "score": "linknet_jax.score",
    "compare": "linknet_jax.compare",
    "import": "linknet_jax.import_weights",
    "strip": "linknet_jax.strip",
    "data": "linknet_jax.data.__main__",
}


def run() -> int:
    """Runs the verb; returns the exit status."""
    verb, rest = [*sys.argv, ""][1], sys.argv[2:]
    if verb not in MODULES:
        print(USAGE, file=sys.stderr)
        return 0 if verb in ("-h", "--help") else 2
    command = importlib.import_module(MODULES[verb])  # only then: training's imports take seconds
    return command.main(["linknet", f"--mode={verb}", *rest] if verb in ("train", "eval") else rest)
