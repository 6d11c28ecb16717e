"""The command: what it finds, writes, skips, repairs and refuses."""

import functools
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from etils import epath
from PIL import Image
from predicting import photograph, quick_compiles, save_checkpoint, save_photographs

from linknet_jax import Predictor, cli
from linknet_jax.predict import __main__ as predict
from linknet_jax.predict import ahead, bulk, inputs, video
from linknet_jax.scene_graph import from_dict


@pytest.fixture(scope="module", autouse=True)
def compile_quickly(tmp_path_factory):
    """Compiling takes longer than all else here: without optimizations, and each program once."""
    with quick_compiles(tmp_path_factory.mktemp("cache")):
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder with run and set, lines of the set)."""
    folder = tmp_path_factory.mktemp("made")
    save_checkpoint(folder / "run")
    return folder, save_photographs(folder / "set")


@pytest.fixture(scope="module")
def loaded():
    """`Predictor.from_checkpoint`, which loads the same one once."""
    return functools.lru_cache(Predictor.from_checkpoint)


@pytest.fixture
def command(made, loaded, tmp_path, monkeypatch):
    """Runs the command with the run and the boxes of the set; all in `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Predictor, "from_checkpoint", loaded)
    folder, _ = made

    def run(*arguments, boxes=folder / "set/test.jsonl", inputs=(folder / "set/images",)):
        given = ["--boxes", boxes] if boxes else []
        return predict.main([str(x) for x in (folder / "run", *inputs, *given, *arguments)])

    return run


def graphs(folder="graphs"):
    with open(f"{folder}/graphs.jsonl") as file:
        return {line["image_id"]: line for line in map(json.loads, file)}


def listing(folder="graphs"):
    return sorted(os.listdir(folder))


def test_graphs_are_those_of_the_predictor(command, made, capsys):
    assert command("--format", "json,png,svg,html,dot", "--batch", "2") == 0
    folder, lines = made
    predictor = Predictor.from_checkpoint(folder / "run")
    found = graphs()
    assert list(found) == [line["image_id"] for line in lines]
    for line in lines:
        path = folder / "set/images" / line["image_id"]
        expected = predictor(path, [x["box"] for x in line["objects"]])
        graph = from_dict(found[line["image_id"]])
        assert [x.label for x in graph.objects] == [x.label for x in expected.objects]
        for one, two in zip(sorted(graph.relations), sorted(expected.relations), strict=True):
            assert one[:3] == two[:3] and one.score == pytest.approx(two.score, abs=1e-5)
    pictures = [f"{k}.{kind}" for k in range(5) for kind in ("dot", "html", "png", "svg")]
    assert listing() == sorted([*pictures, "graphs.jsonl", "settings.json"])
    with Image.open("graphs/3.png") as image:
        assert image.format == "PNG"
    assert "digraph" in open("graphs/3.dot").read()
    assert "graphs written to graphs: 5; skipped, as done before: 0" in capsys.readouterr().out


def test_a_stopped_run_goes_on(command, capsys):
    """After a torn line, and a picture that is gone, only these images are predicted again."""
    assert command("--format", "json,svg") == 0
    whole = open("graphs/graphs.jsonl", "rb").read()
    rows = whole.splitlines(keepends=True)
    with open("graphs/graphs.jsonl", "wb") as file:
        file.write(b"".join(rows[:4]) + rows[4][:50])
    os.remove("graphs/1.svg")
    times = {name: os.stat(f"graphs/{name}").st_mtime_ns for name in ("0.svg", "2.svg")}
    capsys.readouterr()
    assert command("--format", "json,svg") == 0
    assert "graphs: 2; skipped, as done before: 3" in capsys.readouterr().out
    assert sorted(graphs()) == ["0.png", "1.png", "2.png", "3.png", "4.png"]
    assert len(open("graphs/graphs.jsonl").readlines()) == 5 and "1.svg" in listing()
    assert times == {name: os.stat(f"graphs/{name}").st_mtime_ns for name in times}
    assert command("--format", "json,svg") == 0
    assert "graphs: 0; skipped, as done before: 5" in capsys.readouterr().out


def test_lines_of_other_images_stay(command, made):
    images = made[0] / "set/images"
    assert command("--format", "json", inputs=(images / "0.png",)) == 0
    first = open("graphs/graphs.jsonl").read()
    assert command("--format", "json,svg", inputs=(images / "1.png",)) == 0
    assert open("graphs/graphs.jsonl").read().startswith(first)
    assert list(graphs()) == ["0.png", "1.png"] and "0.svg" not in listing()


def test_a_folder_of_other_settings_is_refused(command, capsys):
    assert command("--format", "json") == 0
    before = open("graphs/graphs.jsonl").read()
    assert command("--format", "json", "--task", "predcls") == 2
    assert "graphs of task='sgcls', these would be of 'predcls'" in capsys.readouterr().err
    assert open("graphs/graphs.jsonl").read() == before
    with open("graphs/graphs.jsonl", "w") as file:
        file.write('{"a": 1}\n')
    assert command("--format", "json") == 2
    assert "graphs.jsonl, line 1" in capsys.readouterr().err


def test_unreadable_photographs_are_reported(command, made, tmp_path, capsys):
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name in ("0.png", "1.png", "2.png"):
        (folder / name).write_bytes((made[0] / "set/images" / name).read_bytes())
    (folder / "1.png").write_bytes(b"nothing")
    photograph(9, 9).save(folder / "unknown.jpg")
    assert command("--format", "json", "--batch", "1", inputs=(folder,)) == 1
    assert list(graphs()) == ["0.png", "2.png"]
    errors = open("graphs/errors.txt").read().splitlines()
    assert len(errors) == 2 and "1.png: cannot decode" in errors[0]
    assert errors[1].startswith("unknown.jpg:") and "no line for 'unknown.jpg'" in errors[1]
    assert "failed: 2, see graphs/errors.txt" in capsys.readouterr().err
    (folder / "1.png").write_bytes((made[0] / "set/images/1.png").read_bytes())
    (folder / "unknown.jpg").unlink()
    assert command("--format", "json", inputs=(folder,)) == 0
    assert list(graphs()) == ["0.png", "2.png", "1.png"] and "errors.txt" not in listing()


@pytest.mark.parametrize(
    "line, message",
    [
        ({"objects": [{"box": [0, 0, 9, 9], "label": "e"}]}, "no class 'e'"),
        ({"objects": [{"box": [0, 0, 9, 9]}]}, "object 0 has no label"),
        ({"objects": [], "width": 61, "height": 40}, "61 x 40 pixels, this one has 60 x 40"),
    ],
)
def test_wrong_lines_fail_their_image(command, made, tmp_path, line, message):
    boxes = tmp_path / "boxes.jsonl"
    good = {"image_id": "1", "objects": [{"box": [0, 0, 9, 9], "label": "a"}]}
    boxes.write_text("\n".join(json.dumps(x) for x in ({"image_id": "0.png", **line}, good)))
    images = [made[0] / "set/images" / name for name in ("0.png", "1.png")]
    assert command("--task", "predcls", "--format", "json", boxes=boxes, inputs=images) == 1
    assert message in open("graphs/errors.txt").read()
    assert graphs()["1.png"]["objects"][0]["label"] == "a"


def test_labels_are_ignored_without_predcls(command, made, tmp_path):
    boxes = tmp_path / "boxes.jsonl"
    boxes.write_text(json.dumps({"image_id": 0, "objects": [{"box": [0, 0, 9, 9], "label": "e"}]}))
    image = made[0] / "set/images/0.png"
    assert command("--format", "json", boxes=boxes, inputs=(image,)) == 0
    assert graphs()["0.png"]["objects"][0]["label"] in "abcd"


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "has no line"),
        ("{", "line 1"),
        ('{"image_id": "a"}', "must be an object with image_id and objects"),
        ('{"image_id": "a", "objects": [{"box": [1, 2, 3]}]}', "object 0, box"),
        ('{"image_id": "a", "objects": [{"box": [3, 2, 1, 5]}]}', "x2 >= x1"),
        ('{"image_id": "a", "objects": []}\n{"image_id": "a", "objects": []}', "stands in line 1"),
        ('{"image_id": "1", "objects": []}\n{"image_id": 1, "objects": []}', "keep one"),
    ],
)
def test_wrong_boxes_are_refused_before_anything_runs(command, tmp_path, capsys, text, message):
    (tmp_path / "boxes.jsonl").write_text(text)
    assert command(boxes=tmp_path / "boxes.jsonl") == 2
    assert message in capsys.readouterr().err and not os.path.exists("graphs")


@pytest.mark.parametrize(
    "arguments, boxes, message",
    [
        ((), None, "cannot do sgdet"),
        (("--task", "sgdet"), True, "leave out --boxes"),
        (("--step", "9"), True, "'9' is none of best, latest, [3]"),
        (("--task", "predcls"), None, "predcls needs more"),
    ],
)
def test_wrong_usage(command, made, capsys, arguments, boxes, message):
    given = made[0] / "set/test.jsonl" if boxes else None
    assert command(*arguments, boxes=given) == 2
    assert message in capsys.readouterr().err and not os.path.exists("graphs")


@pytest.mark.parametrize(
    "arguments", [("--format", "gif"), ("--top", "0"), ("--batch", "x"), ("--fps", "0"),
                  ("--fps", "nan"), ("--output", "gs://bucket/x")]
)  # fmt: skip
def test_wrong_values(command, arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        command(*arguments)
    assert stop.value.code == 2 and arguments[0] in capsys.readouterr().err


def test_thresholds(command, made):
    image = (made[0] / "set/images/4.png",)
    assert command("--format", "json,svg", "--top", "3", inputs=image) == 0
    (line,) = graphs().values()
    assert len(line["relations"]) == 3
    least = line["relations"][1]["score"]
    options = ("--format", "json", "--least", least, "--output", "other")
    assert command(*options, inputs=image) == 0
    assert len(graphs("other")["4.png"]["relations"]) == 2


def test_detection_needs_no_boxes(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = save_checkpoint(tmp_path / "run", "sgdet")
    image = str(made[0] / "set/images/3.png")
    assert predict.main([str(run), image, "--format", "json"]) == 0
    assert graphs()["3.png"]["objects"]


class TestInputs:
    """Which files arguments name."""

    def find(self, *arguments, output="graphs"):
        return [str(x) for x in inputs.find(arguments, epath.Path(output))]

    @pytest.fixture(autouse=True)
    def tree(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for name in ("in/b.jpg", "in/A.PNG", "in/deep/er/c.webp", "in/.h.jpg", "in/.d/e.jpg",
                     "in/text.txt", "in/v.mp4", "in/graphs/x.png", "other"):  # fmt: skip
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
        os.symlink(tmp_path / "in", tmp_path / "in/loop")

    def test_folders_with_their_folders(self):
        names = ["in/A.PNG", "in/b.jpg", "in/deep/er/c.webp", "in/v.mp4"]
        assert self.find("in", output="in/graphs") == names
        assert self.find("in/deep", "in", output="in/graphs") == [names[2], *names[:2], names[3]]

    def test_files_and_patterns(self):
        assert self.find("other") == ["other"]
        assert self.find("in/*.jpg", "./in/b.jpg", "in/b.jpg") == ["in/b.jpg"]
        assert self.find("in/**/*.webp") == ["in/deep/er/c.webp"]

    @pytest.mark.parametrize(
        "arguments, message",
        [
            (["nowhere.jpg"], r"nowhere\.jpg: no such file"),
            (["in/*.gif"], r"in/\*\.gif: no photograph"),
            (["in/.d/none*"], "no photograph"),
            (["in/b.jpg", "twice/B.png"], r"in/b\.jpg and twice/B\.png have one name"),
            (["graphs/x.png"], "lies in --output"),
        ],
    )
    def test_what_is_refused(self, arguments, message, tmp_path):
        for name in ("twice/B.png", "graphs/x.png"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(b"")
        with pytest.raises(ValueError, match=message):
            self.find(*arguments)


def write_video(path, count=25, rate=10, size=(64, 48)):
    """Frame k is grey of 10 k."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for k in range(count):
            pixels = np.full((size[1], size[0], 3), 10 * k, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


PICKED = {1: [0, 10, 20], 4: [0, 3, 5, 8, 10, 13, 15, 18, 20, 23], 100: list(range(25))}


@pytest.mark.parametrize("fps, picked", PICKED.items())
def test_frames_at_a_rate(tmp_path, fps, picked):
    path = epath.Path(tmp_path / "clip.mp4")
    write_video(path)
    frames = list(video.frames(path, fps))
    assert [round(int(pixels.mean()) / 10) for _, pixels in frames] == picked
    times = [int(name.removeprefix("clip_").removesuffix("ms")) for name, _ in frames]
    assert all(0 <= 100 * k - t < 1000 / fps for k, t in zip(picked, times, strict=True))
    assert abs(video.count(path, fps) - 2.5 * fps) <= 1


def test_videos(command, made, tmp_path, capsys):
    """Each frame is an image; a broken video leaves the others alone, and the rest is skipped."""
    write_video(tmp_path / "clip.mp4")
    whole = (tmp_path / "clip.mp4").read_bytes()
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    names = [f"clip_{k:08d}ms" for k in (0, 1000, 2000)]
    boxes = tmp_path / "boxes.jsonl"
    lines = [{"image_id": name, "objects": [{"box": [0, 0, 30, 40]}] * 2} for name in names]
    boxes.write_text("\n".join(map(json.dumps, lines)))
    videos = sorted(tmp_path.glob("*.mp4"))
    assert command("--format", "json,svg", boxes=boxes, inputs=videos) == 1
    assert list(graphs()) == names and f"{names[1]}.svg" in listing()
    errors = open("graphs/errors.txt").read().splitlines()
    assert [x.partition(":")[0] for x in errors] == ["bad.mp4", "cut.mp4"]
    assert "cannot read the video" in errors[0]
    capsys.readouterr()
    assert command("--format", "json,svg", boxes=boxes, inputs=videos[1:2]) == 0
    assert "graphs: 0; skipped, as done before: 3" in capsys.readouterr().out


def test_missing_video_reader_is_named(command, tmp_path, monkeypatch, capsys):
    (tmp_path / "clip.mp4").write_bytes(b"")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert command(inputs=(tmp_path / "clip.mp4",)) == 2
    assert 'pip install "linknet-jax[video]"' in capsys.readouterr().err


def test_reading_runs_ahead_and_is_bounded():
    begun = []

    def read(k):
        begun.append(k)
        return -k

    results = ahead.mapped(read, ahead.taken(iter(range(100)), 2), 2, 5)
    assert next(results) == 0
    for _ in range(500):  # a busy machine starts threads late
        if len(begun) >= 5:
            break
        time.sleep(0.01)
    assert 5 <= len(begun) <= 6
    assert list(results) == [-k for k in range(1, 100)]


def test_errors_of_what_runs_ahead_arrive():
    def items():
        yield 1
        raise OSError("gone")

    taken = ahead.taken(items(), 3)
    assert next(taken) == 1
    with pytest.raises(OSError, match="gone"):
        next(taken)


def test_one_program_for_all_batches(command, monkeypatch):
    """Also for the last one, which is not full."""
    sizes = []
    whole = Predictor.predict

    def spy(self, asked, task, size):
        sizes.append((len(asked), size))
        return whole(self, asked, task, size)

    monkeypatch.setattr(Predictor, "predict", spy)
    assert command("--format", "json", "--batch", "4") == 0
    assert sizes == [(4, 4), (1, 4)] and bulk.THREADS >= 1


def test_neither_tensorflow_nor_matplotlib_is_imported(made, tmp_path):
    program = f"""
import sys
from linknet_jax.predict import __main__ as predict
folder = {str(made[0])!r}
assert predict.main([folder + "/run", folder + "/set/images/0.png", "--boxes",
                     folder + "/set/test.jsonl", "--output", {str(tmp_path / "out")!r}]) == 0
print(sorted({{"tensorflow", "matplotlib", "torch", "networkx", "av"}} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_compilation_cache_lies_in_the_checkpoint(made, tmp_path):
    """And the next start compiles nothing."""
    run, output = made[0] / "run", tmp_path / "out"
    call = [sys.executable, "-m", "linknet_jax.predict", run, made[0] / "set/images/0.png",
            "--boxes", made[0] / "set/test.jsonl", "--format", "json", "--output"]  # fmt: skip
    counts = []
    for name in ("one", "two"):
        subprocess.run([*map(str, call), str(output / name)], check=True, capture_output=True)
        counts.append(len(list((run / "jax_cache").glob("jit_predict*-cache"))))
    assert counts == [1, 1]


def test_the_verb(monkeypatch, made, tmp_path, capsys):
    monkeypatch.setattr(sys, "argv", ["linknet", "predict", str(tmp_path / "no"), "nowhere.jpg"])
    assert cli.run() == 2
    assert "nowhere.jpg: no such file" in capsys.readouterr().err
