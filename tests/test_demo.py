"""The local page: what it answers, what it refuses, and that it stays on this machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import urllib.error
import urllib.request

import jax
import numpy as np
import pytest
from PIL import Image

from linknet_jax.data.transforms import ImageError
from linknet_jax.demo import __main__ as command
from linknet_jax.demo import answers
from linknet_jax.demo.answers import UNNAMED
from linknet_jax.predictor import Predictor
from linknet_jax.types import Vocabulary
from tests import tiny

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
WORDS = Vocabulary(("background", "cat", "dog", "hat", "mat"), ("none", "on", "by", "wears"))
BOXES = np.array([[2, 3, 30, 40], [10, 5, 50, 44], [1, 1, 12, 12]], float)
DRAWN = [{"xmin": 2, "ymin": 3, "xmax": 30, "ymax": 40, "label": name} for name in ("cat", "")]
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Compiles take longer than runs here."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def predictor():
    config = tiny.create_task("sgcls").config
    limits = {"least": 0.0, "object_least": 0.0, "top": command.ALL}
    return Predictor(config, WORDS, tiny.variables("sgcls"), **limits)


@pytest.fixture
def handlers(predictor):
    pytest.importorskip("gradio", reason="the extra `demo` is not installed")
    from linknet_jax.demo.handlers import Handlers

    return Handlers(predictor)


@pytest.fixture
def photograph(tmp_path):
    path = tmp_path / "room.png"
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def address(predictor, tmp_path, monkeypatch):
    """Of a server with the options of the command."""
    pytest.importorskip("gradio", reason="the extra `demo` is not installed")
    pytest.importorskip("gradio_image_annotation", reason="the extra `demo` is not installed")
    from linknet_jax.demo import page

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    blocks = page.build(predictor)
    blocks.launch(**command.launch_options("127.0.0.1", port))
    yield "127.0.0.1", port
    blocks.close()


def test_boxes_without_classes_are_classified_and_named_ones_are_kept(predictor, photograph):
    shown = answers.read(photograph)
    found = answers.ask(predictor, shown, BOXES, ["dog", "mat", UNNAMED])
    given = answers.ask(predictor, shown, BOXES, ["dog", "mat", "hat"])
    assert found == predictor(photograph, BOXES) and len(found.relations) == 6
    assert given == predictor(photograph, BOXES, ["dog", "mat", "hat"])
    assert [x.label for x in given.objects] == ["dog", "mat", "hat"]


def test_large_photographs_are_shown_smaller(tmp_path):
    Image.new("L", (300, 2 * answers.SCREEN[1])).save(tmp_path / "high.png")
    pixels, scale = answers.reduced(answers.read(tmp_path / "high.png"))
    assert pixels.shape == (answers.SCREEN[1], 150, 3) and scale == 0.5


def test_uploads_that_are_refused(tmp_path, monkeypatch):
    (tmp_path / "notes.jpg").write_text("no photograph")
    (tmp_path / "a.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    Image.new("L", (answers.PIXELS // 5000 + 1, 5000)).save(tmp_path / "wide.png")
    for name in ("notes.jpg", "a.svg"):
        with pytest.raises(ImageError, match=f"image {name}: not a known image format"):
            answers.read(tmp_path / name)
    with pytest.raises(ImageError, match=r"wide.png has 10001 x 5000 pixels; at most 50,000,000"):
        answers.read(tmp_path / "wide.png")
    monkeypatch.setattr(answers, "BYTES", 10)
    with pytest.raises(ImageError, match=r"notes.jpg has 0.0 MiB; at most"):
        answers.read(tmp_path / "notes.jpg")


def test_frame_is_closed_and_escaped(predictor, photograph):
    hostile = photograph.rename(photograph.with_name('"><script>x.png'))
    frame = answers.frame(answers.ask(predictor, answers.read(hostile), BOXES, [UNNAMED] * 3))
    assert re.fullmatch(r'<iframe [^<>]*sandbox="allow-scripts" srcdoc="[^"<>]*"></iframe>', frame)


def test_thresholds_cut_without_the_network(handlers, photograph, monkeypatch):
    taken, editor = handlers.take(str(photograph))
    graph = handlers.find(taken, [*DRAWN, DRAWN[0]])
    monkeypatch.setattr(handlers, "predictor", None)
    frame, file, _ = handlers.show(graph, 0.0, 2.0, 0.0)
    line = json.loads(open(file["value"] if isinstance(file, dict) else file.value["path"]).read())
    assert frame.count("data-relation") and len(line["relations"]) == 2
    assert handlers.show(None, 0.0, 2.0, 0.0)[0] == "" and editor["boxes"] == []


def test_boxes_of_a_graph_can_be_edited(handlers, photograph):
    taken, _ = handlers.take(str(photograph))
    editor = handlers.reuse(taken, handlers.find(taken, DRAWN), 0.0)
    assert [(x["xmin"], x["ymax"]) for x in editor["boxes"]] == [(2, 40), (2, 40)]
    assert {x["label"] for x in editor["boxes"]} <= set(WORDS.objects[1:])
    again = handlers.find(taken, editor["boxes"])
    assert [x.score for x in again.objects] == [1.0, 1.0]  # classes were given


def test_what_cannot_be_answered_is_a_message(handlers, photograph, tmp_path):
    import gradio

    (tmp_path / "<b>.jpg").write_text("x")
    taken, _ = handlers.take(str(photograph))
    for wrong, message in (
        (lambda: handlers.take(str(tmp_path / "<b>.jpg")), "image &lt;b&gt;.jpg"),
        (lambda: handlers.take(None), "no photograph"),
        (lambda: handlers.find(None, DRAWN), "no photograph"),
        (lambda: handlers.find(taken, []), "give boxes"),
        (lambda: handlers.find(taken, [DRAWN[0] | {"label": "caat"}]), "near it: cat"),
    ):
        with pytest.raises(gradio.Error, match=message):
            wrong()


def test_serves_on_loopback_within_limits(address):
    """Nothing on the machine's other addresses; no files; no uploads above the limit."""
    assert command._parser().parse_args(["run"]).host == address[0] == "127.0.0.1"
    with socket.socket() as other, pytest.raises(OSError):
        other.connect(("127.0.0.2", address[1]))
    root = "http://{}:{}".format(*address)
    page = urllib.request.urlopen(f"{root}/", timeout=10).read().decode()
    assert not re.findall(r'<(?:script|link)[^>]*(?:src|href)="https?://(?!127\.0\.0\.1)', page)
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{root}/gradio_api/file={__file__}", timeout=10)
    with pytest.raises(urllib.error.HTTPError, match="413"):
        urllib.request.urlopen(_upload(root, answers.BYTES + 1), timeout=10)
    assert urllib.request.urlopen(_upload(root, 1000), timeout=10).status == 200


def _upload(root: str, size: int) -> urllib.request.Request:
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
    body = head + bytes(size) + b"\r\n--x--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    return urllib.request.Request(f"{root}/gradio_api/upload", body, kind)


def test_in_a_browser(address, photograph):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if BROWSER is None:
        pytest.skip("no Chromium on this machine")
    root = "http://{}:{}".format(*address)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page, asked = browser.new_page(), []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(root)
        page.locator("input[type=file]").set_input_files(photograph)
        box = page.locator("canvas").bounding_box()
        middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        for right in (-20, 20):
            page.mouse.move(middle[0] - 25 + right / 4, middle[1] - 15)
            page.mouse.down()
            page.mouse.move(middle[0] + right, middle[1] + 15, steps=4)
            page.mouse.up()
        page.get_by_text("Find the scene graph").click()
        triplets = page.frame_locator("iframe.linknet-graph").locator("ol.triplets li")
        triplets.first.wait_for()
        with page.expect_download() as download:
            page.get_by_text("Download JSON").click()
        name, graph = download.value.suggested_filename, download.value.path().read_text()
        browser.close()
    assert name == "room.jsonl" and len(json.loads(graph)["objects"]) == 2
    assert not [x for x in asked if not x.startswith((root, "data:", "blob:", "about:"))]


def test_missing_packages_are_named(monkeypatch, capsys):
    monkeypatch.setattr(command, "PACKAGES", ("no_such_package",))
    assert command.main(["run"]) == 2
    assert "needs no_such_package: run pip install -e '.[demo]'" in capsys.readouterr().err
