"""An exported model: runs where there are jax, numpy, flatbuffers, and Pillow for photographs.

    from linknet_jax.exported import Exported
    graph = Exported.load("exported").graph("photograph.jpg", boxes=[[10, 20, 90, 200], ...])

Nothing else of this package is imported than pixels.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax import export

if TYPE_CHECKING:
    from jaxtyping import UInt8

FORMAT = 1
MODEL, PARAMETERS, METADATA = "model.jaxexport", "parameters.npz", "metadata.json"
SYMBOLIC = "symbolic"


class Exported:
    """A model on the default device; any number of threads may call it.

    Attributes:
      metadata: the contents of metadata.json (docs/export.md).
      thresholds: least, object_least and top of `record`; may be changed.
    """

    def __init__(self, metadata: dict, model: bytes, parameters: Mapping[str, np.ndarray]):
        """`model` is the contents of model.jaxexport; ValueError where this machine cannot run it,
        ImportError without flatbuffers."""
        self.metadata, self.thresholds = metadata, dict(metadata["thresholds"])
        self._run = jax.jit(_read(model, metadata).call)
        self._parameters = jax.device_put(dict(parameters))

    @classmethod
    def load(cls, folder: str | os.PathLike) -> Exported:
        """Of a local folder that `linknet export` wrote; ValueError if it is damaged or of another
        version."""
        folder = pathlib.Path(folder)
        metadata = _metadata(folder)
        for name, digest in metadata["files"].items():
            _check_file(folder / name, digest)
        with np.load(folder / PARAMETERS) as stored:
            return cls(metadata, (folder / MODEL).read_bytes(), dict(stored))

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs of a batch by name; metadata lists the inputs and outputs.

        Each new number of images compiles once, unless the batch is fixed: then fewer are filled
        up. ValueError for inputs of other names, shapes or types.
        """
        inputs = {name: np.asarray(x) for name, x in inputs.items()}
        rows, batch = self._rows(inputs), self.metadata["batch"]
        missing = 0 if batch == SYMBOLIC else batch - rows
        filled = {name: _fill(x, missing) for name, x in inputs.items()}
        found = self._run(self._parameters, filled)
        return {name: np.asarray(x)[:rows] for name, x in found.items()}

    def graph(
        self,
        photograph: Any,
        boxes: Sequence | None = None,
        labels: Sequence[str] | None = None,
        image_id: int | str | None = None,
    ) -> dict[str, Any]:
        """The scene graph of one photograph, as `Predictor(..).to_dict()`; arguments as `inputs`.

        Without `image_id` it is the name of the file, 0 where there is none.
        """
        if image_id is None:
            named = isinstance(photograph, (str, os.PathLike))
            image_id = os.path.basename(os.fspath(photograph)) if named else 0
        inputs, size = self.inputs(photograph, boxes, labels)
        return self.record(self(**inputs), size, boxes, image_id)

    def inputs(
        self, photograph: Any, boxes: Sequence | None = None, labels: Sequence[str] | None = None
    ) -> tuple[dict[str, np.ndarray], tuple[int, int]]:
        """The inputs of one photograph, to be concatenated to a batch, and its (width, height).

        `photograph`: a file, a Pillow image, or uint8 pixels [h, w, 3]. `boxes` [n, 4]: x1, y1, x2,
        y2 in its pixels; `labels`: a class name a box. Needs Pillow. ValueError for what the model
        needs and does not get, more boxes than it has room for, and unknown classes.
        """
        from linknet_jax.pixels import resize_and_pad

        image = _upright(photograph)
        pixels, covered, scale = resize_and_pad(image, self.metadata["image_size"])
        found = {"images": pixels, "image_sizes": covered, **self._boxes(boxes, scale)}
        found["labels"] = self._labels(labels, boxes)
        height, width = image.shape[:2]
        return {name: found[name][None] for name in self.metadata["inputs"]}, (width, height)

    def record(
        self,
        outputs: Mapping[str, np.ndarray],
        size: tuple[int, int],
        boxes: Sequence | None = None,
        image_id: int | str = 0,
        row: int = 0,
    ) -> dict[str, Any]:
        """Row `row` of the outputs as a record of scene-graph JSON Lines, cut by the thresholds.

        `size` is the photograph's (width, height); `boxes` as given to `inputs`.
        """
        found = {name: x[row] for name, x in outputs.items()}
        if "boxes" in found:
            unscaled = max(size) / self.metadata["image_size"]
            boxes = np.float64(found["boxes"][: found["box_count"]]) * unscaled
        objects, place = self._objects(found, _corners(boxes))
        sizes = {"width": size[0], "height": size[1]}
        relations = self._relations(found, place)[: self.thresholds["top"]]
        return {"image_id": image_id, **sizes, "objects": objects, "relations": relations}

    def _objects(self, found: dict, boxes: np.ndarray) -> tuple[list[dict], dict[int, int]]:
        """Objects of at least `object_least`, and the place of each in the list."""
        names, scores = self.metadata["objects"], _shortest(found["label_scores"])
        kept = [i for i in range(len(boxes)) if scores[i] >= self.thresholds["object_least"]]
        objects = [
            {"box": boxes[i].tolist(), "label": names[found["labels"][i]], "score": scores[i]}
            for i in kept
        ]
        return objects, {old: new for new, old in enumerate(kept)}

    def _relations(self, found: dict, place: dict[int, int]) -> list[dict]:
        """The best relation of every pair of objects that are kept."""
        names, rows = self.metadata["predicates"], slice(int(found["count"]))
        listed = zip(
            found["pairs"][rows].tolist(), found["predicates"][rows], _shortest(found["scores"]),
            strict=False,
        )  # fmt: skip
        return [
            {"subject": place[s], "predicate": names[p], "object": place[o], "score": score}
            for (s, o), p, score in listed
            if score >= self.thresholds["least"] and s in place and o in place
        ]

    def _rows(self, inputs: Mapping[str, np.ndarray]) -> int:
        """How many images the inputs hold."""
        wanted, batch = self.metadata["inputs"], self.metadata["batch"]
        if inputs.keys() != wanted.keys():
            raise ValueError(f"inputs {sorted(inputs)}; this model takes {', '.join(wanted)}")
        rows = len(inputs["image_sizes"])
        for name, about in wanted.items():
            has, needs = inputs[name], [rows, *about["shape"][1:]]
            if list(has.shape) != needs or has.dtype != about["dtype"]:
                raise ValueError(
                    f"{name}: {has.dtype} {list(has.shape)}; must be {about['dtype']} {needs}"
                )
        if rows < 1 or (batch != SYMBOLIC and rows > batch):
            most = "1 image or more" if batch == SYMBOLIC else f"1 to {batch} images"
            raise ValueError(f"a batch of {rows} images; this model takes {most} at once")
        return rows

    def _boxes(self, boxes: Sequence | None, scale: float) -> dict[str, np.ndarray]:
        """Boxes in pixels of the network input, padded, and which of them are real."""
        if "boxes" not in self.metadata["inputs"]:
            if boxes is not None:
                raise ValueError("this model finds boxes itself (sgdet): give none")
            return {}
        if boxes is None:
            raise ValueError(f"this model needs boxes ({self.metadata['task']})")
        corners, room = _corners(boxes), self.metadata["max_objects"]
        if len(corners) > room:
            raise ValueError(
                f"{len(corners)} boxes, but this model has room for {room}: export the checkpoint "
                f"again with --objects {len(corners)}"
            )
        padded = np.zeros((room, 4), np.float32)
        padded[: len(corners)] = corners * scale
        return {"boxes": padded, "box_mask": np.arange(room) < len(corners)}

    def _labels(self, labels: Sequence[str] | None, boxes: Sequence | None) -> np.ndarray | None:
        """Class numbers, padded."""
        if "labels" not in self.metadata["inputs"]:
            return None
        if labels is None or len(labels) != len(boxes):
            raise ValueError("this model needs a class name for every box (predcls)")
        known = {name: i for i, name in enumerate(self.metadata["objects"]) if i}
        for name in labels:
            if name not in known:
                raise ValueError(f"the model has no class {name!r}; metadata lists `objects`")
        padded = np.zeros(self.metadata["max_objects"], np.int32)
        padded[: len(labels)] = [known[name] for name in labels]
        return padded


def _metadata(folder: pathlib.Path) -> dict:
    try:
        metadata = json.loads((folder / METADATA).read_text())
    except FileNotFoundError as error:
        raise ValueError(f"{folder} has no {METADATA}: no complete export; run it again") from error
    except ValueError as error:
        raise _damaged(folder / METADATA, error) from error
    found = metadata.get("format") if isinstance(metadata, dict) else None
    if found != FORMAT:
        raise ValueError(
            f"{folder / METADATA} has format {found}, this version of linknet_jax reads {FORMAT}: "
            "install the version of the export, or export the checkpoint again"
        )
    return metadata


def _check_file(path: pathlib.Path, digest: str) -> None:
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise _damaged(path, "it is missing") from error
    if found != digest:
        raise _damaged(path, "its contents are not those that were exported")


def _damaged(path: pathlib.Path, reason: object) -> ValueError:
    return ValueError(f"{path} is damaged: {reason}; copy the folder again, or export again")


def _read(model: bytes, metadata: dict) -> export.Exported:
    """The artefact, if it runs on this machine."""
    try:
        function = export.deserialize(bytearray(model))
    except ImportError as error:
        raise ImportError("reading an exported model needs: pip install flatbuffers") from error
    except Exception as error:
        raise ValueError(
            f"jax {jax.__version__} cannot read a model that jax {metadata['versions']['jax']} "
            f"exported ({error}): install that version, or export the checkpoint again"
        ) from error
    platform = export.default_export_platform()
    if platform not in function.platforms:
        raise ValueError(
            f"exported for {', '.join(function.platforms)}, but this machine has {platform}: set "
            f"JAX_PLATFORMS, or export again with --platforms {platform}"
        )
    return function


def _upright(photograph: Any) -> UInt8[np.ndarray, "h w 3"]:
    """RGB pixels of a file, a Pillow image or an array; raises pixels.ImageError."""
    from PIL import Image, ImageOps

    from linknet_jax import pixels

    if isinstance(photograph, np.ndarray):
        photograph = pixels.picture(photograph)
    try:
        if not isinstance(photograph, Image.Image):
            photograph = pixels.open_image(photograph)
        pixels.check_size(photograph)
        return np.asarray(pixels.to_rgb(ImageOps.exif_transpose(photograph)))
    except Exception as error:
        raise pixels.unreadable(str(photograph), error) from error


def _corners(boxes: Sequence) -> np.ndarray:
    """float64 [n, 4]."""
    corners = np.asarray(boxes, np.float64)
    if not corners.size:
        return np.zeros((0, 4))
    if corners.ndim != 2 or corners.shape[1] != 4 or not np.isfinite(corners).all():
        raise ValueError(f"boxes of shape {list(corners.shape)}: must be finite numbers [n, 4]")
    if (corners[:, 2:] < corners[:, :2]).any():
        raise ValueError("boxes must be [x1, y1, x2, y2] with x2 >= x1 and y2 >= y1")
    return corners


def _fill(x: np.ndarray, rows: int) -> np.ndarray:
    """`rows` further rows of zeros."""
    return np.pad(x, [(0, rows)] + [(0, 0)] * (x.ndim - 1)) if rows else x


def _shortest(values: np.ndarray) -> list[float]:
    """Floats whose decimals are as few as float32 needs."""
    return [float(text) for text in values.astype(str)]
