"""N processes of a command on one machine: who they are, how they end, and that none is left."""

from __future__ import annotations

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[1]
LAUNCH = ROOT / "launch"
DEVICES = "--xla_force_host_platform_device_count"


def launcher(*arguments, grace=0.3):
    """Its command line, with a shorter grace period."""
    program = "import sys, local_processes as l; l.GRACE = float(sys.argv.pop(1)); "
    program += "sys.exit(l.main(sys.argv[1:]))"
    return [sys.executable, "-c", program, str(grace), *map(str, arguments)]


def start(*arguments, grace=0.3, cwd=None, **env):
    return subprocess.Popen(
        launcher(*arguments, grace=grace),
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(LAUNCH), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments, **options):
    process = start(*arguments, **options)
    out, err = process.communicate(timeout=20)
    return process.returncode, out, err


HEAD = """
import os, signal, sys, time, subprocess
I, N = (int(os.environ["LINKNET_" + x]) for x in ("PROCESS_ID", "NUM_PROCESSES"))
def meet():
    open(f"here{I}", "w").close()
    while not all(os.path.exists(f"here{i}") for i in range(N)):
        time.sleep(0.01)
"""


def child(program):
    """A command for child I of N, which may wait for the others in the working directory."""
    return "--", sys.executable, "-c", HEAD + program


def pids(lines):
    return [int(line.split()[-1]) for line in lines]


def gone(pid):
    """Whether a process has ended, within two seconds; a zombie has."""
    stat = pathlib.Path(f"/proc/{pid}/stat")
    for _ in range(100):
        try:
            if stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


def environments(*arguments, **env):
    show = "import json; print(json.dumps(dict(os.environ)), flush=True)"
    status, out, err = run(*arguments, *child(show), **env)
    assert status == 0, err
    found = {}
    for line in out.splitlines():
        index, text = re.fullmatch(r"\[(\d)\] (.*)", line).groups()
        found[int(index)] = json.loads(text)
    return [found[i] for i in sorted(found)]


def test_children_know_who_they_are():
    found = environments(3, XLA_FLAGS="--keep=1", JAX_PLATFORMS="")
    assert [x["LINKNET_PROCESS_ID"] for x in found] == ["0", "1", "2"]
    assert {x["LINKNET_NUM_PROCESSES"] for x in found} == {"3"}
    (address,) = {x["LINKNET_COORDINATOR"] for x in found}
    assert re.fullmatch(r"127\.0\.0\.1:\d+", address)
    assert found[0]["XLA_FLAGS"] == "--keep=1" and found[0]["JAX_PLATFORMS"] == ""


def test_fake_devices_come_after_given_flags():
    (found,) = environments(1, "--devices", 3, XLA_FLAGS=f"{DEVICES}=8", JAX_PLATFORMS="")
    assert found["XLA_FLAGS"] == f"{DEVICES}=8 {DEVICES}=3"
    assert found["JAX_PLATFORMS"] == "cpu"


def test_jax_processes_find_each_other():
    program = (
        "import jax; from linknet_jax import parallel; parallel.initialize_distributed(); "
        "print(jax.process_index(), jax.process_count(), jax.device_count())"
    )
    env = {"PYTHONPATH": f"{LAUNCH}:{ROOT}"}
    status, out, err = run(2, "--devices", 2, *child(program), grace=5, **env)
    assert status == 0, out + err
    assert {"[0] 0 2 4", "[1] 1 2 4"} <= set(out.splitlines())


def test_both_streams_are_prefixed_and_whole():
    program = "print('x' * 5000); print('error', file=sys.stderr); sys.stdout.write('no newline')"
    status, out, _ = run(2, *child(program))
    assert status == 0
    lines = {f"[{i}] {text}" for i in range(2) for text in ("x" * 5000, "error", "no newline")}
    assert set(out.splitlines()) == lines


def test_first_failure_ends_the_others(tmp_path):
    program = """
signal.signal(signal.SIGTERM, lambda *_: (print("saved", flush=True), sys.exit(9)))
print(os.getpid(), flush=True)
meet()
time.sleep(0 if I == 1 else 60)
sys.exit(7)"""
    status, out, _ = run(3, *child(program), cwd=tmp_path)
    assert status == 7
    lines = out.splitlines()
    assert {"[0] saved", "[2] saved"} <= set(lines) and "[1] saved" not in lines
    assert all(map(gone, pids(x for x in lines if "saved" not in x)))


def test_the_others_have_time_to_end_by_themselves():
    program = """
signal.signal(signal.SIGTERM, lambda *_: print("too early", flush=True))
time.sleep(0.4 * I)
print("ended", flush=True)
sys.exit(1 if I == 0 else 0)"""
    status, out, _ = run(2, *child(program), grace=5)
    assert status == 1 and "[1] ended" in out and "too early" not in out


def test_who_ignores_sigterm_is_killed(tmp_path):
    program = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(os.getpid(), flush=True)
meet()
time.sleep(0 if I == 0 else 60)
sys.exit(3)"""
    status, out, _ = run(2, *child(program), cwd=tmp_path)
    assert status == 3 and all(map(gone, pids(out.splitlines())))


def test_killed_child_gives_a_shell_status():
    program = "os.kill(os.getpid(), signal.SIGKILL) if I else time.sleep(60)"
    assert run(2, *child(program))[0] == 128 + signal.SIGKILL


SAVES = """
def save(number, frame):
    time.sleep(0.5)
    print("saved", number, flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print("ready", os.getpid(), flush=True)
time.sleep(60)"""


def ready(process, count):
    lines = [process.stdout.readline() for _ in range(count)]
    assert all("ready" in x for x in lines), lines
    return pids(lines)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_all_as_sigterm(number):
    process = start(3, *child(SAVES), grace=0.1)  # saving takes longer than a failure's grace
    children = ready(process, 3)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert sorted(out.splitlines()) == [f"[{i}] saved 15" for i in range(3)]
    assert all(map(gone, children))


def test_second_signal_kills():
    program = SAVES.replace("time.sleep(0.5)", "print('ready', 0, flush=True); time.sleep(60)")
    process = start(2, *child(program))
    children = ready(process, 2)
    process.send_signal(signal.SIGTERM)
    ready(process, 2)  # both are at it
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=5)
    assert process.returncode == 128 + signal.SIGKILL and all(map(gone, children))


@pytest.mark.skipif(sys.platform != "linux", reason="the parent's death is a signal on Linux only")
def test_killing_the_launcher_kills_the_children():
    process = start(2, *child("print('ready', os.getpid(), flush=True); time.sleep(60)"))
    children = ready(process, 2)
    process.kill()
    process.communicate(timeout=5)
    assert all(map(gone, children))


def test_what_a_child_left_behind_is_killed():
    program = "p = subprocess.Popen(['sleep', '60']); print('left', p.pid, flush=True)"
    status, out, _ = run(2, *child(program))
    assert status == 0 and all(map(gone, pids(out.splitlines())))


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ((2,), 2, "no command; write it after --"),
        ((0, "--", "true"), 2, "count is 0; it must be at least 1"),
        ((1, "--devices", 0, "--", "true"), 2, "devices is 0; it must be at least 1"),
        ((1, "true"), 2, "unrecognized arguments: true"),
        ((2, "--", "no-such-command"), 127, "cannot start 'no-such-command'"),
    ],
)
def test_wrong_command_lines(arguments, status, message):
    found, _, err = run(*arguments)
    assert found == status and message in err
