"""Every command and program of docs/tutorial.md, one after the other, in one folder."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "tutorial.md").read_text()
BLOCKS = re.findall(r"(<!-- not run.*?-->\n)?```(\w+)\n(.*?)```", PAGE, re.DOTALL)
SMALL = {
    "model.fc_dim": 12,
    "model.embed_dim": 8,
    "model.hidden_dim": 8,
    "model.pooling_dim": 12,
    "model.layout_dim": 4,
    "model.roi_size": 3,
    "model.roi_chunk": 16,
    "data.image_size": 48,
    "data.max_detections": 6,
    "rpn.width": 8,
    "rpn.scales": (1.5,),
    "rpn.proposals": 12,
    "rpn.train_proposals": 12,
    "rpn.sampled": 8,
    "rpn.sampled_positive": 4,
    "detector.sampled": 8,
    "detector.sampled_foreground": 4,
    "train.batch_size": 8,
    "train.steps": 2,
    "train.eval_every": 2,
    "train.warmup": 1,
    "eval.batch_size": 8,
}
FAST = {"XLA_FLAGS": "--xla_backend_optimization_level=0", "JAX_PLATFORMS": "cpu"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tutorial")
    (folder / "configs").symlink_to(ROOT / "configs")
    return folder


def run(command, folder):
    """`python` is that of the tests."""
    places = [os.path.dirname(sys.executable), os.environ["PATH"]]
    environment = os.environ | FAST | {"PYTHONPATH": str(ROOT), "PATH": os.pathsep.join(places)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, **pipes)


def check(command, folder):
    process = run(command, folder)
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 0, f"{command}\n{output}"
    return output


def smaller(line):
    """A training command of a smaller model."""
    if "linknet_jax.main --config" not in line:
        return line
    return " ".join([line, *(f"'--config.{key}={value}'" for key, value in SMALL.items())])


def wait_for(server, command, folder):
    """The output of the command, once the server answers."""
    for _ in range(120):
        assert server.poll() is None, server.communicate()[0]
        client = run(["bash", "-c", command], folder)
        output = client.communicate()[0]
        if client.returncode != 7:  # curl's: nothing listens yet
            return client.returncode, output
        time.sleep(0.5)
    raise AssertionError("the server did not begin to listen")


def test_the_page_from_beginning_to_end(folder):
    blocks = [(kind, text) for skipped, kind, text in BLOCKS if not skipped and kind != "json"]
    assert sum(skipped != "" for skipped, _, _ in BLOCKS) == 2
    *blocks, (_, service), (_, question) = blocks
    for kind, text in blocks:
        if kind == "python":
            fewer = text.replace("= 1000, 100", "= 24, 10").replace(", 50)", ", 10)")
            output = check([sys.executable, "-c", fewer], folder)
        for line in text.splitlines() if kind == "bash" else ():
            output = check(["bash", "-c", smaller(line)], folder)
    assert (folder / "small" / "checkpoints").is_dir()
    graphs = [json.loads(x) for x in (folder / "graphs/graphs.jsonl").read_text().splitlines()]
    assert len(graphs) == 10 and (folder / "graphs/test-000000.html").exists()
    (classified,) = (folder / "classified/graphs.jsonl").read_text().splitlines()
    first = json.loads((folder / "mine/test.jsonl").read_text().splitlines()[0])
    assert len(json.loads(classified)["objects"]) == len(first["objects"])
    assert (folder / "graph.svg").read_text().startswith("<svg")
    assert (folder / "exported/metadata.json").exists() and output
    if not shutil.which("curl"):
        pytest.skip("the service is asked with curl, which is not installed")
    server = run([sys.executable, "-c", service], folder)
    try:
        status, answer = wait_for(server, question, folder)
        assert status == 0 and '"image_id"' in answer, answer
        wrong = question.replace("@mine/images/test-000001.jpg", "nothing")
        assert wait_for(server, wrong, folder)[0] == 22  # curl's: the answer is an error
    finally:
        server.kill()
        server.communicate()
