"""Images in any order, on any number of processes and devices, give the same numbers exactly."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
import tiny
from test_metrics import KS, PREDICATES, TRAINING, UNSEEN, VOCABULARY, evaluate, random_images

from linknet_jax import data, parallel
from linknet_jax.data import threads
from linknet_jax.eval_loop import compile_predict, predictions
from linknet_jax.metrics.scene_graph import TASKS, SceneGraphMetrics
from linknet_jax.metrics.sums import UNIT, Sums
from linknet_jax.types import Annotation, Vocabulary

ROOT = pathlib.Path(__file__).parents[1]
PROCESSES = 4
COUNTS = (61, 3)  # of images: unequal shares, and a process without any
PROGRAM = """
import json
from linknet_jax import parallel
parallel.initialize_distributed()
import jax
from linknet_jax.eval_loop import _merged
from test_merging import COUNTS, numbers, part
share = (jax.process_index(), jax.process_count())
print(json.dumps([numbers(_merged(part(count, *share))) for count in COUNTS]))
"""


def numbers(metrics) -> list[dict]:
    """All that is reported."""
    return [metrics.compute(VOCABULARY, TRAINING), metrics.diagnosis(VOCABULARY)]


def part(count, index, processes) -> SceneGraphMetrics:
    """What a process counts of `count` images."""
    return evaluate(random_images(0, count, task="sgcls")[index::processes], task="sgcls")


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("parts", [1, 3, 7])
def test_order_and_parts_change_no_bit(task, parts):
    rng = np.random.default_rng(parts)
    images = random_images(parts, 90, task=task)
    whole = evaluate(images, task=task)
    expected = json.dumps(numbers(whole))
    for _ in range(3):
        order = np.array_split(rng.permutation(len(images)), parts)
        shares = [evaluate([images[i] for i in rows], task=task) for rows in order]
        before = [share.state() for share in shares]
        merged = shares[0]
        for share in shares[1:]:
            merged = share.merge(merged)
        np.testing.assert_array_equal(merged.state(), whole.state(), strict=True)
        assert json.dumps(numbers(merged)) == expected
        for share, state in zip(shares, before, strict=True):
            np.testing.assert_array_equal(share.state(), state)


def test_states_travel_as_bits():
    """JAX would cut the integers to 32 bits."""
    first, second = (evaluate(random_images(seed, 20)) for seed in (0, 1))
    bits = np.stack([x.state().view(np.uint32) for x in (first, second)])
    restored = first.from_state(bits.view(np.int64).sum(axis=0))
    assert numbers(restored) == numbers(first.merge(second))
    assert np.abs(restored.state()).max() > 2**32


@pytest.mark.parametrize(
    "other",
    [
        {"ks": (20, 50)}, {"task": "sgcls"}, {"split": "val"}, {"inclusive": False},
        {"frame": "1024"}, {"missing": "skip"}, {"zero_shot": {(1, 1, 2)}}, {"zero_shot": None},
        {"num_predicates": PREDICATES + 1},
    ],
    ids=str,
)  # fmt: skip
def test_other_settings_never_mix(other):
    settings = {"num_predicates": PREDICATES, "zero_shot": UNSEEN}
    first, second = SceneGraphMetrics(**settings), SceneGraphMetrics(**{**settings, **other})
    with pytest.raises(ValueError, match=r"cannot merge metrics of .*create both with the same"):
        first.merge(second)
    assert numbers(first.merge(SceneGraphMetrics(**settings))) == numbers(first)


def test_sums_keep_each_fraction_to_twelve_digits_and_never_round_again():
    values = np.random.default_rng(0).random(1000)
    sums = Sums({"whole": (), "each": (1000,), "all": (1,)})
    for value in values:
        sums.add_fractions("all", value)
    sums.add_fractions("each", values)
    assert UNIT / 4 < np.abs(sums.fractions("each") - values).max() <= UNIT / 2 < 1.2e-13
    assert sums["all"] == sums["each"].sum()
    assert sums["whole"].shape == () and len(sums.state()) == 1002


def test_sums_have_room_for_two_million_images():
    sums = Sums({"recall": (1,)})
    before = sums.state()
    sums.add_fractions("recall", np.ones(1))
    many = sums.from_state(sums.state() * 2_000_000)
    many.add_fractions("recall", np.full(1, 90_000.0))
    assert many.fractions("recall") == [2_090_000.0]
    assert before == [0] and sums.fractions("recall") == [1.0]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_four_processes_report_what_one_does():
    environment = {
        **os.environ,
        "XLA_FLAGS": "",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "LINKNET_COORDINATOR": f"127.0.0.1:{free_port()}",
        "LINKNET_NUM_PROCESSES": str(PROCESSES),
    }
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env={**environment, "LINKNET_PROCESS_ID": str(i)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(PROCESSES)
    ]
    try:
        outputs = [run.communicate(timeout=120) for run in runs]
    finally:
        for run in runs:
            run.kill()
    alone = [numbers(part(n, 0, 1)) for n in COUNTS]
    assert alone[0][0]["R@20"] > 0.2
    for output, errors in outputs:
        assert output, errors
        assert json.loads(output.splitlines()[-1]) == alone


class Scenes:
    """Random pictures of the tiny model's size."""

    vocabulary = Vocabulary(
        tuple(f"o{i}" for i in range(tiny.OBJECTS)), tuple(f"p{i}" for i in range(tiny.PREDICATES))
    )
    truth = None

    def __init__(self, count):
        self._scenes = [tiny.scene(1 + i % 6, i) for i in range(count)]
        self.annotations = [annotation(i, scene) for i, scene in enumerate(self._scenes)]

    def example(self, index, flip=False):
        return self._scenes[index]["images"], self._scenes[index]["image_sizes"], 1.0


def annotation(image_id, scene) -> Annotation:
    ends = np.argwhere(scene["predicates"])
    relations = np.column_stack([ends, scene["predicates"][tuple(ends.T)]])
    boxes = scene["boxes"].astype(np.float64)
    return Annotation(image_id, tiny.SIDE, tiny.SIDE, boxes, scene["labels"], relations)


def test_eight_devices_count_what_one_does():
    """Scores differ by the rounding of XLA, which sums one image otherwise than eight: only their
    means in the calibration show it."""
    task = tiny.create_task("predcls", data__max_objects=8, data__flip=False)
    dataset = data.Dataset(Scenes(21), threads, task.config.data)  # the last batch is not full
    metrics = {count: SceneGraphMetrics(tiny.PREDICATES, KS[0], "predcls") for count in (1, 8)}
    for count, sums in metrics.items():
        mesh = parallel.create_mesh(devices=jax.devices()[:count])
        variables = jax.device_put(tiny.variables(), parallel.replicated(mesh))
        predict = compile_predict(task, mesh)
        for index, prediction in predictions(predict, variables, dataset, 8, mesh):
            truth = dataset.annotations[index]
            sums.update(truth, truth.boxes, prediction)
    one, eight = (x.compute(Scenes.vocabulary) for x in metrics.values())
    assert one == eight and one["counts"]["images"] > 10 and 0 < one["mR@3"] < one["mR@20"]
    one, eight = (x.diagnosis(Scenes.vocabulary) for x in metrics.values())
    means = [[x or 0 for x in y["calibration"].pop("score")] for y in (one, eight)]
    assert one == eight and means[0] == pytest.approx(means[1], rel=1e-5) and max(means[0]) > 0
