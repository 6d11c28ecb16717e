"""Where the time goes, what a step costs, and the trace of some steps."""

import pathlib
import subprocess
import sys
import time
import types

import jax
import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from linknet_jax import utilisation
from linknet_jax.profile import Profile
from linknet_jax.stopwatch import Stopwatch

ROOT = pathlib.Path(__file__).parents[1]


def slow(count, seconds):
    for number in range(count):
        time.sleep(seconds)
        yield number


def test_the_time_is_split_into_its_parts():
    watch = Stopwatch()
    for number in watch.waiting("data", slow(3, 0.04)):
        with watch.part("device"):
            time.sleep(0.02)
        assert number < 3
    time.sleep(0.06)
    shares = watch.shares()
    assert shares.keys() == {"data", "device", "checkpoint", "host"}
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["checkpoint"] == 0 and shares["data"] > shares["device"] > 0.1
    time.sleep(0.01)
    assert watch.shares()["host"] == pytest.approx(1)  # begins anew


def test_an_error_in_a_part_is_counted_and_passed_on():
    watch = Stopwatch()
    with pytest.raises(KeyError), watch.part("checkpoint"):
        time.sleep(0.01)
        raise KeyError
    assert watch.shares()["checkpoint"] > 0.5


def test_operations_of_a_product_are_counted():
    product = jax.jit(lambda a, b: a @ b)
    operands = jnp.ones((64, 32)), jnp.ones((32, 16))
    product(*operands)
    assert utilisation.step_flops(product, *operands) == pytest.approx(2 * 64 * 32 * 16, rel=0.1)


@pytest.mark.parametrize(
    "kind, peak",
    [("TPU v5 lite", 197e12), ("TPU v5p", 459e12), ("NVIDIA H200", 989e12), ("cpu", None)],
)
def test_utilisation_is_a_part_of_the_peak(kind, peak):
    device = types.SimpleNamespace(device_kind=kind)
    found = utilisation.utilisation(1e12, 0.5, device)
    assert found["flops_per_second"] == 2e12
    assert found.get("mfu") == (2e12 / peak if peak else None)


def test_memory_of_a_process_is_that_of_its_arrays():
    """In a process of its own: the peak of this one may lie behind it."""
    program = """
import numpy as np
from linknet_jax import utilisation
before = utilisation.peak_memory()
block = np.ones(2**28, np.uint8)
print(utilisation.peak_memory() - before, block.sum())
"""
    call = [sys.executable, "-c", program]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 0.2 < float(done.stdout.split()[0]) < 0.4


def test_the_steps_that_are_asked_for_are_traced(tmp_path):
    profile = Profile(ConfigDict({"steps": 2, "after": 1}), tmp_path, 4)
    said = [profile.before(step, jnp.sin(jnp.ones(3))) for step in range(5, 11)]
    assert [bool(x) for x in said] == [False, False, False, True, False, False]  # before step 8
    assert str(tmp_path) in said[3] and list(tmp_path.rglob("*.xplane.pb"))
    assert profile.close() == ""


def test_a_run_that_ends_within_the_trace_keeps_it(tmp_path):
    profile = Profile(ConfigDict({"steps": 9, "after": 0}), tmp_path, 0)
    profile.before(1, ())
    jnp.cos(jnp.ones(3)).block_until_ready()
    assert profile.close() and list(tmp_path.rglob("*.xplane.pb"))


def test_nothing_is_traced_by_default(tmp_path):
    profile = Profile(ConfigDict({"steps": 0, "after": 0}), tmp_path, 0)
    assert not any(profile.before(step, ()) for step in range(1, 4)) and not profile.close()
    assert not list(tmp_path.iterdir())
