"""Several processes: one reads the files that all need, each only its own photographs."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from linknet_jax.data import retry

LAUNCHER = pathlib.Path(__file__).parents[1] / "launch" / "local_processes.py"
PROGRAM = """
import json, os, sys
from linknet_jax import parallel
parallel.initialize_distributed()
import jax
from linknet_jax import data
from linknet_jax.config import get_default
from linknet_jax.data.from_first import from_first

opened = []
sys.addaudithook(lambda event, found: opened.append(str(found[0])) if event == "open" else None)

def fail():
    raise ValueError(f"wrong file, says {jax.process_index()}")

assert from_first(lambda: {"of": jax.process_index(), "rest": list(range(1000))})["of"] == 0
try:
    from_first(fail)
except ValueError as error:
    assert str(error) == "wrong file, says 0", error
else:
    raise AssertionError("no error")

folder = sys.argv[1]
config = get_default("sgcls")
config.data.name, config.data.dir, config.data.image_size = "custom", folder, 32
config.data.val_images = 2
for split in ("train", "val"):
    dataset = data.build(config, split)
share = (jax.process_index(), jax.process_count())
seen = [i for b in dataset.evaluation_batches(2, *share) for i in b.image_index.tolist()]
names = sorted({os.path.basename(x) for x in opened if x.startswith(folder + os.sep)})
print("RESULT" + json.dumps([share[0], len(dataset.annotations), seen, names]), flush=True)
"""


@pytest.fixture
def folder(tmp_path):
    """Six photographs and their graphs."""
    place = tmp_path / "data"
    place.mkdir()
    lines = []
    for number in range(6):
        Image.fromarray(np.full((20, 30, 3), 40 * number, np.uint8)).save(place / f"{number}.jpg")
        things = [{"box": [0, 0, 9, 9], "label": "a"}, {"box": [5, 5, 20, 20], "label": "b"}]
        relations = [{"subject": 0, "predicate": "on", "object": 1}]
        lines.append({"image_id": number, "width": 30, "height": 20, "objects": things,
                      "relations": relations})  # fmt: skip
    (place / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return place


def test_each_process_opens_its_own_photographs_alone(folder):
    command = [sys.executable, LAUNCHER, "2", "--devices", "1", "--", sys.executable, "-c"]
    done = subprocess.run([*command, PROGRAM, folder], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    results = [x.partition("RESULT")[2] for x in done.stdout.splitlines() if "RESULT" in x]
    first, second = sorted(map(json.loads, results))
    assert first[:3] == [0, 2, [0]] and second[:3] == [1, 2, [1]]
    assert first[3] == ["0.jpg", "train.jsonl"] and second[3] == ["1.jpg"]


class Storage:
    """A file that can be read at the third try."""

    def __init__(self, *errors):
        self.errors = list(errors)

    def __str__(self):
        return "gs://bucket/a.jpg"

    def read_bytes(self):
        if self.errors:
            raise self.errors.pop(0)
        return b"contents"


@pytest.fixture
def impatient(monkeypatch):
    waited = []
    monkeypatch.setattr(retry._patiently.retry, "sleep", waited.append)
    return waited


def test_storage_that_fails_is_tried_again(impatient, capsys):
    assert retry.read_bytes(Storage(TimeoutError("slow"), OSError("reset"))) == b"contents"
    assert len(impatient) == 2
    report = capsys.readouterr().err
    assert "gs://bucket/a.jpg: TimeoutError('slow'); try 2 of 5" in report and "try 3" in report


@pytest.mark.parametrize("error", [FileNotFoundError("gone"), PermissionError("no")])
def test_what_another_try_does_not_change_is_raised_at_once(impatient, error):
    with pytest.raises(type(error)):
        retry.read_bytes(Storage(error))
    assert not impatient


def test_storage_that_stays_away_is_an_error(impatient):
    with pytest.raises(OSError, match="reset 4"):
        retry.read_bytes(Storage(*(OSError(f"reset {i}") for i in range(9))))
    assert len(impatient) == retry.TRIES - 1
