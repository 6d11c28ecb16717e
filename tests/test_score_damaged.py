"""Damaged bytes for the command that scores: compressed files, long lines, outputs, chance."""

from __future__ import annotations

import contextlib
import copy
import gzip
import io
import json
import os
import pathlib
import random
import subprocess
import sys
import warnings

import pytest
from score_files import assert_refused, run, valid

ROOT = pathlib.Path(__file__).parents[1]
P, T = "predictions", "ground_truth"
MUTATIONS = 800
MEASURED = """
from linknet_jax.score import main
status = main()
with open("/proc/self/status") as file:  # ru_maxrss counts the parent too
    print(status, *(line.split()[1] for line in file if line.startswith("VmHWM")))
"""


def flipped(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]


GZ = {
    "truncated": (lambda x: gzip.compress(x)[:-30], ["after line ", "no complete gzip file"]),
    "without end": (lambda x: gzip.compress(x)[:-8], ["no complete gzip file"]),
    "half of the header": (lambda x: gzip.compress(x)[:6], ["after line 0", "no complete gzip"]),
    "half of the sum": (lambda x: gzip.compress(x)[:-3], ["no complete gzip file"]),
    "wrong sum": (lambda x: gzip.compress(x)[:-6] + b"\0" * 6, ["CRC check"]),
    "flipped": (lambda x: flipped(gzip.compress(x)), []),  # a line may be no JSON
    "plain": (lambda x: x, ["after line 0", "Not a gzipped file"]),
    "garbage": (lambda x: bytes(range(256)), ["after line 0", "Not a gzipped file"]),
    "more behind": (lambda x: gzip.compress(x) + b"abc", ["Not a gzipped file"]),
    "no bytes": (lambda x: b"", ["has no line"]),
    "empty": (lambda x: gzip.compress(b""), ["has no line"]),
    "twice": (lambda x: gzip.compress(x) * 2, ["line 4", "stands in line 1 already"]),
}  # fmt: skip


@pytest.mark.parametrize("key", [P, T])
@pytest.mark.parametrize("name", GZ)
def test_damaged_compressed_file(tmp_path, capsys, key, name):
    spoil, expected = GZ[name]
    files = valid()
    files[key] = spoil(files[key])
    expected = [f"{key}.jsonl.gz", *expected]
    assert_refused(capsys, tmp_path, expected, lambda: run(tmp_path, files, gz=[key]))


def measured(folder, **files):
    """(exit status, peak memory in MiB, messages) of the command in a process of its own."""
    paths = {**{key: folder / f"{key}.jsonl" for key in (P, T)}, **files}
    flags = [f"--{key}={path}" for key, path in paths.items()]
    flags += ["--task=sgdet", f"--output={folder / 'metrics.json'}"]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *flags], cwd=ROOT, capture_output=True, text=True,
        check=True, env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    status, peak = done.stdout.split()[-2:]
    return int(status), int(peak) / 1024, done.stderr


@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="memory of Linux")
def test_line_of_100_megabytes(tmp_path):
    """It is never held whole, plain or compressed."""
    for key, content in valid().items():
        (tmp_path / f"{key}.jsonl").write_bytes(content)
    status, usual, _ = measured(tmp_path)
    assert status == 0
    (tmp_path / "metrics.json").unlink()
    line = b'{"image_id": "' + b"x" * (100 * 2**20) + b'"}\n'
    for key, opened in ((P, open), (P, gzip.open), (T, open)):
        path = tmp_path / f"long.jsonl{'.gz' if opened is gzip.open else ''}"
        with opened(path, "wb") as file:
            file.write(valid()[key].splitlines()[0] + b"\n" + line)
        status, peak, error = measured(tmp_path, **{key: path})
        assert status == 2 and peak < usual + 90
        assert f"{path}, line 2: has more than " in error and "bytes, beginning with" in error
        assert len(error) < 1500 and "Traceback" not in error
    assert not list(tmp_path.glob("metrics*"))


OUTPUTS = {
    "ground_truth.jsonl/metrics.json": "ground_truth.jsonl",
    "ground_truth.jsonl/a/b/metrics.json": "ground_truth.jsonl",
    "folder": "folder",
}


@pytest.mark.parametrize("output", OUTPUTS)
def test_output_that_cannot_be_written(tmp_path, capsys, output):
    (tmp_path / "folder").mkdir()
    assert run(tmp_path, valid(), output=output) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and OUTPUTS[output] in error
    names = {x.name for x in tmp_path.rglob("*")}
    assert names == {"folder", *(f"{key}.jsonl" for key in valid())}


def test_output_in_a_new_folder(tmp_path):
    assert run(tmp_path, valid(), output="new/and/deeper/metrics.json") == 0
    assert json.loads((tmp_path / "new/and/deeper/metrics.json").read_text())["R@20"] == 1


def test_folder_instead_of_a_file(tmp_path, capsys):
    for key in valid():
        error = [f"{tmp_path}"]
        assert_refused(
            capsys, tmp_path, error, lambda k=key: run(tmp_path, valid(), **{k: tmp_path})
        )


JUNK = [None, True, 0, -1, 1.5, 10**12, 10**400, 1e308, -1e308, float("nan"), float("inf"), "",
        "man", "7", "\ud800", "\0", "é" * 300, [], {}, [[]], [None] * 4, {"box": 1}, [0, 0, 0, 0],
        [1, 1, 1e308, 1e308], "__background__"]  # fmt: skip


def nodes(value, path=()):
    """The place of every value within a JSON value."""
    yield path
    inside = enumerate(value) if isinstance(value, list) else ()
    for key, inner in value.items() if isinstance(value, dict) else inside:
        yield from nodes(inner, (*path, key))


def with_junk(rng, value):
    """Another value, or none, somewhere."""
    *path, last = rng.choice([x for x in nodes(value) if x])
    where = value
    for key in path:
        where = where[key]
    kind = rng.randrange(4)
    if kind == 0:
        del where[last]
    elif kind == 1 and isinstance(where, list):
        where.append(copy.deepcopy(where[last]))
    else:
        where[last] = copy.deepcopy(rng.choice(JUNK))
    return value


def mutated_text(rng, data):
    lines = data.splitlines() or [b"{}"]
    index = rng.randrange(len(lines))
    value = json.loads(lines[index])
    for _ in range(rng.choice([1, 1, 1, 3])):
        if isinstance(value, (dict, list)) and value:
            value = with_junk(rng, value)
    lines[index] = json.dumps(value).encode()
    return b"\n".join(lines)


def mutated_bytes(rng, data):
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        kind, b = rng.randrange(5), min(b, a + 20)
        if kind == 0:
            data[a:b] = rng.randbytes(b - a)
        elif kind == 1:
            del data[a:b]
        elif kind == 2:
            data[a:a] = data[b : b + 50]
        elif kind == 3:
            data[a:a] = bytes([rng.choice(b'{}[]",:-0e\\ \n\x00\xff')])
        else:
            del data[a:]
    return bytes(data)


def test_mutations_never_end_in_a_traceback(tmp_path):
    statuses = []
    for seed in range(MUTATIONS):
        rng = random.Random(seed)
        files, key = valid(), rng.choice([P, P, T, "vocabulary", "zero_shot"])
        gz = [key] if key in (P, T) and rng.random() < 0.3 else []
        spoil = rng.choice([mutated_text, mutated_bytes])
        inside = spoil is mutated_text or rng.random() < 0.5
        files[key] = spoil(rng, files[key]) if inside else files[key]
        files[key] = gzip.compress(files[key]) if gz else files[key]
        files[key] = files[key] if inside else spoil(rng, files[key])
        options = {} if rng.random() < 0.7 or key == "vocabulary" else {"vocabulary": None}
        options |= {"report": tmp_path / "r.html"} if rng.random() < 0.1 else {}
        output = f"{seed}.json"
        message = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(message):
            with warnings.catch_warnings(action="ignore"):
                task = rng.choice(["predcls", "sgcls", "sgdet"])
                status = run(tmp_path, files, task, output, gz, **options)
        statuses.append(status)
        assert status in (0, 2), seed
        assert (tmp_path / output).exists() == (status == 0), seed
        _, found, error = message.getvalue().partition("error: ")
        assert bool(found) == (status == 2) and (status == 0 or ".jsonl" in error), seed
        if status == 0:
            result = json.loads((tmp_path / output).read_text(), parse_constant=pytest.fail)
            assert all(v is None or 0 <= v <= 1 for k, v in result.items() if "@" in k), seed
    assert not list(tmp_path.glob("*.partial"))
    assert statuses.count(0) > MUTATIONS / 50 and statuses.count(2) > MUTATIONS / 2
