"""A checkpoint without what only training needs: a small folder to predict and evaluate with.

python -m linknet_jax.strip WORKDIR OUT [--step best]

OUT/checkpoints/STEP holds the parameters (the averaged ones, if the run averaged), class names and
configuration, and none of the optimizer: a third of AdamW's checkpoint.
"""

from __future__ import annotations

import argparse
import sys

import jax
from etils import epath

from linknet_jax import parallel, restore
from linknet_jax.checkpoints import Checkpoints
from linknet_jax.command import exit_status


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return exit_status(lambda: run(argv))


def run(argv: list[str] | None) -> None:
    """Parses the arguments, strips, and says what to do next."""
    summary, _, rest = __doc__.partition("\n")
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="linknet_jax.strip", description=summary, epilog=rest, formatter_class=raw
    )
    parser.add_argument("workdir", type=epath.Path, help="folder of a training run")
    parser.add_argument("out", type=epath.Path, help="new folder")
    parser.add_argument("--step", default="best", help="best, latest or a number")
    arguments = parser.parse_args(argv)
    step = strip(arguments.workdir, arguments.out, arguments.step)
    print(f"step {step} written to {arguments.out}; evaluate it with")
    print(f"  python -m linknet_jax.main --mode eval --workdir {arguments.out}")


def strip(workdir: epath.Path, out: epath.Path, step: str = "best") -> int:
    """Writes OUT/checkpoints/STEP; returns the step. ValueError where OUT holds checkpoints."""
    folder = out / "checkpoints"
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} holds checkpoints already; name a new folder")
    mesh = parallel.create_mesh(devices=jax.local_devices()[:1])
    config, names, number, variables = restore.load(workdir, step, mesh)
    config.train.ema = 0.0  # what is stored is the average
    constants = {name: x for name, x in variables.items() if name != "params"}
    items = {"params": variables["params"]} | ({"constants": constants} if constants else {})
    vocabulary = {"objects": list(names.objects), "predicates": list(names.predicates)}
    with Checkpoints(out, keep=1) as saved:
        saved.save(number, items, None, {"config": config.to_dict(), "vocabulary": vocabulary})
    return number


if __name__ == "__main__":
    sys.exit(main())
