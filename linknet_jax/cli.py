"""The console script `linknet VERB ...`: the same functions as the modules."""

from __future__ import annotations

import sys

from linknet_jax import main as entry

VERBS = ("train", "eval")


def main() -> int:
    """`linknet train --config FILE` and `linknet eval --workdir DIR`; returns the exit status."""
    verb, rest = [*sys.argv, ""][1], sys.argv[2:]
    if verb not in VERBS:
        print(f"usage: linknet {{{','.join(VERBS)}}} ...\n\n{entry.__doc__}", file=sys.stderr)
        return 0 if verb in ("-h", "--help") else 2
    return entry.main(["linknet", f"--mode={verb}", *rest])
