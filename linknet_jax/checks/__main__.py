"""Whether this installation works, and what could be added to it: `linknet checks`.

One line a finding: ok, FAIL (the exit status is then 1 if it is the self-test) or -- for what is
absent and only some uses need, with the command that adds it.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import NamedTuple

from linknet_jax import __version__
from linknet_jax.command import exit_status

OK, FAIL, ABSENT = "ok", "FAIL", "--"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow", "simplejpeg",
            "ml-collections", "etils")  # fmt: skip
REINSTALL = "pip install -r requirements.txt"


class Extra(NamedTuple):
    """Something that only some uses need: any of `modules` provides it."""

    use: str
    modules: tuple[str, ...]
    command: str


EXTRAS = (
    Extra("TPU", ("libtpu",), 'pip install "jax[tpu]"'),
    Extra("GPU", ("jax_cuda12_plugin", "jax_cuda13_plugin"), 'pip install "jax[cuda12]"'),
    Extra("tf.data: training on photographs", ("tensorflow",), "pip install tensorflow-cpu"),
    Extra("TensorBoard: writing curves", ("tensorboardX",), "pip install tensorboardX"),
    Extra("TensorBoard: looking at them", ("tensorboard",), "pip install tensorboard"),
    Extra("export", ("flatbuffers",), "pip install flatbuffers"),
    Extra("to_networkx", ("networkx",), "pip install networkx"),
    Extra("video", ("av",), "pip install av"),
    Extra("demo: page", ("gradio",), "pip install gradio"),
    Extra("demo: boxes", ("gradio_image_annotation",), "pip install gradio_image_annotation"),
    Extra("gs:// paths", ("gcsfs",), "pip install gcsfs"),
)


class Finding(NamedTuple):
    """One line: its status, what it is about, and what was found or the remedy."""

    status: str
    what: str
    detail: str

    def __str__(self) -> str:
        return f"{self.status:<4}  {self.what:<34} {self.detail}"


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return exit_status(lambda: run(argv))


def run(argv: list[str] | None) -> int:
    """Prints every finding as it is made; 0 where the self-test passes."""
    argparse.ArgumentParser("linknet checks", description=__doc__.partition("\n")[0]).parse_args(
        argv
    )
    print(f"linknet_jax {__version__}, Python {platform.python_version()}, {platform.platform()}")
    for finding in (*versions(), *devices(), cache_folder(), *extras()):
        print(finding, flush=True)
    passed, start = True, time.perf_counter()
    for finding in self_test():
        print(finding, flush=True)
        passed = passed and finding.status == OK
    took = f"in {time.perf_counter() - start:.1f} s"
    print(f"self-test {'passed' if passed else 'FAILED'} {took}")
    return int(not passed)


def versions() -> Iterator[Finding]:
    """Of the packages that everything needs."""
    for name in PACKAGES:
        try:
            yield Finding(OK, name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(FAIL, name, f"not installed: {REINSTALL}")


def devices() -> Iterator[Finding]:
    """What JAX computes on."""
    try:
        import jax

        found = jax.local_devices()
    except Exception as error:  # a driver may fail in many ways
        yield Finding(FAIL, "devices", _first_line(error))
        return
    kinds = sorted({f"{x.platform} ({x.device_kind})" for x in found})
    yield Finding(OK, "devices", f"{len(found)} x {', '.join(kinds)}; {os.cpu_count()} CPU cores")


def cache_folder() -> Finding:
    """Whether compiled programs can be kept: in JAX_COMPILATION_CACHE_DIR, else with each run."""
    named = os.environ.get("JAX_COMPILATION_CACHE_DIR", "")
    what, folder = "compilation cache", named or os.getcwd()
    if "://" in folder:
        return Finding(OK, what, f"{folder} (a bucket, not tried)")
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        remedy = "set JAX_COMPILATION_CACHE_DIR to a folder that can be written"
        return Finding(FAIL, what, f"{error}; {remedy}")
    place = f"{named} is writable" if named else "in each run's folder; this folder is writable"
    return Finding(OK, what, place)


def extras() -> Iterator[Finding]:
    """What only some uses need."""
    for extra in EXTRAS:
        found = [name for name in extra.modules if _is_there(name)]
        if found:
            yield Finding(OK, extra.use, found[0])
        else:
            yield Finding(ABSENT, extra.use, f"not installed: {extra.command}")


def self_test() -> Iterator[Finding]:
    """Each part of the tiny model's test, with its time."""
    try:
        parts = importlib.import_module("linknet_jax.checks.self_test").parts()
    except Exception as error:  # any package may be absent or broken
        yield Finding(FAIL, "self-test", f"{_first_line(error)}; {REINSTALL}")
        return
    for name, test in parts.items():
        start = time.perf_counter()
        try:
            detail = f"{test()} ({time.perf_counter() - start:.1f} s)"
            yield Finding(OK, f"self-test: {name}", detail)
        except Exception as error:
            yield Finding(FAIL, f"self-test: {name}", _first_line(error))


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


if __name__ == "__main__":
    sys.exit(main())
