"""A checkpoint of a tiny untrained model, photographs, and the data set that they are."""

from __future__ import annotations

import contextlib
import json

import jax
import numpy as np
import tiny
from etils import epath
from jax.experimental.compilation_cache import compilation_cache
from PIL import Image

from linknet_jax.checkpoints import Checkpoints
from linknet_jax.config import get_default
from linknet_jax.types import Vocabulary

NAMES = Vocabulary(("__background__", *"abcd"), ("__background__", "on", "in", "at"))


def create_config(task: str = "sgcls", **overrides):
    config = get_default(task)
    config.update_from_flattened_dict(tiny.SIZES)
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in overrides.items()})
    return config


@contextlib.contextmanager
def quick_compiles(cache):
    """Programs without optimizations, each compiled once."""
    quick = {
        "jax_disable_most_optimizations": (True, False),
        "jax_compilation_cache_dir": (str(cache), None),
        "jax_persistent_cache_min_compile_time_secs": (0.0, 1.0),
    }
    for name, (value, _) in quick.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        for name, (_, default) in quick.items():
            jax.config.update(name, default)
        compilation_cache.reset_cache()


def save_checkpoint(folder, task: str = "sgcls", settings=None, **overrides) -> epath.Path:
    """A run's folder with the step 3; `settings` are those that variables do not depend on."""
    config = create_config(task, **overrides)
    config.update_from_flattened_dict(settings or {})
    variables = tiny.calm(tiny.variables(task, **overrides))
    items = {"params": variables["params"]}
    if others := {k: v for k, v in variables.items() if k != "params"}:
        items["constants"] = others
    about = {
        "config": config.to_dict(),
        "vocabulary": {"objects": NAMES.objects, "predicates": NAMES.predicates},
    }
    with Checkpoints(epath.Path(folder), keep=1) as saved:
        saved.save(3, jax.tree.map(jax.numpy.asarray, items), None, about)
    return epath.Path(folder)


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """Blobs of colour, all different."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def scene(name: str, width: int, height: int, count: int, seed: int) -> dict:
    """A line of scene-graph JSON Lines."""
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.random((count, 2, 2)), axis=1).reshape(count, 4)
    boxes = corners * np.array([width, height, width, height])
    objects = [{"box": b, "label": str(rng.choice([*"abcd"]))} for b in boxes.round(2).tolist()]
    related = [{"subject": 0, "predicate": "on", "object": 1}] if count > 1 else []
    sizes = {"width": width, "height": height}
    return {"image_id": name, "file_name": name, **sizes, "objects": objects, "relations": related}


def save_photographs(folder, sizes=((60, 40), (31, 77), (32, 32), (200, 90), (45, 44))) -> list:
    """Photographs in FOLDER/images and FOLDER/test.jsonl, their lines, which are returned."""
    folder = epath.Path(folder)
    (folder / "images").mkdir(parents=True)
    lines = []
    for number, (width, height) in enumerate(sizes):
        name = f"{number}.png"
        photograph(width, height, number).save(folder / "images" / name)
        lines.append(scene(name, width, height, 2 + number, number))
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "test.jsonl").write_text(text)
    names = {"objects": NAMES.objects[1:], "predicates": NAMES.predicates[1:]}
    (folder / "vocabulary.json").write_text(json.dumps(names))
    return lines
