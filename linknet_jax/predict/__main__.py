"""Scene graphs of photographs and videos.

python -m linknet_jax.predict CHECKPOINT INPUT... [--boxes FILE] [--output graphs]

CHECKPOINT is a training run's folder. INPUT is a photograph, a video, a folder with the folders in
it, or a quoted pattern. The output folder gets graphs.jsonl, one line an image, pictures beside it,
and errors.txt, if there were any. The same command goes on after a stop: images that have a line
and the pictures that are asked for are skipped. Two inputs of one name are refused.
"""

from __future__ import annotations

import argparse
import math
import os
import pathlib
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from etils import epath

from linknet_jax.command import exit_status
from linknet_jax.predict import inputs, video
from linknet_jax.predict.given import Given

if TYPE_CHECKING:
    from linknet_jax.predictor import Predictor

FORMATS = ("json", "png", "svg", "html", "dot")  # json is graphs.jsonl, which is always written
TASKS = ("sgdet", "sgcls", "predcls")


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status: 1 where images failed, 2 for wrong usage."""
    arguments = _parser().parse_args(argv)
    return exit_status(lambda: run(arguments))


def run(a: argparse.Namespace) -> int:
    """Checks what needs no model, loads it, predicts, and says what became of the images."""
    if a.task == "sgdet" and a.boxes:
        raise ValueError("--task sgdet finds boxes itself; leave out --boxes, or take sgcls")
    files = inputs.find(a.inputs, a.output)
    if any(map(inputs.is_video, files)):
        video.require()
    given = Given(a.boxes) if a.boxes else None
    predictor = _load(a)
    task = predictor.task(a.task, given is not None, given is not None and a.task == "predcls")
    from linknet_jax.predict.bulk import Bulk
    from linknet_jax.predict.graph_folder import GraphFolder

    settings = {
        "checkpoint": os.path.abspath(a.checkpoint), "step": predictor.step, "task": task,
        "boxes": str(a.boxes or ""), "top": a.top, "least": a.least,
    }  # fmt: skip
    with GraphFolder(a.output, a.format, settings, _wanted(files), a.top) as folder:
        bulk = Bulk(predictor, task, folder, given, a.fps, a.batch)
        bulk.run(files)
    print(f"graphs written to {a.output}: {bulk.written}; skipped, as done before: {bulk.skipped}")
    if bulk.failed:
        print(f"failed: {bulk.failed}, see {a.output / 'errors.txt'}", file=sys.stderr)
    return int(bulk.failed > 0)


def _load(a: argparse.Namespace) -> Predictor:
    """JAX is imported here, when the inputs are known to be right."""
    import jax
    from absl import logging
    from PIL import Image

    from linknet_jax.predictor import Predictor

    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # it is an error of the image
    logging.set_verbosity(logging.ERROR)  # Orbax warns of what the errors here say better
    cache = a.checkpoint / "jax_cache"
    writable = "://" in str(cache) or os.access(a.checkpoint, os.W_OK)
    if writable and a.checkpoint.is_dir() and not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    limits = {name: getattr(a, name) for name in ("top", "least")}
    limits = {name: value for name, value in limits.items() if value is not None}
    return Predictor.from_checkpoint(a.checkpoint, a.step, **limits)


def _wanted(files: Sequence[epath.Path]) -> Callable[[str], bool]:
    """Whether a name is that of an image of these files."""
    images = {p.name for p in files if not inputs.is_video(p)}
    videos = {p.stem for p in files if inputs.is_video(p)}
    return lambda name: name in images or re.sub(r"_\d+ms$", "", name) in videos


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m linknet_jax.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, file = parser.add_argument, epath.Path
    add("checkpoint", type=file, metavar="CHECKPOINT")
    add("inputs", nargs="+", metavar="INPUT")
    text = "JSON Lines with each image's boxes (docs/evaluation.md), by file name or stem"
    add("--boxes", type=file, metavar="FILE", help=text)
    text = "default: sgdet, with --boxes sgcls, which ignores their labels; predcls takes them"
    add("--task", choices=TASKS, default="", help=text)
    add("--output", type=_folder, default="graphs", help="local folder (default: graphs)")
    text = f"of {', '.join(FORMATS)} (default: json,png); json is always written"
    add("--format", type=_formats, default="json,png", help=text)
    text = "relations of an image (default: the checkpoint's predict.top; in pictures 20)"
    add("--top", type=_number, help=text)
    add("--least", type=float, help="score from which a relation counts (default: checkpoint's)")
    add("--batch", type=_number, default=8, help="images at once (default: 8)")
    add("--step", default="best", help="best, latest or a number (default: best)")
    add("--fps", type=_rate, default=1.0, help="frames a second of videos (default: 1)")
    return parser


def _folder(text: str) -> pathlib.Path:
    if "://" in text:
        raise argparse.ArgumentTypeError(f"{text!r} must be a local folder; copy it afterwards")
    return pathlib.Path(text)


def _formats(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in FORMATS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(FORMATS)}")
    return names


def _number(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from 1")
    return int(text)


def _rate(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and 0 < value <= 1000):
        raise argparse.ArgumentTypeError(f"{text!r} must be a rate above 0, at most 1000")
    return value


if __name__ == "__main__":
    sys.exit(main())
