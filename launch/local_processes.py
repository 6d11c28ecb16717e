"""Runs N copies of a command on this machine, as one run of N processes.

  python launch/local_processes.py N [--devices D] -- COMMAND ...

Every copy learns who it is from the LINKNET_ variables that linknet_jax/parallel.py reads. With
--devices each has D fake CPU devices. Output lines start with [index]. When one copy fails the
others are ended, and its exit status is returned. SIGTERM and Ctrl-C reach all of them as SIGTERM;
a second one kills them.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import IO

GRACE = 5.0  # seconds until a failure becomes SIGTERM for the others, and again until SIGKILL
WRITING = threading.Lock()
LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(argv: Sequence[str]) -> int:
    """Runs the command line; returns the first failure's exit status, 0 without one."""
    count, devices, command = parse(argv)
    requests: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: requests.append(number))
    port = free_port()
    processes: list[subprocess.Popen] = []
    try:
        for index in range(count):
            processes.append(start(command, environment(index, count, port, devices)))
        readers = [start_reader(i, x.stdout) for i, x in enumerate(processes)]
        status = watch(processes, requests)
    except OSError as error:
        print(f"error: cannot start {command[0]!r}: {error}", file=sys.stderr)
        return 127
    finally:
        for process in processes:
            if process.returncode is None:
                send(process, signal.SIGKILL)
    for reader in readers:
        reader.join(GRACE)  # a daemon that a child left in a session of its own may hold the pipe
    return status


def parse(argv: Sequence[str]) -> tuple[int, int, list[str]]:
    """(processes, fake devices of each or 0, command); exits with status 2 where one is wrong."""
    split = list(argv).index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(
        usage="%(prog)s N [--devices D] -- COMMAND ...", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("count", metavar="N", type=int, help="processes")
    parser.add_argument("--devices", metavar="D", type=int, help="fake CPU devices of each")
    options = parser.parse_args(argv[:split])
    for name, value in vars(options).items():
        if value is not None and value < 1:
            parser.error(f"{name} is {value}; it must be at least 1")
    command = list(argv[split + 1 :])
    if not command:
        parser.error("no command; write it after --")
    return options.count, options.devices or 0, command


def free_port() -> int:
    """A TCP port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(index: int, count: int, port: int, devices: int) -> dict[str, str]:
    """What process `index` of `count` finds in its environment."""
    result = os.environ | {
        "LINKNET_COORDINATOR": f"127.0.0.1:{port}",
        "LINKNET_NUM_PROCESSES": str(count),
        "LINKNET_PROCESS_ID": str(index),
        "PYTHONUNBUFFERED": "1",  # a pipe would hold lines back
    }
    if devices:
        fake = f"--xla_force_host_platform_device_count={devices}"
        result["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {fake}".strip()
        result["JAX_PLATFORMS"] = "cpu"
    return result


def start(command: Sequence[str], env: dict[str, str]) -> subprocess.Popen:
    """A child in a session of its own, so that a terminal's Ctrl-C comes from here only."""
    return subprocess.Popen(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_end_with_parent if sys.platform == "linux" else None,
    )


def _end_with_parent() -> None:
    """Even kill -9 of this launcher leaves no orphan."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def start_reader(index: int, stream: IO[bytes]) -> threading.Thread:
    """A thread that copies the lines of `stream` to standard output, prefixed."""
    thread = threading.Thread(target=_copy, args=(f"[{index}] ".encode(), stream), daemon=True)
    thread.start()
    return thread


def _copy(prefix: bytes, stream: IO[bytes]) -> None:
    out = sys.stdout.buffer
    with stream:
        for line in stream:
            try:
                with WRITING:
                    out.write(prefix + line.removesuffix(b"\n") + b"\n")
                    out.flush()
            except BrokenPipeError:  # `| head`: the child's pipe closes too, so that it ends
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return


def watch(processes: Sequence[subprocess.Popen], requests: Sequence[int]) -> int:
    """Waits for all; returns the first failure's exit status.

    `requests` grows by a number with each signal that this launcher gets.
    """
    running, status, failed, sent = list(processes), 0, None, 0
    while running:
        for process in [x for x in running if x.poll() is not None]:
            running.remove(process)
            send(process, signal.SIGKILL)  # what it started and left behind
            if process.returncode and failed is None:
                status, failed = exit_status(process), time.monotonic()
        overdue = 0 if failed is None else int((time.monotonic() - failed) / GRACE)
        if max(len(requests), overdue) > sent:
            for process in running:
                send(process, signal.SIGKILL if sent else signal.SIGTERM)
            sent += 1
        time.sleep(0.02)
    return status


def send(process: subprocess.Popen, number: int) -> None:
    """Signals the process and all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def exit_status(process: subprocess.Popen) -> int:
    """As a shell gives it: 128 + number where a signal ended the process."""
    return process.returncode if process.returncode > 0 else 128 - process.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
