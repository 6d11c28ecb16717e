"""A checkpoint as a folder that runs with jax and numpy alone (linknet_jax.exported).

linknet export CHECKPOINT OUT [--task sgcls] [--platforms cpu,cuda,tpu] [--batch symbolic|N]
                              [--objects N] [--step best]

OUT gets model.jaxexport (the network), parameters.npz and metadata.json. What is about to be
written is compared with the Predictor first; beyond 1e-5 nothing is written and the status is 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from absl import logging
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import export
from ml_collections import ConfigDict

from linknet_jax import __version__, parallel, pixels, restore
from linknet_jax.atomic import replacing, write_json
from linknet_jax.command import exit_status
from linknet_jax.export import parity
from linknet_jax.exported import FORMAT, METADATA, MODEL, PARAMETERS, SYMBOLIC, Exported
from linknet_jax.predictor import Predictor, tasks_of
from linknet_jax.tasks import Task, create_task
from linknet_jax.types import Batch

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
PHOTOGRAPH = (
    "RGB, upright; padded with `padding` on the right and at the bottom to a square; resized to "
    "image_size by Pillow's BILINEAR; image_sizes is (height, width) of what the photograph then "
    "covers; boxes are x1, y1, x2, y2 of the photograph x image_size / its longer side"
)
Function = Callable[[dict, dict], dict]


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return exit_status(lambda: run(argv), (ValueError, OSError, ImportError))


def run(argv: list[str] | None) -> int:
    """Parses the arguments, exports, checks and writes; 1 where the check fails."""
    arguments = _parser().parse_args(argv)
    logging.set_verbosity(logging.ERROR)  # Orbax warns of what the errors here say better
    out, platforms, batch = arguments.out, arguments.platforms, arguments.batch
    if (out / METADATA).exists():
        raise ValueError(f"{out} holds an exported model already; name a new folder")
    check_platforms(platforms)
    predictor, variables = load(arguments.checkpoint, arguments.step, arguments.objects)
    task = choose(predictor.config, arguments.task)
    model, about = lower(predictor, task, variables, platforms, batch)
    parameters = jax.device_get(flatten_dict(variables, sep="/"))
    agreement = parity.compare(Exported(about, model, parameters), predictor, task)
    print(agreement)
    if not agreement.passed:
        print(f"error: nothing is written to {out}", file=sys.stderr)
        return 1
    write(out, model, parameters, about | {"check": dataclasses.asdict(agreement)})
    sizes = [f"{name} {(out / name).stat().length / 1e6:.1f} MB" for name in (MODEL, PARAMETERS)]
    print(f"{task}, step {predictor.step}, batch {batch}, {', '.join(platforms)}: written to {out}")
    print(f"  {', '.join(sizes)}, {METADATA}")
    return 0


def check_platforms(platforms: tuple[str, ...]) -> None:
    """ValueError for an unknown one, and where none is this machine's: nothing could be checked."""
    unknown, own = set(platforms) - set(PLATFORMS), export.default_export_platform()
    if unknown:
        raise ValueError(f"--platforms {min(unknown)}: must be of {', '.join(PLATFORMS)}")
    if own not in platforms:
        raise ValueError(f"--platforms: add {own}, on which the export is checked here")


def load(checkpoint: epath.Path, step: str, objects: int = 0) -> tuple[Predictor, dict]:
    """The checkpoint's predictor, with room for `objects` boxes an image (0: as in training), and
    its variables."""
    mesh = parallel.create_mesh(devices=jax.local_devices()[:1])
    config, vocabulary, number, variables = restore.load(checkpoint, step, mesh)
    config.data.max_objects = objects or config.data.max_objects
    return Predictor(config, vocabulary, variables, number), variables


def choose(config: ConfigDict, name: str) -> str:
    """The task to export, by default the one that was trained; ValueError for another one."""
    tasks = () if config.task == "detector" else tasks_of(config)
    name = name or [*tasks, ""][0]
    if name not in tasks:
        known = ", ".join(tasks) or "nothing: it is a detector alone, without relations"
        raise ValueError(f"--task {name or 'detector'}: this checkpoint can do {known}")
    return name


def lower(
    predictor: Predictor, name: str, variables: dict, platforms: tuple[str, ...], batch: str | int
) -> tuple[bytes, dict[str, Any]]:
    """The contents of model.jaxexport, and of metadata.json as far as they are known."""
    config, vocabulary = predictor.config, predictor.vocabulary
    inputs = input_shapes(config, name, batch)
    parameters = flatten_dict(jax.tree.map(_shape, variables), sep="/")
    function = function_of(create_task(config, *vocabulary.sizes, name), batch != SYMBOLIC)
    lowered = export.export(jax.jit(function), platforms=platforms)(parameters, inputs)
    outputs = jax.tree.unflatten(lowered.out_tree, lowered.out_avals)
    about = {
        "format": FORMAT,
        "task": name,
        "step": predictor.step,
        "batch": batch,
        "platforms": list(platforms),
        "image_size": config.data.image_size,
        "max_objects": config.data.max_objects,
        "photograph": {"how": PHOTOGRAPH, "padding": list(pixels.PADDING)},
        "thresholds": config.predict.to_dict(),
        "inputs": {key: _described(x) for key, x in inputs.items()},
        "outputs": {key: _described(x) for key, x in outputs.items()},
        "objects": list(vocabulary.objects),
        "predicates": list(vocabulary.predicates),
        "versions": {
            "linknet_jax": __version__,
            **{x.__name__: x.__version__ for x in (jax, jaxlib, np)},
        },
        "config": config.to_dict(),
    }
    return lowered.serialize(), about


def input_shapes(
    config: ConfigDict, name: str, batch: str | int
) -> dict[str, jax.ShapeDtypeStruct]:
    """What the task needs of a batch."""
    rows = export.symbolic_shape("b")[0] if batch == SYMBOLIC else batch
    side, count = config.data.image_size, config.data.max_objects
    shapes = {"images": ((side, side, 3), jnp.uint8)} if config.model.visual else {}
    shapes["image_sizes"] = ((2,), jnp.float32)
    if name != "sgdet":
        shapes |= {"boxes": ((count, 4), jnp.float32), "box_mask": ((count,), jnp.bool_)}
    if name == "predcls":
        shapes["labels"] = ((count,), jnp.int32)
    return {key: jax.ShapeDtypeStruct((rows, *x), dtype) for key, (x, dtype) in shapes.items()}


def function_of(task: Task, together: bool) -> Function:
    """(parameters by path, inputs by name) to outputs by name.

    Without `together` the images go through the network one after the other, which works for any
    number of them: packed rows (ops/packing.py) need to know it.
    """

    def predict(parameters: dict, inputs: dict) -> dict:
        found = task.predict(unflatten_dict(parameters, sep="/"), _batch(inputs))
        named = ((x.name, getattr(found, x.name)) for x in dataclasses.fields(found))
        return {name: value for name, value in named if value is not None}

    def one_by_one(parameters: dict, inputs: dict) -> dict:
        def one(row: dict) -> dict:
            found = predict(parameters, jax.tree.map(lambda x: x[None], row))
            return jax.tree.map(lambda x: x[0], found)

        return jax.lax.map(one, inputs)

    return predict if together else one_by_one


def write(out: epath.Path, model: bytes, parameters: dict, about: dict[str, Any]) -> None:
    """The three files; metadata.json, without which the others are no export, comes last."""
    with replacing(out / MODEL) as partial:
        partial.write_bytes(model)
    with replacing(out / PARAMETERS) as partial, partial.open("wb") as file:
        np.savez(file, **parameters)
    files = {name: _digest(out / name) for name in (MODEL, PARAMETERS)}
    write_json(out / METADATA, about | {"files": files})


def _batch(inputs: dict) -> Batch:
    """With blanks for what the task does not look at."""
    rows = len(inputs["image_sizes"])
    count = inputs["box_mask"].shape[1] if "box_mask" in inputs else 2
    blank = {
        "images": jnp.zeros((rows, 0, 0, 3), jnp.uint8),
        "boxes": jnp.zeros((rows, count, 4)),
        "box_mask": jnp.zeros((rows, count), bool),
        "labels": jnp.zeros((rows, count), jnp.int32),
        "predicates": jnp.zeros((rows, count, count), jnp.int32),
        "image_index": jnp.zeros(rows, jnp.int32),
        "example_mask": jnp.ones(rows, bool),
    }
    return Batch(**(blank | inputs))


def _shape(x: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def _described(x: jax.ShapeDtypeStruct) -> dict[str, Any]:
    """A shape as JSON, the symbolic size as its name."""
    shape = [size if isinstance(size, int) else str(size) for size in x.shape]
    return {"shape": shape, "dtype": x.dtype.name}


def _digest(path: epath.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _images(text: str) -> str | int:
    """A batch size of the command line."""
    if text == SYMBOLIC or (text.isdecimal() and int(text) > 0):
        return text if text == SYMBOLIC else int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is neither {SYMBOLIC} nor a number from 1")


def _parser() -> argparse.ArgumentParser:
    summary, _, rest = __doc__.partition("\n")
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("linknet export", None, summary, rest, formatter_class=raw)
    add = parser.add_argument
    add("checkpoint", type=epath.Path, metavar="CHECKPOINT", help="folder of a training run")
    add("out", type=epath.Path, metavar="OUT", help="new folder")
    add("--task", default="", help="sgdet, sgcls or predcls (default: as trained)")
    add("--platforms", type=lambda x: tuple(x.split(",")), default=("cpu", "cuda", "tpu"),
        help=f"joined by commas, of {', '.join(PLATFORMS)}")  # fmt: skip
    add("--batch", type=_images, default=SYMBOLIC, help="images at once: symbolic (any) or N")
    add("--objects", type=int, default=0, help="boxes an image (default: data.max_objects)")
    add("--step", default="best", help="best, latest or a number")
    return parser


if __name__ == "__main__":
    sys.exit(main())
