"""Data sets that lie in files: annotations of any layout, and photographs."""

from __future__ import annotations

import functools

from etils import epath
from ml_collections import ConfigDict

from linknet_jax.data import splits
from linknet_jax.data.batching import Example
from linknet_jax.data.collection import Collection, raise_errors
from linknet_jax.data.formats import coco, jsonl, visual_genome, vrd
from linknet_jax.data.from_first import from_first
from linknet_jax.data.photographs import Photographs, photograph_name, photographs_of
from linknet_jax.data.transforms import ImageError, covered, load_image
from linknet_jax.types import Annotation

# In the order in which `detect` asks them: VRD's file names look like COCO's.
FORMATS = {"visual_genome": visual_genome, "vrd": vrd, "coco": coco, "jsonl": jsonl}


class Files:
    """One split of a data set in files.

    Attributes:
      vocabulary: class names of the files, after the background.
      annotations: the split's images, in the order of the files.
      truth: None.
    """

    truth = None

    def __init__(self, config: ConfigDict, split: str, pixels: bool = True):
        """`config` is the tree's `data`; ValueError for wrong files and absent photographs."""
        collection, self._photographs = load(config.name, config.dir, config.images)
        raise_errors(collection.findings)
        self.vocabulary, self._relative = collection.vocabulary, collection.relative
        self.annotations = splits.choose(collection, split, config)
        self._size = config.image_size
        if pixels:
            self._photographs = from_first(self._present)

    def example(self, index: int, flip: bool = False) -> Example:
        """Pixels, (height, width) that they cover, scale; see `transforms.load_image`.

        ImageError where the photograph is gone, unreadable or not the annotated one (`fit`).
        """
        annotation = self.annotations[index]
        name = photograph_name(annotation)
        path = self._photographs.find(name)
        if path is None:
            raise ImageError(_missing([name], 1, self._photographs))
        return fit(load_image(path, self._size, flip), annotation, self._size, self._relative)

    def _present(self) -> Photographs:
        """The folders, listed; ValueError where they lack a photograph of the split."""
        missing = []
        for name in map(photograph_name, self.annotations):
            places = self._photographs.places(name)
            missing += [] if places else [name]
            if len(places) > 1 and len({p.stat().length for p in places}) > 1:
                raise ValueError(
                    f"{places[0]} and {places[1]} differ, and either may be the photograph "
                    f"{name!r}: set --config.data.images to the folder of the right ones"
                )
        if missing:
            raise ValueError(_missing(missing, len(self.annotations), self._photographs))
        return self._photographs


def load(name: str, folder: str, images: str = "") -> tuple[Collection, Photographs]:
    """The files of a folder and where its photographs are; read once while they do not change.

    `name` is a layout of FORMATS, or custom to recognise it; ValueError for another one.
    """
    if name not in (*FORMATS, "custom"):
        known = ", ".join(["synthetic", *FORMATS, "tfds", "custom"])
        raise ValueError(f"data.name {name!r} must be one of {known}")
    if not folder:
        raise ValueError(f"data.name={name} needs a folder of files: set --config.data.dir=FOLDER")
    path = epath.Path(folder)
    if not path.is_dir():
        raise ValueError(f"data.dir={folder!r} is no folder; set --config.data.dir=FOLDER")
    return _load(name, path, images, from_first(lambda: _stamp(path)))


@functools.lru_cache(maxsize=2)
def _load(name: str, path: epath.Path, images: str, stamp: tuple) -> tuple[Collection, Photographs]:
    del stamp  # another one is another key

    def read() -> tuple[Collection, Photographs]:
        photographs = photographs_of(path, images)
        layout = detect(path) if name == "custom" else name
        return FORMATS[layout].read(path, photographs), photographs

    return from_first(read)


def _stamp(path: epath.Path) -> tuple:
    """Names and times of the files and of the folders, whose time tells of added photographs."""
    listed = [p for p in path.iterdir() if p.suffix in (".json", ".h5", ".jsonl", ".gz", "")]
    return tuple(sorted((p.name, p.stat().mtime) for p in listed))


def detect(folder: epath.Path) -> str:
    """Which layout a folder has; ValueError where it has none."""
    for name, layout in FORMATS.items():
        if layout.recognises(folder):
            return name
    raise ValueError(
        f"{folder}: no data set of a known layout ({', '.join(FORMATS)}); docs/data.md says which "
        "files each of them has"
    )


def fit(loaded: Example, annotation: Annotation, size: int, relative: bool) -> Example:
    """The example with the annotation's scale; ImageError where the photograph is another one.

    Boxes that are `relative` are parts of the longer side, whatever size is stated: they fit every
    photograph.
    """
    pixels, valid, scale = loaded
    stated, stated_scale = covered(annotation.width, annotation.height, size)
    if not relative and (scale != stated_scale or (valid != stated).any()):
        raise ImageError(
            f"image {annotation.image_id!r} ({photograph_name(annotation)!r}) is not of "
            f"{annotation.width} x {annotation.height} pixels, for which its boxes are annotated; "
            "take the photograph of that size, upright"
        )
    return pixels, valid, stated_scale


def _missing(names: list[str], total: int, photographs: Photographs) -> str:
    return (
        f"{len(names)} of {total} photographs are missing, the first is {names[0]!r}; searched in "
        f"{photographs}: set --config.data.images=FOLDER,FOLDER or train without pixels "
        "(--config.model.visual=False)"
    )
