"""`linknet checks`: the self-test passes, can fail, and survives what is absent."""

import importlib.metadata
import subprocess
import sys

import jax
import numpy as np
import pytest

from linknet_jax.checks import __main__ as checks
from linknet_jax.checks import self_test


def test_self_test_passes(capsys):
    assert checks.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("self-test passed in ")
    assert sum(line.startswith("ok    self-test: ") for line in lines) == 4
    assert f"ok    {'jax':<34} {importlib.metadata.version('jax')}" in lines


def test_self_test_can_fail(monkeypatch):
    monkeypatch.setattr(self_test, "roi_align", lambda *_, **__: np.float32([17.5]))
    broken = jax.tree.map(lambda x: x * np.nan, self_test._variables())
    monkeypatch.setattr(self_test, "_variables", lambda: broken)
    for part in ("RoIAlign", "forward", "checkpoint"):  # NaN is not what was saved
        with pytest.raises(ValueError):
            self_test.parts()[part]()


def test_a_failed_part_is_a_line_and_status_1(monkeypatch, capsys):
    def broken():
        raise RuntimeError("first line\nsecond")

    monkeypatch.setattr(self_test, "parts", lambda: {"backward": broken, "other": lambda: "fine"})
    assert checks.main([]) == 1
    out = capsys.readouterr().out
    assert "FAIL  self-test: backward" in out and "RuntimeError: first line\n" in out
    assert "ok    self-test: other" in out and "self-test FAILED in " in out


def test_what_is_absent_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setattr(checks, "_is_there", lambda name: name == "jax_cuda13_plugin")
    found = {x.what: x for x in checks.extras()}
    assert found["GPU"] == ("ok", "GPU", "jax_cuda13_plugin")
    assert found["TPU"] == ("--", "TPU", 'not installed: pip install "jax[tpu]"')
    assert all("pip install" in x.detail for x in found.values() if x.status == "--")
    monkeypatch.setattr(checks, "PACKAGES", ("numpy", "no-such-package"))
    first, second = checks.versions()
    assert first.status == "ok" and second.status == "FAIL" and "pip install" in second.detail


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "new"))
    assert checks.cache_folder().status == "ok" and (tmp_path / "new").is_dir()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "file"))
    found = checks.cache_folder()
    assert found.status == "FAIL" and "set JAX_COMPILATION_CACHE_DIR" in found.detail


BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}")
sys.meta_path.insert(0, Block())
from linknet_jax.checks import __main__ as checks
print("status", checks.main([]))
"""


@pytest.mark.parametrize("name", ["jax", "flax", "orbax"])
def test_without_a_package_it_says_so(name):
    optional = ("tensorflow", "tensorboardX", "networkx", "flatbuffers", "gradio", "av")
    program = BLOCKED.format(blocked=repr({name, *optional}))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr and done.returncode == 0, done.stderr
    assert "status 1" in done.stdout and f"ModuleNotFoundError: No module named '{name}" in (
        done.stdout
    )
    assert "--    tf.data" in done.stdout and "pip install tensorflow-cpu" in done.stdout
