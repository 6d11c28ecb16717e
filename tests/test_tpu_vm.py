"""launch/tpu_vm.sh offline: the commands it prints, and its loop against a stand-in for gcloud."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[1]
LAUNCH = ROOT / "launch"
COMMAND = ["python", "-m", "linknet_jax.main", "--workdir=gs://b/w"]
PLACE = ["--project=p", "--zone=us-east5-b"]
SSH = [
    "ssh", "t1", "--worker=all", "--ssh-flag=-oConnectTimeout=20",
    "--ssh-flag=-oServerAliveInterval=30", "--ssh-flag=-oServerAliveCountMax=4",
]  # fmt: skip
CREATE = ["queued-resources", "create", "t1", "--node-id=t1"]
NODE = ["--accelerator-type=v6e-16", "--runtime-version=v2-alpha-tpuv6e"]
DESCRIBE = ["queued-resources", "describe", "t1", "--format=value(state.state)"]
DELETE = ["queued-resources", "delete", "t1", "--force", "--quiet"]


def tpu_vm(*arguments, **env):
    keep = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [LAUNCH / "tpu_vm.sh", *arguments],
        env={**keep, "PROJECT": "p", "ZONE": "us-east5-b", **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def dry(*arguments, **env):
    """The commands, read back as a shell reads them."""
    done = tpu_vm(*arguments, DRY_RUN="1", **env)
    assert done.returncode == 0, done.stderr
    return commands(done.stdout)


def commands(text):
    """Lines of %q words as lists; bash itself reads them, since $'...' is beyond shlex."""
    script = f'show() {{ printf "%s\\0" "$@"; printf "\\0"; }}\n{re.sub("(?m)^", "show ", text)}'
    done = subprocess.run(
        ["bash", "-c", script.removesuffix("show ")], capture_output=True, text=True, check=True
    )
    return [x.split("\0") for x in done.stdout.split("\0\0") if x]


def tpus(*words):
    return ["gcloud", "compute", "tpus", *words, *PLACE]


@pytest.mark.parametrize(
    ("env", "flags"), [({}, []), ({"SPOT": "1"}, ["--spot"]), ({"RESERVED": "1"}, ["--reserved"])]
)
def test_create(env, flags):
    assert dry("create", "t1", **env) == [tpus(*CREATE, *NODE, *flags)]


def test_settings():
    (command,) = dry("create", "t1", ACCELERATOR="v5p-8", RUNTIME_VERSION="v2-alpha-tpuv5")
    assert {"--accelerator-type=v5p-8", "--runtime-version=v2-alpha-tpuv5"} <= set(command)


@pytest.mark.parametrize(
    ("action", "words"), [("status", DESCRIBE), ("wait", DESCRIBE), ("delete", DELETE)]
)
def test_state_and_delete(action, words):
    assert dry(action, "t1") == [tpus(*words)]


def test_setup_copies_the_commit_and_installs_it():
    archive, copy, install = dry("setup", "t1")
    file = archive[-2].removeprefix("--output=")
    assert archive == ["git", "-C", str(ROOT), "archive", "--format=tar.gz", f"--output={file}",
                       "HEAD"]  # fmt: skip
    assert copy == tpus("tpu-vm", "scp", file, "t1:linknet_jax.tar.gz", "--worker=all")
    assert install[:-3] == ["gcloud", "compute", "tpus", "tpu-vm", *SSH]
    script = install[-3].removeprefix("--command=")
    assert "tar -xzf linknet_jax.tar.gz" in script and "pip install --quiet -e '.[tpu]'" in script
    assert subprocess.run(["bash", "-n", "-c", script], check=False).returncode == 0


HARD = ["show", "two words", "it's", '"quoted"', "$HOME", "a;b && c", "*", "new\nline", ""]


def test_run_quotes_for_the_remote_shell(tmp_path):
    (command,) = dry("run", "t1", "--", *HARD)
    assert command[:-3] == ["gcloud", "compute", "tpus", "tpu-vm", *SSH]
    (tmp_path / "linknet_jax").mkdir()
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "activate").write_text('show() { printf "%s|" "$@"; return 5; }\n')
    done = subprocess.run(
        ["bash", "-c", command[-3].removeprefix("--command=")],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "".join(f"{x}|" for x in HARD[1:]) and done.returncode == 5


def test_a_host_that_goes_down_has_not_finished(tmp_path):
    program = "trap 'exit 0' TERM; echo ready; sleep 20 & wait"  # saves and returns 0
    (command,) = dry("run", "t1", "--", "sh", "-c", program)
    (tmp_path / "linknet_jax").mkdir()
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "activate").touch()
    process = subprocess.Popen(
        ["bash", "-c", command[-3].removeprefix("--command=")],
        cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=10) != 0


def test_stop_ends_the_run_and_no_shell():
    (command,) = dry("stop", "t1")
    script = command[-3].removeprefix("--command=")
    pattern = re.compile(re.search(r"'(.*)'", script).group(1))
    assert pattern.search("python -m linknet_jax.main --config=x")
    assert pattern.search("/home/u/venv/bin/python /home/u/venv/bin/linknet train")
    assert not pattern.search("bash -c cd linknet_jax && . a && python -m linknet_jax.main ; exit")
    assert not pattern.search(f"bash -c {script}") and not pattern.search("/usr/bin/python3 agent")


def test_dry_resume_prints_a_whole_round():
    found = [" ".join(x[:5]) for x in dry("resume", "t1", "--", *COMMAND, SPOT="1")]
    gcloud = "gcloud compute tpus"
    assert [x.split(" /")[0] for x in found] == [
        f"{gcloud} tpu-vm ssh", "sleep 30", f"{gcloud} queued-resources describe",
        f"{gcloud} queued-resources delete", f"{gcloud} queued-resources create",
        f"{gcloud} queued-resources describe", "git -C", f"{gcloud} tpu-vm scp",
        f"{gcloud} tpu-vm ssh",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "env", "message"),
    [
        ((), {}, "run|resume NAME -- COMMAND"),
        (("create",), {}, "run|resume NAME"),
        (("destroy", "t1"), {}, "create|wait|setup"),
        (("usage", "t1"), {}, "create|wait|setup"),
        (("run", "t1"), {}, "run|resume NAME"),
        (("run", "t1", "--"), {}, "run|resume NAME"),
        (("delete", "t1", "t2"), {}, "create|wait|setup"),
        (("create", "t1"), {"PROJECT": ""}, "set PROJECT"),
        (("create", "t1"), {"ZONE": ""}, "set ZONE"),
        (("create", "t1"), {"SPOT": "1", "RESERVED": "1"}, "exclude each other"),
    ],
)
def test_wrong_calls(arguments, env, message):
    done = tpu_vm(*arguments, DRY_RUN="1", **env)
    assert done.returncode != 0 and message in done.stderr and not done.stdout


GCLOUD = """#!/usr/bin/env bash
# Logs what it is asked; states, and statuses of set-ups and runs, are lists, one line a call.
next() { head -n 1 "$1"; sed -i 1d "$1"; }
cd "$(dirname "$0")"
case "$*" in
  *" describe "*) next states ;;
  *" ssh "*main*) echo run >> log; exit "$(next statuses)" ;;
  *" ssh "*) echo setup >> log; exit "$(next statuses)" ;;
  *" create "*) echo create >> log ;;
  *" delete "*) echo delete >> log ;;
esac
"""


def resume(folder, states, statuses):
    """(exit status, what was asked) of `resume` with a stand-in for gcloud."""
    (folder / "gcloud").write_text(GCLOUD)
    (folder / "gcloud").chmod(0o755)
    (folder / "states").write_text("".join(f"{x}\n" for x in states))
    (folder / "statuses").write_text("".join(f"{x}\n" for x in statuses))
    path = f"{folder}:{os.environ['PATH']}"
    done = tpu_vm("resume", "t1", "--", *COMMAND, PATH=path, POLL="0")
    assert not (folder / "states").read_text(), "not all states were asked for"
    return done.returncode, (folder / "log").read_text().split()


AGAIN = ["delete", "create", "setup", "run"]
WAITING = ["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]
TWICE = ["SUSPENDED", "ACTIVE", "SUSPENDED", "ACTIVE", "ACTIVE"]


@pytest.mark.parametrize(
    ("states", "statuses", "status", "asked"),
    [
        (["ACTIVE"], [0], 0, ["run"]),
        (["ACTIVE"], [3], 3, ["run"]),
        (["SUSPENDED", *WAITING, "ACTIVE"], [255, 0, 0], 0, ["run", *AGAIN]),
        (["SUSPENDING", "SUSPENDED", *WAITING, "ACTIVE"], [0, 0, 0], 0, ["run", *AGAIN]),
        (TWICE, [255, 0, 1, 0, 0], 0, ["run", *AGAIN, *AGAIN]),
        (TWICE, [255, 255, 255, 0, 0], 0, ["run", *AGAIN, *AGAIN]),
        (["SUSPENDED", "SUSPENDED", "SUSPENDED", "ACTIVE", "ACTIVE"], [255, 255, 0, 0], 0,
         ["run", "delete", "create", "run", *AGAIN]),
        (["", *WAITING, "ACTIVE"], [1, 0, 0], 0, ["run", *AGAIN[1:]]),
        (["PROVISIONING", "ACTIVE", "ACTIVE"], [1, 0, 0], 0, ["run", "setup", "run"]),
        (["SUSPENDED", "FAILED", "FAILED"], [255, 1], 1, ["run", "delete", "create", "run"]),
    ],
    ids=["finished", "failed", "preempted", "saved and preempted", "twice",
         "while setting up", "while waiting", "absent", "not yet there", "no more"],
)  # fmt: skip
def test_resume(tmp_path, states, statuses, status, asked):
    assert resume(tmp_path, states, statuses) == (status, asked)


def readme_commands():
    """The gcloud commands of the README."""
    blocks = re.findall(r"```bash\n(.*?)```", (LAUNCH / "README.md").read_text(), re.DOTALL)
    lines = (line.strip() for block in blocks for line in block.splitlines())
    return [line for line in lines if line.startswith("gcloud ")]


def script_commands():
    calls = [("create", "t1"), ("status", "t1"), ("setup", "t1"), ("run", "t1", "--", *COMMAND),
             ("stop", "t1"), ("delete", "t1")]  # fmt: skip
    found = [command for call in calls for command in dry(*call, SPOT="1")]
    found += dry("create", "t1", RESERVED="1")
    return [shlex.join(x) for x in found if x[0] == "gcloud"]


@pytest.mark.skipif(not shutil.which("gcloud"), reason="needs the Cloud SDK")
def test_gcloud_accepts_every_command(tmp_path):
    found = script_commands() + readme_commands()
    assert len(found) > 20
    (tmp_path / "commands.json").write_text(json.dumps([{"command_string": x} for x in found]))
    done = subprocess.run(
        ["gcloud", "meta", "lint-gcloud-commands", "--commands-file=commands.json"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    wrong = [(x["command_string"], x["error_message"]) for x in results if not x["success"]]
    assert len(results) == len(found) and not wrong
