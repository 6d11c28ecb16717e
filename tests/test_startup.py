"""The start-up benchmark: what it reads out of a run's lines, and that JAX still says it."""

import json

import jax
import jax.numpy as jnp
import pytest

from benchmarks import startup
from linknet_jax import writer

TRACING, LOWERING, COMPILATION, READS = startup.PHASES


def event(name, seconds):
    return startup.MARK + json.dumps([name, seconds])


LINES = [
    (1.0, event(TRACING, 0.25)),
    (2.0, event(COMPILATION, 0.5)),
    (3.0, "sgcls on synthetic: 32 images, 4.6 M parameters, 1 cpu devices; starts"),
    (4.0, event(TRACING, 0.5)),
    (5.0, event(LOWERING, 0.125)),
    (6.0, event(READS, 1.0)),
    (6.0, event(COMPILATION, 1.5)),
    (7.0, "first step after 4.1 s, 11.16 GFLOP a device"),
    (8.0, event(COMPILATION, 100.0)),
]


def test_summary():
    assert startup.summary(LINES) == {
        "tracing": 0.75,
        "lowering": 0.125,
        "compilation": 2.0,
        "of it cache reads": 1.0,
        "to the state": 3.0,
        "first step after": 4.1,
        "to the first step": 7.0,
        "neither traced, lowered nor compiled": 7 - 2.875,
    }


def test_a_run_that_fails_shows_its_last_lines():
    with pytest.raises(ValueError, match="no such file"):
        startup.summary([*LINES[:3], (4.0, "error: no such file")])


def test_least_of_each_figure():
    assert startup.least([{"a": 1.0, "b": 5.0}, {"a": 2.0, "b": 3.0}]) == {"a": 1.0, "b": 3.0}


def test_the_goal_is_named(capsys):
    cold = startup.summary(LINES)
    startup.report(cold, cold | {"compilation": 0.2})
    assert "0.100; goal 0.15 met" in capsys.readouterr().out
    startup.report(cold, cold)
    assert "MISSED" in capsys.readouterr().out


def test_jax_still_names_these_events():
    seen = set()

    def listen(name, seconds, **_):
        seen.add(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    jax.jit(lambda x: x * 3 + 1)(jnp.ones(7))
    assert {TRACING, LOWERING, COMPILATION} <= seen


def test_the_log_says_the_line_that_is_waited_for(tmp_path, capsys):
    with writer.Writer(tmp_path, 0, 1, 8) as log:
        log.first_step(1, 2e9)
    found = startup.summary(enumerate(capsys.readouterr().out.splitlines()))
    assert found["first step after"] < 60
