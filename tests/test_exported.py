"""The loader: what it imports, what it refuses, and that it prepares images as training does."""

import json
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from linknet_jax import exported as loader
from linknet_jax.data.transforms import load_image
from linknet_jax.exported import Exported

ROOT = pathlib.Path(__file__).parents[1]
SIDE, ROOM = 8, 3
SHAPES = {
    "images": ((SIDE, SIDE, 3), np.uint8),
    "image_sizes": ((2,), np.float32),
    "boxes": ((ROOM, 4), np.float32),
    "box_mask": ((ROOM,), bool),
}


def function(parameters, inputs):
    """A model of one weight: ranks the pairs (1, 0) and (0, 1)."""
    rows, weight = inputs["image_sizes"].shape[0], parameters["params/w"]
    mean = inputs["images"].astype(jnp.float32).mean((1, 2, 3)) * 0 + weight
    ones = jnp.ones((rows, 1), jnp.int32)
    return {
        "labels": inputs["box_mask"] * jnp.array([[1, 2, 1]]),
        "label_scores": inputs["box_mask"] * jnp.array([[0.9, 0.8, 0.1]]) * mean[:, None],
        "pairs": jnp.tile(jnp.array([[[1, 0], [0, 2], [0, 1]]]), (rows, 1, 1)),
        "predicates": ones * jnp.array([[1, 2, 2]]),
        "scores": ones * jnp.array([[0.7, 0.2, 0.1]]),
        "count": ones[:, 0] * 2 + (inputs["box_mask"].sum(1) > 2),
        "boxes_seen": inputs["boxes"],
    }


def write(folder, platforms=("cpu",), batch="symbolic", **changes):
    """An export of `function`, made by hand as docs/export.md describes it."""
    rows = jax.export.symbolic_shape("b")[0] if batch == "symbolic" else batch
    inputs = {k: jax.ShapeDtypeStruct((rows, *x), dtype) for k, (x, dtype) in SHAPES.items()}
    weights = {"params/w": np.float32(1)}
    lowered = jax.export.export(jax.jit(function), platforms=platforms)(weights, inputs)
    folder.mkdir()
    (folder / "model.jaxexport").write_bytes(lowered.serialize())
    np.savez(folder / "parameters.npz", **weights)
    described = {k: {"shape": ["b", *x], "dtype": np.dtype(d).name} for k, (x, d) in SHAPES.items()}
    metadata = {
        "format": 1, "task": "sgcls", "batch": batch, "image_size": SIDE, "max_objects": ROOM,
        "thresholds": {"least": 0.0, "object_least": 0.0, "top": 100}, "inputs": described,
        "objects": ["__background__", "man", "dog"], "predicates": ["__background__", "on", "by"],
        "versions": {"jax": jax.__version__},
    }  # fmt: skip
    metadata["files"] = {
        name: loader.hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("model.jaxexport", "parameters.npz")
    }
    (folder / "metadata.json").write_text(json.dumps(metadata | changes))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("top") / "export")


@pytest.fixture
def copy(folder, tmp_path):
    return pathlib.Path(shutil.copytree(folder, tmp_path / "copy"))


BOXES = [[0, 0, 10, 10], [2, 4, 30, 20], [1, 1, 2, 2]]
PROGRAM = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("flax", "orbax", "tensorflow", "optax", "ml_collections",
                                      "jaxtyping", "etils", "absl", "simplejpeg", "tenacity"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Block())
import numpy as np
from linknet_jax.exported import Exported
model = Exported.load(sys.argv[1])
rows = {"images": np.zeros((2, 8, 8, 3), np.uint8), "image_sizes": np.full((2, 2), 8, np.float32),
        "boxes": np.zeros((2, 3, 4), np.float32), "box_mask": np.ones((2, 3), bool)}
assert model(**rows)["scores"].shape == (2, 3)
assert "PIL" not in sys.modules, "numbers need no Pillow"
print(len(model.graph(np.zeros((30, 40, 3), np.uint8), [[0, 0, 9, 9], [1, 1, 5, 5]])["objects"]))
print(*sorted(x for x in sys.modules if x.startswith("linknet_jax.")))
"""


def test_needs_jax_and_numpy_only(folder):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["2", "linknet_jax.exported linknet_jax.pixels"]


@pytest.mark.parametrize("size", [(40, 30), (30, 40), (5, 3), (8, 8), (1, 1)])
def test_a_photograph_becomes_the_input_that_training_makes(folder, tmp_path, size):
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.jpg", quality=80)
    pixels, valid, scale = load_image(tmp_path / "photo.jpg", SIDE)
    inputs, found = Exported.load(folder).inputs(tmp_path / "photo.jpg", [[0, 0, 1, 3]])
    assert found == size
    np.testing.assert_array_equal(inputs["images"], pixels[None])
    np.testing.assert_array_equal(inputs["image_sizes"], valid[None])
    np.testing.assert_array_equal(inputs["boxes"][0, 0], np.float32([0, 0, scale, 3 * scale]))
    np.testing.assert_array_equal(inputs["box_mask"], [[True, False, False]])


def test_upright(folder, tmp_path):
    picture = Image.fromarray(np.arange(36, dtype=np.uint8).reshape(3, 4, 3))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.png", exif=exif)
    inputs, size = Exported.load(folder).inputs(tmp_path / "turned.png", [])
    assert size == (3, 4)
    np.testing.assert_array_equal(inputs["images"][0], load_image(tmp_path / "turned.png", SIDE)[0])


def test_graph_in_words(folder):
    model, image = Exported.load(folder), np.zeros((30, 40, 3), np.uint8)
    graph = model.graph(image, BOXES, image_id="a")
    assert (graph["image_id"], graph["width"], graph["height"]) == ("a", 40, 30)
    assert graph["objects"][1] == {"box": [2.0, 4.0, 30.0, 20.0], "label": "dog", "score": 0.8}
    assert graph["relations"] == [
        {"subject": 1, "predicate": "on", "object": 0, "score": 0.7},
        {"subject": 0, "predicate": "by", "object": 2, "score": 0.2},
        {"subject": 0, "predicate": "by", "object": 1, "score": 0.1},
    ]
    model.thresholds |= {"object_least": 0.5, "least": 0.05}
    graph = model.graph(image, BOXES)
    assert graph["image_id"] == 0 and len(graph["objects"]) == 2
    assert [r["score"] for r in graph["relations"]] == [0.7, 0.1]
    model.thresholds["top"] = 1
    assert [r["score"] for r in model.graph(image, BOXES)["relations"]] == [0.7]


@pytest.mark.parametrize("name", ["metadata.json", "model.jaxexport", "parameters.npz"])
@pytest.mark.parametrize("damage", ["cut", "changed", "missing"])
def test_damage_is_named(copy, name, damage):
    path = copy / name
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        middle = len(data) // 2
        path.write_bytes(data[:middle] + (b"" if damage == "cut" else b"\xff" + data[middle + 1 :]))
    with pytest.raises(ValueError, match=rf"{name}.*(damaged|no complete export)"):
        Exported.load(copy)


def change(folder, **values):
    path = folder / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_another_version_is_named(copy):
    change(copy, format=2)
    with pytest.raises(ValueError, match="has format 2, this version of linknet_jax reads 1: "):
        Exported.load(copy)


def test_an_artefact_that_jax_cannot_read(copy, monkeypatch):
    change(copy, versions={"jax": "9.9"})

    def refuse(_):
        raise ValueError("calling convention version 99")

    monkeypatch.setattr(jax.export, "deserialize", refuse)
    with pytest.raises(ValueError, match=r"jax 9\.9 exported .*version 99.*export the checkpoint"):
        Exported.load(copy)


def test_another_platform_is_named(tmp_path):
    folder = write(tmp_path / "tpu", platforms=("tpu", "cuda"))
    with pytest.raises(ValueError, match="exported for tpu, cuda, but this machine has cpu"):
        Exported.load(folder)


def rows(count=1, **changes):
    inputs = {name: np.zeros((count, *x), dtype) for name, (x, dtype) in SHAPES.items()}
    return {k: x for k, x in (inputs | changes).items() if x is not None}


@pytest.mark.parametrize(
    "inputs, message",
    [
        (rows(boxes=None), "this model takes images, image_sizes, boxes, box_mask"),
        (rows(labels=np.zeros((1, 3), np.int32)), r"inputs \[.*'labels'\]"),
        (rows(boxes=np.zeros((1, 4, 4), np.float32)), r"boxes: .* \[1, 4, 4\]; must be .*3, 4"),
        (rows(images=np.zeros((1, 8, 8, 3), np.float32)), "images: float32 .*; must be uint8"),
        (rows(images=np.zeros((2, 8, 8, 3), np.uint8)), r"images: uint8 \[2, 8, 8, 3\]; must be"),
        (rows(0), "a batch of 0 images; this model takes 1 image or more"),
    ],
)
def test_wrong_inputs_are_named(folder, inputs, message):
    with pytest.raises(ValueError, match=message):
        Exported.load(folder)(**inputs)


@pytest.mark.parametrize(
    "boxes, message",
    [
        (None, "needs boxes"),
        ([*BOXES, BOXES[0]], r"4 boxes, .* room for 3: .*--objects 4"),
        ([[0, 0, 1]], r"boxes of shape \[1, 3\]"),
        ([[0, 0, np.nan, 1]], "finite"),
        ([[5, 0, 1, 1]], "x2 >= x1"),
    ],
)
def test_wrong_boxes_are_named(folder, boxes, message):
    with pytest.raises(ValueError, match=message):
        Exported.load(folder).inputs(np.zeros((4, 4, 3), np.uint8), boxes)


def test_unreadable_photographs_are_named(folder, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"no image")
    Image.new("L", (70_000, 1)).save(tmp_path / "strip.png")
    Image.new("L", (9, 9)).save(tmp_path / "program.eps")
    for name in ("photo.jpg", "nothing.jpg", "strip.png", "program.eps"):
        with pytest.raises(ValueError, match=name):
            Exported.load(folder).graph(tmp_path / name, BOXES)
