"""Predictions of Scene-Graph-Benchmark: a slow reference, sizes of images, wrong files."""

from __future__ import annotations

import json
import pickle
import tracemalloc

import numpy as np
import pytest
from etils import epath

from linknet_jax.data.formats.prediction_lines import read_predictions
from linknet_jax.data.formats.sgb_predictions import convert
from linknet_jax.types import Vocabulary

CLASSES = ["__background__", "man", "horse", "hat"]
PREDICATES = ["__background__", "on", "riding", "has", "of"]
SIZES = {1: (400, 300), 2: (300, 400), "street": (640, 360), "0007": (600, 600)}
FILES = ["/data/1.jpg", "photos/2.jpg", "C:\\photos\\street.png", "0007.jpg"]
STORED = [(800, 600), (600, 800), (999, 562), (600, 600)]  # of those images, 600 at most 1000


def entry(rng, n, stored):
    """What that project stores of one image: relations by predicate probability, any labels."""
    corners = np.sort(rng.random((n, 2, 2)), axis=1).reshape(n, 4) * np.tile(stored, 2)
    pairs = [[s, o] for s in range(n) for o in range(n) if s != o] or [[0, 0]]
    scores = rng.dirichlet([0.3] * len(PREDICATES), len(pairs)).astype(np.float32).astype(float)
    best = scores[:, 1:].max(axis=1)
    order = np.argsort(-best)
    return {
        "bbox": corners.tolist(),
        "bbox_labels": rng.integers(1, len(CLASSES), n).tolist(),
        "bbox_scores": np.sort(rng.random(n))[::-1].tolist(),
        "rel_pairs": [pairs[i] for i in order],
        "rel_labels": (1 + scores[order, 1:].argmax(axis=1)).tolist(),
        "rel_scores": best[order].tolist(),
        "rel_all_scores": scores[order].tolist(),
    }


def expected(one, size, stored):
    """The definition, a relation at a time; scores are float32."""
    scale, scores = [size[0] / stored[0], size[1] / stored[1]] * 2, one["bbox_scores"]
    objects = [
        {"box": pytest.approx([x * f for x, f in zip(box, scale, strict=True)], rel=1e-12),
         "label": CLASSES[label], "score": np.float32(score)}
        for box, label, score in zip(one["bbox"], one["bbox_labels"], scores, strict=True)
    ]  # fmt: skip
    candidates, best = [], set()
    for (s, o), row in zip(one["rel_pairs"], one["rel_all_scores"], strict=True):
        if s != o or one["rel_pairs"] == [[0, 0]]:  # the stand-in for "no pair" is scored there
            ranks = [(-np.float32(scores[s] * scores[o] * row[p]), s, o, p) for p in range(1, 5)]
            candidates += ranks
            best.add(min(ranks))
    return objects, [
        {"subject": s, "predicate": PREDICATES[p], "object": o, "score": -score}
        for rank, (score, s, o, p) in enumerate(sorted(candidates))
        if rank < 100 or (score, s, o, p) in best
    ]


def store(tmp_path, images, files=FILES, **changes):
    """The two files in a folder; `images` is a dictionary or the text of the larger one."""
    info = {"idx_to_files": files, "ind_to_classes": CLASSES, "ind_to_predicates": PREDICATES}
    text = images if isinstance(images, str) else json.dumps(images)
    (tmp_path / "custom_prediction.json").write_text(text)
    (tmp_path / "custom_data_info.json").write_text(json.dumps(info | changes))
    return epath.Path(tmp_path) / "custom_prediction.json"


def run(tmp_path, images, *resized, sizes=SIZES, **changes):
    """The lines that are written, scores as float32."""
    target = epath.Path(tmp_path) / "pred.jsonl"
    count, _ = convert(store(tmp_path, images, **changes), sizes, target, *resized)
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    assert count == len(lines)
    for one in (x for line in lines for x in (*line["objects"], *line["relations"])):
        one["score"] = np.float32(one["score"])
    return lines


@pytest.mark.parametrize("seed", range(6))
def test_is_the_definition(tmp_path, seed):
    """Of 1 to 12 boxes: fewer and more candidates than 100, more pairs than 100."""
    rng = np.random.default_rng(seed)
    counts = rng.permutation([1, 2, 5, 12])
    images = {str(i): entry(rng, n, STORED[i]) for i, n in enumerate(counts)}
    lines = run(tmp_path, images)
    assert [line["image_id"] for line in lines] == [1, 2, "street", "0007"]
    for line, one, size, stored in zip(lines, images.values(), SIZES.values(), STORED, strict=True):
        objects, relations = expected(one, size, stored)
        assert line == {"image_id": line["image_id"], "objects": objects, "relations": relations}


def test_ties_are_in_the_order_of_pair_and_predicate(tmp_path):
    """Whatever the order of the file is, also where the hundredth candidate is one of many."""
    rng = np.random.default_rng(0)
    one = entry(rng, 12, STORED[0]) | {"bbox_scores": [0.5] * 12}
    probabilities = [0.1, 0.2, 0.4, 0.4 + 1e-12]  # the last two are one float32
    one["rel_all_scores"] = rng.choice(probabilities, (132, len(PREDICATES))).tolist()
    assert run(tmp_path, {"0": one})[0]["relations"] == expected(one, SIZES[1], STORED[0])[1]


def test_product_decides(tmp_path):
    """The relation with the larger probability, which stands first, is between unsure objects."""
    one = entry(np.random.default_rng(0), 3, STORED[0])
    one |= {"bbox_scores": [1.0, 0.9, 0.1], "rel_pairs": [[0, 2], [0, 1]]}
    one["rel_all_scores"] = [[0, 0, 0.9, 0.1, 0], [0.5, 0.3, 0.2, 0, 0]]
    relations = run(tmp_path, {"0": one})[0]["relations"]
    found = [(r["subject"], r["predicate"], r["object"]) for r in relations[:3]]
    assert found == [(0, "on", 1), (0, "riding", 1), (0, "riding", 2)]
    assert [r["score"] for r in relations[:2]] == pytest.approx([0.27, 0.18])


def test_lines_are_read_by_the_evaluator(tmp_path):
    rng = np.random.default_rng(1)
    run(tmp_path, {"0": entry(rng, 12, STORED[0]), "3": entry(rng, 1, STORED[3])})
    vocabulary = Vocabulary(tuple(CLASSES), tuple(PREDICATES))
    found = list(read_predictions(epath.Path(tmp_path) / "pred.jsonl", vocabulary, "names"))
    assert [image_id for _, image_id, _, _ in found] == [1, "0007"]
    prediction = found[0][3]
    assert (int(prediction.count), int(prediction.free_count)) == (132, 100)
    assert (np.diff(prediction.free_scores) <= 0).all()
    assert int(found[1][3].count) == 1  # an image whose stand-in is scored is not missing


@pytest.mark.parametrize(
    ("size", "sides", "stored"),
    [
        ((800, 600), (600, 1000), (800, 600)),
        ((500, 375), (600, 1000), (800, 600)),
        ((375, 500), (600, 1000), (600, 800)),
        ((333, 500), (600, 1000), (600, 900)),  # 900.9
        ((1280, 720), (600, 1000), (999, 562)),  # 562.5 to the even number, then 999.1
        ((640, 100), (600, 1000), (998, 156)),
        ((100, 640), (600, 1000), (156, 998)),
        ((500, 500), (600, 1000), (600, 600)),
        ((800, 600), (800, 1333), (1066, 800)),
        ((600, 1000), (600, 1000), (600, 1000)),
        ((640, 360), None, (640, 360)),
    ],
)
def test_network_input(tmp_path, size, sides, stored):
    one = entry(np.random.default_rng(0), 2, stored) | {"bbox": [[0, 0, *stored]] * 2}
    (line,) = run(tmp_path, {"0": one}, sides, sizes={1: size})
    assert line["objects"][0]["box"] == pytest.approx([0, 0, *size])


def test_boxes_outside_tell_the_wrong_size(tmp_path):
    one = entry(np.random.default_rng(0), 2, STORED[0])
    one["bbox"][1] = [0, 0, 1066, 800]  # of 800, 1333
    message = r"0', bbox\[1\]: \[0.0, 0.0, 1066.0, 800.0\] lies outside 800 x 600 pixels, which the"
    with pytest.raises(ValueError, match=message):
        run(tmp_path, {"0": one})
    one["bbox"][1] = [-60, -60, 860, 640]  # a model that does not cut boxes
    assert run(tmp_path, {"0": one})[0]["objects"][1]["box"] == [-30, -30, 430, 320]


@pytest.mark.parametrize(
    ("ends", "found"),
    [([1, 1, 0.5], ""), ([0.85, 0.86], ""), ([0.8, 1, 0.8], "80%"), ([1.06, 1], "103%"), ([], "")],
)
def test_boxes_of_most_images_end_at_the_border(tmp_path, ends, found):
    """Where those of the middle image do not, the stated size may be wrong."""
    empty = {f: [] for f in ("bbox", "bbox_labels", "bbox_scores", "rel_pairs", "rel_all_scores")}
    boxes = [{"bbox": [[0, 0, 9, 1000 * x]], "bbox_labels": [1], "bbox_scores": [1]} for x in ends]
    path = store(tmp_path, {str(i): empty | x for i, x in enumerate([*boxes, {}])})
    sizes = dict.fromkeys(SIZES, (1000, 1000))
    count, doubt = convert(path, sizes, epath.Path(tmp_path) / "pred.jsonl", None)
    assert count == len(ends) + 1 and bool(doubt) == bool(found)
    assert not found or doubt.startswith(f"the boxes of an image end at {found} (median) of its wi")


@pytest.mark.parametrize(
    ("file", "sizes", "image_id"),
    [
        ("a/12.jpg", {12: (9, 9), "12": (9, 9)}, 12),
        ("a/12.jpg", {"12": (9, 9)}, "12"),
        ("012.jpg", {12: (9, 9)}, 12),
        ("012.jpg", {"012": (9, 9)}, "012"),
        ("a.b.jpg", {"a.b": (9, 9)}, "a.b"),
        ("a\\b/c.jpg", {"c": (9, 9)}, "c"),
        ("a/12.jpg", {13: (9, 9), "12.jpg": (9, 9)}, None),
        ("٣.jpg", {3: (9, 9)}, None),
    ],
)
def test_image_id(tmp_path, file, sizes, image_id):
    images = {"0": entry(np.random.default_rng(0), 2, (600, 600))}
    if image_id is not None:
        assert run(tmp_path, images, files=[file], sizes=sizes)[0]["image_id"] == image_id
        return
    with pytest.raises(ValueError, match=r"image '0': its file '.*' has no line of ground truth"):
        run(tmp_path, images, files=[file], sizes=sizes)


def change(field, value, at=None):
    """Images of which the second one is wrong: a field, or its entry `at`."""
    rng = np.random.default_rng(0)
    images = {str(i): entry(rng, 3, STORED[i]) for i in range(2)}
    place, key = (images["1"], field) if at is None else (images["1"][field], at)
    place[key] = value
    return images


NAN, IMAGES, AGAIN = float("nan"), 80, json.dumps(change("x", 0)["0"])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("", r"json is damaged at or shortly before byte 0 of 0: "),
        ('{"0": ', r"json is damaged at or shortly before byte 6 of 6: "),
        ("[1]", r"json holds no images: it must be \{\"0\": \{\.\.\.\}"),
        ("{}", r"json holds no images"),
        ('{"0": ' + "[" * 500, r"json is damaged .*: it is nested deeper than 100 levels"),
        ('{"0": 3}', r"json, image '0': must be an object, got 3; store"),
        ('{"x": {}}', r"json, image 'x': must be one of the 4 positions in custom_data_info\.json"),
        ('{"4": {}}', r"json, image '4': must be one of the 4 positions"),
        ('{"-1": {}}', r"json, image '-1': must be one of the 4 positions"),
        ('{"0": {}}', r"json, image '0', bbox: must be a list, got None"),
        (change("bbox", 3), r"image '1', bbox: must be a list, got 3"),
        (change("bbox", [1, 2, 3], 2), r"image '1', bbox\[2\]: must be 4 numbers \[x1, y1, x2, y2\]"
         r", got \[1, 2, 3\]; store the predictions again"),
        (change("bbox", ["1", 2, 3, 4], 0), r"bbox\[0\]: must be 4 numbers"),
        (change("bbox", [5, 2, 3, 4], 0), r"bbox\[0\]: \[5.0, 2.0, 3.0, 4.0\] must have x2 >= x1"),
        (change("bbox", [1, 2, 2**40, 4], 0), r"bbox\[0\]: must be 4 numbers"),
        (change("bbox_labels", 0, 1), r"bbox_labels\[1\]: must be a class from 1 to 3, got 0"),
        (change("bbox_labels", 4, 1), r"bbox_labels\[1\]: must be a class from 1 to 3, got 4"),
        (change("bbox_labels", 1.0, 1), r"bbox_labels\[1\]: must be a class from 1 to 3, got 1\.0"),
        (change("bbox_labels", True, 1), r"bbox_labels\[1\]: must be a class from 1 to 3, got T"),
        (change("bbox_labels", [1, 2]), r"bbox_labels: must be a list of 3 entries, got 2"),
        (change("bbox_scores", None), r"bbox_scores: must be a list of 3 entries, got None"),
        (change("bbox_scores", 1.5, 0), r"bbox_scores\[0\]: must be a probability, got 1\.5"),
        (change("bbox_scores", NAN, 0), r"json is damaged at or shortly before byte"),
        (change("rel_pairs", [0, 3], 4), r"rel_pairs\[4\]: must be two of the 3 boxes, from 0, "),
        (change("rel_pairs", [-1, 0], 4), r"rel_pairs\[4\]: must be two of the 3 boxes"),
        (change("rel_pairs", [0, 1, 2], 4), r"rel_pairs\[4\]: must be two of the 3 boxes"),
        (change("rel_pairs", [[1, 0], [0, 1], [0, 2], [2, 0], [2, 1], [0, 1]]),
         r"image '1', rel_pairs: \[0, 1\] stands twice; a pair has one row"),
        (change("rel_all_scores", [0.5] * 4, 5), r"rel_all_scores\[5\]: must be 5 probabilities, "),
        (change("rel_all_scores", [-0.5] * 5, 5), r"rel_all_scores\[5\]: must be 5 probabilities"),
        (change("rel_all_scores", []), r"rel_all_scores: must be a list of 6 entries, got 0 "),
        (f'{{"0": {AGAIN}, "0": {AGAIN}}}', r"image '0': is 1, as image '0' is; remove one "),
    ],
)  # fmt: skip
def test_wrong_predictions(tmp_path, images, message):
    target = tmp_path / "pred.jsonl"
    target.write_text("before")
    with pytest.raises(ValueError, match=message):
        convert(store(tmp_path, images), SIZES, epath.Path(target))
    assert target.read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 3  # nothing half-written


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("idx_to_files", None, r"info\.json, idx_to_files: must be a list of paths, got None"),
        ("idx_to_files", [1], r"info\.json, idx_to_files: must be a list of paths, got \[1\]"),
        ("ind_to_classes", CLASSES[1:], r"ind_to_classes: must be a list of names, the first '__b"),
        ("ind_to_classes", CLASSES[:1], r"ind_to_classes: must be a list of names"),
        ("ind_to_predicates", [*PREDICATES, "on"], r"predicates, after the background: entry 4"),
        ("ind_to_predicates", ["__background__", 1], r"entry 0, 1, must be a name"),
    ],
)
def test_wrong_names(tmp_path, field, value, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, change("x", 0), **{field: value})


@pytest.mark.parametrize("content", [pickle.dumps({"predictions": []}), b"PK\x03\x04archive"])
def test_no_pickle_is_read(tmp_path, content):
    path = epath.Path(tmp_path) / "eval_results.pytorch"
    path.write_bytes(content)
    message = r"eval_results\.pytorch is a pickle .*not read.*custom_pred.*docs/evaluation\.md"
    with pytest.raises(ValueError, match=message):
        convert(path, SIZES, epath.Path(tmp_path) / "pred.jsonl")


def test_missing_files(tmp_path):
    path, target = store(tmp_path, change("x", 0)), epath.Path(tmp_path) / "pred.jsonl"
    (tmp_path / "custom_data_info.json").unlink()
    with pytest.raises(ValueError, match=r"custom_data_info\.json is missing; it is written besid"):
        convert(path, SIZES, target)
    with pytest.raises(ValueError, match=r"nothing\.json is missing; TEST\.CUSTUM_EVAL"):
        convert(path.parent / "nothing.json", SIZES, target)


def test_memory_is_that_of_an_image(tmp_path):
    rng = np.random.default_rng(0)
    images = {str(i): entry(rng, 20, (600, 600)) for i in range(IMAGES)}
    path = store(tmp_path, images, files=[f"{i}.jpg" for i in range(IMAGES)])
    del images
    sizes = {i: (600, 600) for i in range(IMAGES)}
    tracemalloc.start()
    assert convert(path, sizes, epath.Path(tmp_path) / "pred.jsonl")[0] == IMAGES
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < path.stat().length / 4  # all of it as Python objects takes more than its length
