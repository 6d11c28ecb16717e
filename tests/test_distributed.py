"""Several processes on this machine: as one process, and stopped by a signal to one of them."""

import os
import shutil
import signal
import time

import pytest

from benchmarks import kills, runs
from linknet_jax.main import main

STEPS = 60
SETTINGS = kills.SETTINGS | {
    "train.steps": STEPS,
    "train.eval_every": STEPS // 2,
    "checkpoint.every": STEPS // 4,
    "train.lr": 3e-4,
}
DEADLINE = 30  # seconds from the signal to the end of all processes


def start(folder, name, processes, devices):
    """The command in the workdir `name`, with one compilation cache for all."""
    arguments = runs.flags("predcls", folder / name, folder / "cache", SETTINGS)
    return runs.start(processes, devices, arguments, kills.log_of(folder / name), fast=True)


def said(folder, name):
    return kills.log_of(folder / name).read_text()


def wait_for_steps(process, workdir, count):
    deadline = time.monotonic() + 300
    while len(runs.lines(workdir, "train")) < count:
        assert process.poll() is None, kills.log_of(workdir).read_text()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def alone(folder):
    """A run of one process with four devices."""
    assert start(folder, "alone", 1, 4).wait(300) == 0, said(folder, "alone")
    return folder / "alone"


@pytest.fixture(scope="module")
def stopped(folder):
    """(workdir, status, seconds, output) of two processes, of which the second got SIGTERM."""
    workdir = folder / "two"
    process = start(folder, "two", 2, 2)
    try:
        wait_for_steps(process, workdir, 3)
        os.kill(kills.children(process.pid)[1], signal.SIGTERM)
        begin = time.monotonic()
        status = process.wait(4 * DEADLINE)
    finally:
        process.kill()
    return workdir, status, time.monotonic() - begin, said(folder, "two")


def test_sigterm_to_one_of_two_processes_ends_both(stopped):
    workdir, status, seconds, output = stopped
    assert status == 0 and seconds < DEADLINE, output
    (last,) = runs.steps(workdir)[-1:]
    assert f"saved after step {last}; rerun to resume" in output and last < STEPS
    assert runs.lines(workdir, "train")[-1]["step"] == last
    assert not (workdir / "results.json").exists()
    assert not list((workdir / "checkpoints").glob("*tmp*"))


def test_two_processes_are_as_one(folder, alone, stopped):
    """Losses to rounding, evaluations and checkpoints kept; the two were interrupted besides."""
    workdir, *_ = stopped
    (last,) = runs.steps(workdir)[-1:]
    process = start(folder, "two", 2, 2)
    try:
        assert process.wait(300) == 0, said(folder, "two")
    finally:
        process.kill()
    assert f"resumes after step {last}" in said(folder, "two")
    ours, expected = runs.lines(workdir, "train"), runs.lines(alone, "train")
    assert len(expected) == STEPS
    for line, other in zip(ours, expected, strict=True):
        assert line == pytest.approx(other, rel=2e-5)
    assert runs.lines(workdir, "val") == runs.lines(alone, "val")
    assert (workdir / "results.json").read_bytes() == (alone / "results.json").read_bytes()
    assert runs.state(workdir, STEPS).keys() == runs.state(alone, STEPS).keys()


def test_a_checkpoint_of_two_processes_on_eight_devices_here(folder, stopped, tmp_path):
    shutil.copytree(folder / "two" / "checkpoints", tmp_path / "checkpoints")
    assert main(["x", "--mode=eval", "--workdir", str(tmp_path)]) == 0
    expected = (folder / "two" / "results.json").read_bytes()
    assert (tmp_path / "results.json").read_bytes() == expected
