"""The console script `linknet VERB ...`: the same functions as the modules."""

from __future__ import annotations

import sys

from linknet_jax import compare, main, score
from linknet_jax.data import __main__ as data

USAGE = """usage: linknet VERB ...

  linknet train --config configs/sgcls.py ...   as python -m linknet_jax.main
  linknet eval --workdir DIR ...                as python -m linknet_jax.main --mode eval
  linknet score --task sgcls ...                as python -m linknet_jax.score
  linknet compare WORKDIR_A WORKDIR_B           as python -m linknet_jax.compare
  linknet data check FOLDER                     as python -m linknet_jax.data
"""


def run() -> int:
    """Runs the verb; returns the exit status."""
    verb, rest = [*sys.argv, ""][1], sys.argv[2:]
    if verb in ("train", "eval"):
        return main.main(["linknet", f"--mode={verb}", *rest])
    tools = {"score": score.main, "compare": compare.main, "data": data.main}
    if verb in tools:
        return tools[verb](rest)
    print(USAGE, file=sys.stderr)
    return 0 if verb in ("-h", "--help") else 2
