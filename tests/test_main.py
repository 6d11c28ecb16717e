"""The command line as a user meets it: train, kill, resume, evaluate, and wrong input."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp
from PIL import Image

from linknet_jax import cli, data, score, validation
from linknet_jax import config as configs
from linknet_jax.main import main

ROOT = pathlib.Path(__file__).parents[1]
SETTINGS = {
    "data.image_size": 32,
    "data.train_images": 16,
    "data.val_images": 8,
    "data.test_images": 8,
    "model.fc_dim": 12,
    "model.embed_dim": 8,
    "model.hidden_dim": 8,
    "model.pooling_dim": 8,
    "model.layout_dim": 4,
    "model.roi_size": 3,
    "model.roi_chunk": 16,
    "sampling.pairs": 16,
    "sampling.related": 8,
    "train.batch_size": 8,
    "train.steps": 30,
    "train.log_every": 1,
    "train.eval_every": 15,
    "train.warmup": 5,
    "train.ema": 0.9,
    "checkpoint.every": 4,
    "eval.batch_size": 8,
    "eval.dump": True,
}
TINY = ["--config", str(ROOT / "configs/sgcls.py")]
TINY += [f"--config.{key}={value}" for key, value in SETTINGS.items()]
WITHOUT_TENSORFLOW = """
import sys
sys.modules["tensorflow"] = None  # as where it is not installed
from linknet_jax.main import main
sys.exit(main(sys.argv))
"""


class Run:
    """A subprocess of the command on one device, its output in a file."""

    def __init__(self, cache, workdir, *arguments):
        self.workdir, self.output = workdir, workdir.with_suffix(".txt")
        program = ["-c", WITHOUT_TENSORFLOW]
        arguments = ["--workdir", str(workdir), f"--config.compilation_cache={cache}", *arguments]
        environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
        self.process = subprocess.Popen(
            [sys.executable, *program, *arguments],
            cwd=ROOT,
            env=environment,
            stdout=self.output.open("w"),
            stderr=subprocess.STDOUT,
        )

    def wait(self, status=0):
        assert self.process.wait(300) == status, self.output.read_text()
        return self.output.read_text()

    def signal_when(self, condition, number):
        """Sends the signal as soon as `condition` holds; the run must not be over by then."""
        deadline = time.monotonic() + 300
        while not condition() and time.monotonic() < deadline:
            assert self.process.poll() is None, self.output.read_text()
            time.sleep(0.002)
        self.process.send_signal(number)


def steps_of(workdir, group):
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [x["step"] for x in map(json.loads, lines) if x["group"] == group]


def saved_steps(workdir):
    return sorted(int(p.name) for p in (workdir / "checkpoints").glob("*") if p.name.isdecimal())


def saving(workdir):
    return list((workdir / "checkpoints").glob("*tmp*"))


def assert_same_state(a, b, step):
    """Parameters, averages, optimizer, control: every bit."""
    a, b = (ocp.load_checkpointables(w / "checkpoints" / str(step)) for w in (a, b))
    assert {"params", "constants", "train", "ema"} <= a.keys() == b.keys()
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def undisturbed(cache, tmp_path_factory):
    """The workdir of a run from start to end on one device, with TensorFlow blocked."""
    workdir = tmp_path_factory.mktemp("runs") / "undisturbed"
    Run(cache, workdir, *TINY).wait()
    return workdir


def test_results_follow_the_documented_format(undisturbed):
    results = json.loads((undisturbed / "results.json").read_text())
    assert results["step"] in saved_steps(undisturbed) and results["split"] == "test"
    keys = {"step", "split", "splits", "tasks", "baselines", "ceiling"}
    assert results.keys() == keys and results["splits"].keys() == {"val"}
    groups = [results["tasks"], results["baselines"]["FREQ"], results["ceiling"]]
    groups += [results["splits"]["val"]["tasks"], results["splits"]["val"]["baselines"]["FREQ"]]
    names = [f"{kind}@{k}" for kind in ("R", "ng-R", "mR", "ng-mR", "zR", "ng-zR", "A", "F1")
             for k in (20, 50, 100)]  # fmt: skip
    for group in groups:
        assert group.keys() == {"sgcls", "predcls"}
        for task, metrics in group.items():
            assert all(metrics[n] is None or 0 <= metrics[n] <= 1 for n in names)
            assert metrics["protocol"]["task"] == task and metrics["per_predicate"]
    assert results["ceiling"]["sgcls"]["R@20"] == 1


def test_scored_dump_equals_the_evaluation(undisturbed, tmp_path):
    """To the last bit, all that is written of every task and split."""
    results = json.loads((undisturbed / "results.json").read_text())
    splits = {"test": results["tasks"], "val": results["splits"]["val"]["tasks"]}
    folder = undisturbed / "predictions"
    for split, tasks in splits.items():
        for task, expected in tasks.items():
            files = {
                "ground_truth": f"{split}.jsonl.gz",
                "predictions": f"{task}_{split}.jsonl.gz",
                "vocabulary": "dicts.json",
                "zero_shot": f"zero_shot_{split}.json",
            }
            flags = [f"--{key}={folder / name}" for key, name in files.items()]
            output = tmp_path / f"{task}_{split}.json"
            flags += [f"--task={task}", f"--split={split}", f"--output={output}"]
            assert score.main(flags) == 0
            assert json.loads(output.read_text()) == expected
    assert results["tasks"]["predcls"]["R@20"] > 0 and len(splits["val"]) == 2
    assert results["tasks"]["sgcls"]["protocol"]["zero_shot_triplets"] > 0
    assert not [x for x in folder.iterdir() if ".part" in x.name]


def test_report_of_a_run(undisturbed):
    page = (undisturbed / "report.html").read_text()
    for name in ("results", "published", "predicates", "curve", "confusion", "calibration",
                 "images", "protocol"):  # fmt: skip
        assert f'<section id="{name}">' in page
    assert "FREQ+OVERLAP" in page and "ceiling" in page
    assert page.count('<figure class="example">') == 16  # best and worst four of both tasks
    assert "<script src" not in page and "http://" not in page.replace("http://www.w3.org", "")
    with Image.open(undisturbed / "examples.png") as picture:
        assert picture.width > 32


def test_rerun_of_a_finished_run_only_evaluates(cache, undisturbed):
    before = (undisturbed / "metrics.jsonl").read_bytes()
    results = (undisturbed / "results.json").read_bytes()
    (undisturbed / "results.json").unlink()
    Run(cache, undisturbed, *TINY).wait()
    assert (undisturbed / "metrics.jsonl").read_bytes() == before
    assert (undisturbed / "results.json").read_bytes() == results


def test_killed_and_resumed_run_is_bit_identical(cache, undisturbed, tmp_path):
    workdir = tmp_path / "killed"
    conditions = [
        lambda: steps_of(workdir, "train"),  # nothing saved yet
        lambda: saving(workdir),  # while a checkpoint is being written
        lambda: 4 in saved_steps(workdir) and max(steps_of(workdir, "train")) > 4,
        lambda: steps_of(workdir, "val"),  # evaluated, not yet saved
    ]
    for condition in conditions:
        run = Run(cache, workdir, *TINY)
        run.signal_when(condition, signal.SIGKILL)
        run.wait(-signal.SIGKILL)
    done = len(steps_of(workdir, "train"))
    run = Run(cache, workdir, *TINY)
    run.signal_when(lambda: len(steps_of(workdir, "train")) > done, signal.SIGTERM)
    stopped = run.wait(0)
    last = saved_steps(workdir)[-1]
    assert f"saved after step {last}" in stopped and last < SETTINGS["train.steps"]
    assert not (workdir / "results.json").exists()
    assert f"resumes after step {last}" in Run(cache, workdir, *TINY).wait()
    assert saved_steps(workdir) == saved_steps(undisturbed)
    assert_same_state(workdir, undisturbed, SETTINGS["train.steps"])
    assert (workdir / "results.json").read_bytes() == (undisturbed / "results.json").read_bytes()


def test_evaluation_on_other_devices_with_other_data(undisturbed, capsys):
    """Here on eight devices; no --config, other images and another protocol."""
    before = json.loads((undisturbed / "results.json").read_text())
    arguments = ["--config.data.test_images=16", "--config.eval.iou=exclusive"]
    assert main(["x", "--mode=eval", "--workdir", str(undisturbed), *arguments]) == 0
    results = json.loads((undisturbed / "results.json").read_text())
    assert results["tasks"]["sgcls"]["counts"]["images"] == 16
    assert results["step"] == before["step"]
    for task, metrics in results["splits"]["val"]["tasks"].items():  # same images, other devices
        expected = before["splits"]["val"]["tasks"][task]
        assert metrics["R@100"] == pytest.approx(expected["R@100"], abs=1e-6)
    assert "test split" in capsys.readouterr().out


def test_batch_size_of_the_training_does_not_bind_the_evaluation():
    config = configs.get_default("sgcls")
    config.train.batch_size, config.eval.batch_size = 6, 16
    validation.check_devices(config, 8, training=False)
    with pytest.raises(ValueError, match=r"train\.batch_size=6 must be a multiple of 8"):
        validation.check_devices(config, 8, training=True)


def test_a_stored_run_had_the_default_of_what_it_does_not_know():
    config = configs.get_default("sgcls")
    stored = config.to_dict()
    del stored["eval"]["missing"]
    validation.check_same_run(stored, config, ())
    config.eval.missing = "skip"
    with pytest.raises(ValueError, match=r"eval\.missing=zero  \(now skip\)"):
        validation.check_same_run(stored, config, ())


def test_steps_may_grow(undisturbed, capsys, monkeypatch):
    def step(state, batch):
        raise FloatingPointError(f"after step {state.step}")

    monkeypatch.setattr("linknet_jax.train.compile_train_step", lambda *_: step)
    message = fails(capsys, *TINY, "--workdir", str(undisturbed), "--config.train.steps=40")
    assert message == "error: after step 30\n"  # accepted, and went on from where it was


def fails(capsys, *arguments):
    """The message of a run that must fail, without traceback."""
    assert main(["x", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "Traceback" not in error
    return error


CHANGES = [
    (["--config.train.lr=0.5", "--config.model.fc_dim=16"],
     ["another --workdir", "train.lr=0.001  (now 0.5)", "model.fc_dim=12  (now 16)"]),
    (["--config.train.steps=20"], ["train.steps=30  (now 20)"]),
    (["--config.data.train_images=24"], ["data.train_images=16  (now 24)"]),
    (["--mode=eval", "--config.model.row_op=sigmoid"],
     ["model.row_op=softmax  (now sigmoid)", "data.* and eval.*"]),
    (["--mode=eval", "--config.eval.step=7"], ["eval.step='7'", "best, latest, ["]),
]  # fmt: skip


@pytest.mark.parametrize("change, expected", CHANGES)
def test_changed_settings_are_listed(undisturbed, capsys, change, expected):
    before = sorted(undisturbed.rglob("*"))
    message = fails(capsys, *TINY, "--workdir", str(undisturbed), *change)
    assert all(text in message for text in expected), message
    assert sorted(undisturbed.rglob("*")) == before


def test_evaluation_without_config_refuses_another_model(undisturbed, capsys):
    change = "--config.model.num_rem=3"
    message = fails(capsys, "--mode=eval", "--workdir", str(undisturbed), change)
    assert "model.num_rem=2  (now 3)" in message


@pytest.mark.parametrize("file", ["_CHECKPOINT_METADATA", "params/manifest.ocdbt", "params/d"])
def test_damaged_checkpoint_is_named(undisturbed, tmp_path, capsys, file):
    step = max(saved_steps(undisturbed))
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", undisturbed, copy], check=True)
    path = copy / "checkpoints" / str(step) / file
    for part in [path] if path.is_file() else path.iterdir():
        part.write_bytes(part.read_bytes()[:10])
    message = fails(capsys, "--mode=eval", "--workdir", str(copy), "--config.eval.step=latest")
    assert f"checkpoints/{step} is damaged" in message and "move this folder away" in message


def test_vocabulary_must_be_that_of_the_training(undisturbed, capsys, vrd_dir):
    data = [
        "--config.data.name=vrd",
        f"--config.data.dir={vrd_dir}",
        "--config.data.max_objects=30",
    ]
    message = fails(capsys, "--mode=eval", "--workdir", str(undisturbed), *data)
    assert "trained on 20 objects, data.name=vrd has 101" in message


WRONG = [
    ([], ["train needs --config"]),
    (["--mode=eval"], ["needs --workdir"]),
    (["--mode=test"], ["mode=test", "train|eval"]),
    (["--config=configs/nothing.py"], ["configs/nothing.py: no such file"]),
    ([f"{TINY[0]}={TINY[1]}:vrdd"], ["unknown variant 'vrdd'", "nearest: vrd"]),
    ([*TINY, "--config.train.lrr=1"], ["train.lrr is no setting", "train.lr"]),
    ([*TINY, "--config.trian.lr=1"], ["trian.lr is no setting; nearest: train.lr"]),
    ([*TINY, "--config.qqq=1"], ["qqq is no setting", "config.py"]),
    ([*TINY, "--config.train=1"], ["train is a section", "train.steps"]),
    ([*TINY, "--config.train.steps=many"], ["train.steps=many", "int"]),
    ([*TINY, "--config.train.steps=1.5"], ["train.steps=1.5", "int"]),
    ([*TINY, "train"], ["'train' is no flag", "--config.KEY=VALUE"]),
    ([*TINY, "--wokdir=x"], ["--wokdir", "--workdir"]),
    ([*TINY, "--config.model.fc_dim=0"], ["model.fc_dim=0: must be at least 1"]),
    ([*TINY, "--config.data.image_size=8"], ["data.image_size=8: must be at least 16"]),
    ([*TINY, "--config.data.train_images=0"], ["data.train_images=0: must be at least 1"]),
    ([*TINY, "--config.model.reduction=9"], ["model.reduction=9: must be at most 8"]),
    ([*TINY, "--config.model.row_op=max"], ["row_op='max'", "softmax, sigmoid"]),
    ([*TINY, "--config.train.lr=nan"], ["train.lr=nan: must be positive"]),
    ([*TINY, "--config.seed=-1"], ["seed=-1: must be 0 or more"]),
    ([*TINY, "--config.eval.step=bset"], ["eval.step='bset'", "best, latest"]),
    ([*TINY, "--config.eval.ks=(20,'a')"], ["eval.ks=(20, 'a')"]),
    ([*TINY, "--config.eval.metric=R@7"], ["eval.metric='R@7'", "R@20"]),
    ([*TINY, "--config.train.batch_size=4"], ["multiple of 8", "8 devices"]),
    ([*TINY, "--config.train.accumulation=3"], ["train.accumulation=3"]),
    ([*TINY, "--config.data.max_objects=3"], ["image 'train-", "max_objects is 3", "or more"]),
    ([*TINY, "--config.data.name=vg"], ["'vg'", "synthetic, ", "vrd, coco"]),
    ([*TINY, "--config.data.name=vrd"], ["data.name=vrd", "--config.data.dir=FOLDER"]),
    ([*TINY, "--config.data.name=vrd", "--config.data.dir=/missing"],
     ["'/missing' is no folder", "--config.data.dir=FOLDER"]),
    ([*TINY, "--config.model.word_vectors=/missing.npy"], ["/missing.npy", "word_vectors"]),
]  # fmt: skip


@pytest.mark.parametrize("arguments, expected", WRONG)
def test_wrong_input_is_one_message_and_leaves_no_trace(tmp_path, capsys, arguments, expected):
    workdir = tmp_path / "run"
    where = [] if arguments == ["--mode=eval"] else ["--workdir", str(workdir)]
    message = fails(capsys, *arguments, *where)
    assert all(text in message for text in expected), message
    assert not list(workdir.glob("*/*")) and not (workdir / "metrics.jsonl").exists()


@pytest.mark.parametrize("kind", ["missing", "empty", "file"])
def test_workdir_without_checkpoints(tmp_path, capsys, kind):
    workdir = tmp_path / "run"
    if kind == "empty":
        workdir.mkdir()
    if kind == "file":
        workdir.write_text("mine")
        assert "is a file" in fails(capsys, *TINY, "--workdir", str(workdir))
    message = fails(capsys, "--mode=eval", "--workdir", str(workdir))
    assert f"{workdir} holds no checkpoints" in message and "train first" in message
    assert workdir.exists() == (kind != "missing")
    assert kind != "empty" or not list(workdir.iterdir())


def write_vrd(folder):
    """Three photographs with one relation each, in VRD's layout."""
    (folder / "images").mkdir(parents=True)
    (folder / "objects.json").write_text('["person", "horse"]')
    (folder / "predicates.json").write_text('["on"]')
    ends = {"subject": {"category": 0, "bbox": [2, 20, 3, 30]},
            "object": {"category": 1, "bbox": [10, 40, 5, 60]}}  # fmt: skip
    relations = {f"{i}.jpg": [{**ends, "predicate": 0}] for i in range(3)}
    for name in relations:
        Image.new("RGB", (64, 48)).save(folder / "images" / name)
    for split in ("train", "test"):
        (folder / f"annotations_{split}.json").write_text(json.dumps(relations))
    return relations


def spoil(folder, relations, kind):
    relation = relations["2.jpg"][0]
    if kind == "unreadable":
        (folder / "images" / "2.jpg").write_bytes(b"no photograph")
    elif kind == "no image":
        (folder / "images" / "2.jpg").unlink()
    elif kind == "outside":
        relation["object"]["bbox"] = [10, 40, 5, 600]
    elif kind == "no object":
        del relation["object"]
    elif kind == "category":
        relation["subject"]["category"] = 2
    elif kind == "no json":
        (folder / "objects.json").write_text("[")
    elif kind == "too many":
        other = {"category": 1, "bbox": [1, 9, 1, 9]}
        relations["2.jpg"].append({**relation, "object": other})
    if kind in ("outside", "no object", "category", "too many"):
        (folder / "annotations_train.json").write_text(json.dumps(relations))


PHOTOGRAPHS = {
    "unreadable": ["2.jpg"],
    "no image": ["2.jpg"],
    "outside": ["annotations_train.json", "2.jpg", "bbox [10, 40, 5, 600]", "64x48"],
    "no object": ["annotations_train.json", "2.jpg", "object: missing", "correct these"],
    "category": ["annotations_train.json", "2.jpg", "2 must be an integer from 0 to 1"],
    "no json": ["objects.json is no JSON file"],
    "too many": ["'2.jpg' has 3 objects", "--config.data.max_objects=3 or more"],
    "no tensorflow": ["TensorFlow", "install tensorflow-cpu"],
}


@pytest.mark.parametrize("kind", PHOTOGRAPHS)
def test_wrong_photographs_and_annotations(tmp_path, capsys, monkeypatch, kind):
    folder = tmp_path / "vrd"
    spoil(folder, write_vrd(folder), kind)
    if kind == "no tensorflow":
        monkeypatch.delattr(data, "pipeline", raising=False)
        monkeypatch.setitem(sys.modules, "linknet_jax.data.pipeline", None)
    settings = ["--config.data.name=vrd", f"--config.data.dir={folder}"]
    settings += ["--config.data.max_objects=2", "--config.data.val_images=0"]
    message = fails(capsys, *TINY, *settings, "--workdir", str(tmp_path / "run"))
    assert all(text in message for text in PHOTOGRAPHS[kind]), message
    assert not (tmp_path / "run").exists()


CONFIGS = {
    "def get_config(variant=''):\n    return 3\n": "must return a ConfigDict",
    "def get_config(variant=''\n": "SyntaxError",
    "import no_such_module\n": "No module named 'no_such_module'",
    "x = 1\n": "get_config",
    "from linknet_jax import config\n"
    "def get_config(variant=''):\n"
    "    c = config.get_config('sgcls')\n"
    "    c.train.lrr = 1.0\n"
    "    return c\n": "train.lrr",
    "from linknet_jax import config\n"
    "def get_config(variant=''):\n"
    "    c = config.get_config('sgcls')\n"
    "    c.train.lr = 'fast'\n"
    "    return c\n": "lr",
    "from linknet_jax import config\n"
    "def get_config(variant=''):\n"
    "    c = config.get_config('sgcls')\n"
    "    del c.train.lr\n"
    "    return c\n": "train.lr is missing",
}


@pytest.mark.parametrize("text", CONFIGS)
def test_wrong_configuration_file(tmp_path, capsys, text):
    path = tmp_path / "mine.py"
    path.write_text(text)
    message = fails(capsys, "--config", str(path))
    assert str(path) in message and CONFIGS[text] in message


def test_help(capsys):
    assert main(["x", "--help"]) == 0
    text = capsys.readouterr().out
    assert "--mode eval" in text and "--config.KEY=VALUE" in text


def test_console_script(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["linknet", "fly"])
    assert cli.run() == 2 and "usage: linknet" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["linknet", "eval"])
    assert cli.run() == 2 and "needs --workdir" in capsys.readouterr().err
