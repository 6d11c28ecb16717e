"""What a run writes while it goes on."""

import json

import numpy as np

from linknet_jax import writer as writers

LOSSES = {"object": 2.0, "loss": 3.0}
SHARES = {"data": 0.1, "device": 0.7, "checkpoint": 0.0, "host": 0.2}


class Bucket:
    """A file that can only be written whole."""

    text = None

    def __str__(self):
        return "gs://bucket/metrics.jsonl"

    def exists(self):
        return self.text is not None

    def read_text(self):
        return self.text

    def write_text(self, text):
        self.text = text


def lines(tmp_path):
    return [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]


def test_progress_says_speed_and_where_the_time_went(tmp_path, capsys):
    with writers.Writer(tmp_path, 0, 40, 8) as writer:
        writer.first_step(1, 2e9)
        writer.progress(11, LOSSES, SHARES)
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("first step after ") and said[0].endswith("2 GFLOP a device")
    assert said[1].startswith("step 11/40  loss 3  object 2  ") and " images/s " in said[1]
    assert "data 10%  device 70%  checkpoint 0%  host 20%" in said[1] and len(said) == 2
    (line,) = lines(tmp_path)
    assert line["step"] == 11 and line["time_data"] == 0.1 and line["peak_memory_gib"] > 0
    chips, steps = line["images_per_second_chip"], line["images_per_second"] / 8
    assert chips == line["images_per_second"] / 8  # the devices of the tests
    np.testing.assert_allclose(line["flops_per_second"], 2e9 * steps)


def test_a_line_at_the_first_step_has_no_speed(tmp_path, capsys):
    with writers.Writer(tmp_path, 4, 40, 8) as writer:
        writer.first_step(5, 2e9)
        writer.progress(5, LOSSES, SHARES)
    assert "images/s" not in capsys.readouterr().out
    assert lines(tmp_path) == [{"step": 5, "group": "train", "loss": 3.0, "object": 2.0}]


def test_a_device_that_waits_for_images_is_reported_once(tmp_path, capsys):
    with writers.Writer(tmp_path, 0, 99, 8) as writer:
        writer.progress(5, LOSSES, SHARES | {"data": 0.9})  # too few steps to tell
        for step in (20, 40):
            writer.progress(step, LOSSES, SHARES | {"data": 0.35})
    said = capsys.readouterr().out
    assert said.count("warning: 35% of the time goes into waiting for images") == 1


def test_a_rerun_in_a_bucket_keeps_the_lines_of_the_run_before():
    bucket = Bucket()
    for number in range(2):
        file = writers._Lines(bucket)
        file.append(f"{number} a\n")
        file.append(f"{number} b\n")
    assert bucket.text == "0 a\n0 b\n1 a\n1 b\n"
