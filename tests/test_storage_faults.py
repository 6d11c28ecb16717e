"""Storage that fails: damaged, missing and cut files, a read-only workdir, a full disk.

Whatever happens, what is restored is a checkpoint that was saved, or there is a message.
"""

import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import kills, runs
from linknet_jax import parallel
from linknet_jax.checkpoints import Checkpoints

ABOUT = {"config": {"task": "sgcls"}, "vocabulary": {"objects": ["man"], "predicates": ["on"]}}
SETTINGS = kills.SETTINGS | {"train.steps": 4, "train.eval_every": 2, "checkpoint.every": 2}
FILES = (
    "_CHECKPOINT_METADATA", "commit_success.txt", "metrics/metrics", "params/_METADATA",
    "params/_sharding", "params/array_metadatas/process_0", "params/commit_success.txt",
    "params/manifest.ocdbt", "params/ocdbt.process_0/manifest.ocdbt",
    "params/d/*", "params/ocdbt.process_0/d/*", "train/manifest.ocdbt", "train/d/*",
)  # fmt: skip
DAMAGE = {
    "deleted": None,
    "emptied": lambda data: b"",
    "cut in half": lambda data: data[: len(data) // 2],
    "one byte short": lambda data: data[:-1],
    "zeros": lambda data: bytes(len(data)),
}


def make_items(step):
    """A training state with an array too large to be stored inside the index."""
    rng = np.random.default_rng(step)
    params = {"fc": {"kernel": jnp.asarray(rng.normal(size=(64, 96)), jnp.float32)}}
    return {"params": params, "train": {"step": jnp.asarray(step)}}


@pytest.fixture(scope="module")
def saved_twice(tmp_path_factory):
    """A workdir with steps 1 and 2, the second one best."""
    workdir = tmp_path_factory.mktemp("saved")
    with Checkpoints(workdir, "R@20", keep=2) as saved:
        for step in (1, 2):
            saved.save(step, make_items(step), {"R@20": step / 10}, ABOUT)
    return workdir


def restored(workdir):
    """(step, items) of the latest checkpoint, also asked for the best and its description."""
    shapes = jax.eval_shape(lambda: make_items(0))
    with Checkpoints(workdir, "R@20") as saved:
        step = saved.latest
        assert saved.best() in (1, 2) and saved.about(step) == ABOUT
        return step, saved.restore(step, parallel.placed(shapes, parallel.create_mesh()))


@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_is_named_or_does_no_harm(saved_twice, tmp_path, file):
    for kind, spoil in DAMAGE.items():
        workdir = tmp_path / kind
        shutil.copytree(saved_twice, workdir)
        paths = list((workdir / "checkpoints" / "2").glob(file))
        assert paths, f"Orbax writes no {file} any more"
        for path in paths:
            path.unlink() if spoil is None else path.write_bytes(spoil(path.read_bytes()))
        try:
            step, items = restored(workdir)
        except ValueError as error:
            assert "checkpoints/2 is damaged" in str(error), kind
            assert "move this folder away" in str(error)
            shutil.rmtree(workdir / "checkpoints" / "2")
            step, items = restored(workdir)
            assert step == 1
        jax.tree.map(np.testing.assert_array_equal, items, make_items(step))


@pytest.mark.parametrize("name", ["params", "train", "params/ocdbt.process_0", "params/d"])
def test_a_folder_of_a_checkpoint_is_missing(saved_twice, tmp_path, name):
    shutil.copytree(saved_twice, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "2" / name)
    with pytest.raises(ValueError, match=r"checkpoints/2 is damaged.*move this folder away"):
        restored(tmp_path / "run")


def test_without_the_last_step_the_one_before_it(saved_twice, tmp_path):
    shutil.copytree(saved_twice, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "2")
    step, items = restored(tmp_path / "run")
    assert step == 1
    jax.tree.map(np.testing.assert_array_equal, items, make_items(1))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The workdir of a run; its compilation cache lies beside it."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    run(arguments(workdir, workdir.parent / "cache"))
    return workdir


def environment():
    flags = "--xla_force_host_platform_device_count=1 --xla_backend_optimization_level=0"
    return os.environ | {"XLA_FLAGS": flags, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}


def arguments(workdir, cache):
    return [sys.executable, "-m", "linknet_jax.main",
            *runs.flags("predcls", workdir, cache, SETTINGS)]  # fmt: skip


def run(program, status=0):
    """What the program wrote to standard error; it must end with the status."""
    done = subprocess.run(program, cwd=runs.ROOT, env=environment(), text=True, timeout=200,
                          capture_output=True, check=False)  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    return done.stderr


# Root may write anywhere; a root without CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER may not.
OBEYING_PERMISSIONS = """
import ctypes, os, sys
for capability in (1, 2, 3):
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux capabilities")
@pytest.mark.parametrize("folder", [".", "checkpoints"])
def test_a_read_only_workdir_is_refused_at_once(tmp_path, folder):
    workdir = tmp_path / "run"
    (workdir / folder).mkdir(parents=True)
    (workdir / folder).chmod(0o555)
    program = arguments(workdir, tmp_path / "cache")
    message = run([sys.executable, "-c", OBEYING_PERMISSIONS, *program], status=2)
    assert message.startswith("error: ") and str(workdir / "checkpoints") in message
    assert "Permission denied" in message and "Traceback" not in message
    assert not (workdir / "metrics.jsonl").exists()


def test_a_cut_compilation_cache_costs_only_time(trained, tmp_path):
    """A kill while it is written leaves such files, and JAX writes them no second time."""
    shutil.copytree(trained.parent / "cache", tmp_path / "cache")
    entries = list((tmp_path / "cache").glob("jit_train_step*-cache"))
    for path in entries:
        path.write_bytes(path.read_bytes()[:1000])
    run(arguments(tmp_path / "run", tmp_path / "cache"))
    assert entries and kills.outcome(tmp_path / "run") == kills.outcome(trained)


FULL_DISK = """
folder=$1; size=$2; shift 2
mount -t tmpfs -o size=${size}k tmpfs "$folder" || exit 99
"$@" 2> "$folder.message"; echo $? > "$folder.status"
cp -r "$folder/run" "$folder.full"
mount -o remount,size=100m "$folder"
"$@" > "$folder.output" || exit 1
cp -r "$folder/run" "$folder.done"
"""


def blocks(folder):
    """KiB of the files of a folder where every file begins a block of 4 KiB."""
    return sum(-(-p.stat().st_size // 4096) * 4 for p in folder.rglob("*") if p.is_file())


def full_disk(folder, size, program):
    """Runs it on a disk of `size` KiB, and once more on a large one; skips where none is given."""
    shell = shutil.which("unshare")
    if not shell or subprocess.run([shell, "-rm", "true"], check=False).returncode:
        pytest.skip("a small disk needs `unshare` and user namespaces")
    folder.mkdir()
    run([shell, "-rm", "sh", "-c", FULL_DISK, "sh", str(folder), str(size), *program])


def test_a_full_disk_is_reported_and_the_same_command_goes_on(trained, tmp_path):
    """The second checkpoint fits on it in part."""
    disk = tmp_path / "disk"
    size = 20 + 1.6 * blocks(trained / "checkpoints" / "2")
    full_disk(disk, int(size), arguments(disk / "run", trained.parent / "cache"))
    message = (tmp_path / "disk.message").read_text()
    assert (tmp_path / "disk.status").read_text() == "2\n", message
    (error,) = [line for line in message.splitlines() if line.startswith("error: ")]
    assert "could not be written to" in error and "No space left on device" in error
    assert runs.steps(tmp_path / "disk.full") == [2]
    assert "resumes after step 2" in (tmp_path / "disk.output").read_text()
    assert kills.outcome(tmp_path / "disk.done") == kills.outcome(trained)


METRICS_ON_A_FULL_DISK = """
import resource, sys
from etils import epath
from linknet_jax.writer import Writer
with Writer(epath.Path(sys.argv[1]), 0, 9, 1) as writer:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
    for step in range(200):
        writer.scalars(step, {"loss": 1.0}, "train")
"""


def test_a_full_disk_ends_the_metrics_and_does_not_hang(tmp_path):
    for folder in ("tensorboard", "metrics"):
        workdir = tmp_path / folder
        workdir.mkdir()
        if folder == "tensorboard":  # only its file can be what fills the disk
            (workdir / "metrics.jsonl").symlink_to("/dev/null")
        program = [sys.executable, "-c", METRICS_ON_A_FULL_DISK, str(workdir)]
        assert "OSError: [Errno 27] File too large" in run(program, 1)
