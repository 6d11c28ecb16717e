"""The command: files as torch writes them, the checkpoint it leaves, and files it refuses."""

from __future__ import annotations

import json
import os

import foreign
import jax
import numpy as np
import pytest
from etils import epath
from foreign import randomised, tensors_of, torch
from test_efficientnet import random_tensors

from linknet_jax.checkpoints import Checkpoints
from linknet_jax.import_weights import main
from linknet_jax.models.pretrained import convert

FORMATS = pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])


def save(content, path, new=True):
    torch.save(content, path, _use_new_zipfile_serialization=new)
    return path


def lite0():
    """A small state dict of a known kind, as torch saves it."""
    return {name: torch.tensor(x) for name, x in random_tensors().items()}


def restored(out, variables):
    """The checkpoint in OUT as trainings read it."""
    others = {key: value for key, value in variables.items() if key != "params"}
    items = {"params": variables["params"]} | ({"constants": others} if others else {})
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=one), items)
    with Checkpoints(epath.Path(out)) as saved:
        assert saved.latest == 0
        return items, saved.restore(0, shapes), saved.about(0)


@FORMATS
@pytest.mark.parametrize("kind", [foreign.Detector, foreign.LinkNet])
def test_a_tar_becomes_a_checkpoint_and_a_report(tmp_path, capsys, kind, new):
    model, out = randomised(kind()), tmp_path / "out"
    layer = model.score_fc if kind is foreign.Detector else model.GCE
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    for parameter in layer.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    content = {"epoch": 24, "state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}
    path = save(content, tmp_path / "vg-24.tar", new)
    assert main([str(path), str(out)]) == 0
    expected = convert(tensors_of(model))
    wanted, found, about = restored(out, expected.variables)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    assert about["imported"] == expected.kind
    assert about["settings"] == json.loads(json.dumps(expected.settings))
    report = json.loads((out / "report.json").read_text())
    assert {name.removeprefix("state_dict."): fate for name, fate in report["tensors"].items()
            if name.startswith("state_dict.")} == expected.report  # fmt: skip
    assert report["other"]["epoch"] == "int 24"
    assert any(name.startswith("optimizer.state.0") for name in report["tensors"])
    printed = capsys.readouterr().out
    used = sum(fate.startswith("used") for fate in expected.report.values())
    assert f"used  {used:>16,}".split() == printed.splitlines()[1].split()
    start = "detector" if kind is foreign.Detector else "relations"
    assert f"--config.start.{start}={out}" in printed
    assert "--config.model.roi_align=motifs" in printed


def test_a_checkpoint_is_not_overwritten(tmp_path, capsys):
    path, out = save(lite0(), tmp_path / "lite0.pth"), tmp_path / "out"
    assert main([str(path), str(out)]) == 0
    before = sorted(out.rglob("*"))
    assert main([str(path), str(out)]) == 2
    assert "holds checkpoints already" in capsys.readouterr().err
    assert sorted(out.rglob("*")) == before


class Evil:
    """Unpickling it leaves a file."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


def refused(path, out, capsys):
    """The message; nothing may have been written."""
    assert main([str(path), str(out)]) == 2
    assert not out.exists()
    return capsys.readouterr().err


@FORMATS
def test_code_in_a_file_is_not_executed(tmp_path, capsys, new):
    canary = tmp_path / "canary"
    path = save({"state_dict": lite0(), "hook": Evil(canary)}, tmp_path / "evil.tar", new)
    message = refused(path, tmp_path / "out", capsys)
    assert "system" in message and str(path) in message
    assert not canary.exists()
    torch.load(path, weights_only=False)  # the file would have done it
    assert canary.exists()


@FORMATS
@pytest.mark.parametrize("part", [0.0, 0.3, 0.99])
def test_truncated_files_are_refused(tmp_path, capsys, new, part):
    path = save(lite0(), tmp_path / "cut.pth", new)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    assert str(path) in refused(path, tmp_path / "out", capsys)


NAME = "_blocks.0._project_conv.weight"
DAMAGE = {
    "missing": lambda x: None,
    r"shape (16, 31, 1, 1); expected (16, 32, 1, 1)": lambda x: x[:, :-1],
    "int32; expected floating point": lambda x: x.int(),
    "uint8; expected floating point": lambda x: x.byte(),
    "not finite": lambda x: torch.full_like(x, float("nan")),
}


@pytest.mark.parametrize("rule", DAMAGE)
def test_damaged_tensors_are_refused_with_file_and_name(tmp_path, capsys, rule):
    tensors = lite0()
    tensors[NAME] = DAMAGE[rule](tensors[NAME])
    tensors = {name: x for name, x in tensors.items() if x is not None}
    message = refused(save(tensors, tmp_path / "bad.pth"), tmp_path / "out", capsys)
    assert f"{tmp_path / 'bad.pth'}: these are not EfficientNet-lite0 weights" in message
    assert NAME in message and rule in message


def test_a_file_of_something_else_is_refused(tmp_path, capsys):
    path = save({"encoder.weight": torch.zeros(3)}, tmp_path / "other.pth")
    assert "unknown kind: encoder.weight" in refused(path, tmp_path / "out", capsys)
    missing = refused(tmp_path / "nothing.pth", tmp_path / "out", capsys)
    assert "nothing.pth" in missing
