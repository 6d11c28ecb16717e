"""From one layout of files to another: `python -m linknet_jax.data convert`."""

from __future__ import annotations

from etils import epath

from linknet_jax.data import files
from linknet_jax.data.check import summary
from linknet_jax.data.collection import Collection, raise_errors

RECORDS = "tfds"


def convert(source: epath.Path, target: epath.Path, format: str, images: str = "") -> None:
    """Reads `source` in the layout it has and writes `target` in the layout `format`.

    Prints what was kept and what the target's layout cannot hold. `images` names the folders of
    the photographs, joined by commas, where a layout needs their sizes. Only records (format tfds)
    hold a copy of the photographs, which must lie beside the source's files. ValueError for an
    unknown layout, a target that is not empty, data with errors, and where what was written has
    some by the rules of its layout.
    """
    if format not in (*files.FORMATS, RECORDS):
        raise ValueError(f"format {format!r} must be one of {', '.join(files.FORMATS)}, {RECORDS}")
    check_new(target)
    if format == RECORDS and images:
        raise ValueError(f"records take photographs from {source} itself: put {images!r} there")
    collection, photographs = files.load("custom", str(source), images)
    raise_errors(collection.findings)
    if format == RECORDS:
        from linknet_jax.data.tfds.prepare import prepare  # imports TensorFlow

        print(f"records for --config.data.name=tfds --config.data.dir={prepare(source, target)}")
        return
    lost = files.FORMATS[format].write(collection, target)
    print("\n".join([*summary(collection), *_warnings(collection, source), *_lost(lost, format)]))
    raise_errors(files.FORMATS[format].read(target, photographs).findings)


def check_new(target: epath.Path) -> None:
    """ValueError where something is at `target` already, except an empty folder."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{target} is not an empty folder; name a new one")


def _warnings(collection: Collection, source: epath.Path) -> list[str]:
    count = len(collection.findings)
    listed = f"python -m linknet_jax.data check {source}"
    return [f"{count:,} warnings, which `{listed}` lists"] if count else []


def _lost(sentences: list[str], format: str) -> list[str]:
    if not sentences:
        return [f"nothing was lost in the layout {format}"]
    return [f"lost in the layout {format}: {sentence}" for sentence in sentences]
