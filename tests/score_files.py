"""Valid files of three images for the command that scores, to be spoilt."""

from __future__ import annotations

import json

from scoring import command

BOXES = ([10, 20, 210, 420], [40.5, 200, 400, 560])
IDS = (7, "b", 9)
VOCABULARY = {
    "label_to_idx": {"man": 1, "horse": 2, "hat": 3},
    "predicate_to_idx": {"riding": 1, "on": 2},
    "idx_to_label": {"1": "man", "2": "horse", "3": "hat"},
    "idx_to_predicate": {"1": "riding", "2": "on"},
    "training_predicate_count": {"riding": 3, "on": 9},
}
UNSEEN = [["man", "riding", "horse"]]


def truth(image_id) -> dict:
    return {
        "image_id": image_id,
        "width": 800,
        "height": 600,
        "objects": [{"box": BOXES[0], "label": "man"}, {"box": BOXES[1], "label": "horse"}],
        "relations": [{"subject": 0, "predicate": "riding", "object": 1}],
    }


def predicted(image_id) -> dict:
    record = truth(image_id)
    relations = [*record["relations"], {"subject": 1, "predicate": "on", "object": 0}]
    return {
        "image_id": image_id,
        "objects": [{**x, "score": 0.5} for x in record["objects"]],
        "relations": [{**x, "score": 0.25} for x in relations],
    }


def as_lines(records) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def valid() -> dict[str, bytes]:
    """Content of every file, by option."""
    return {
        "ground_truth": as_lines(map(truth, IDS)),
        "predictions": as_lines(map(predicted, IDS)),
        "vocabulary": json.dumps(VOCABULARY).encode(),
        "zero_shot": json.dumps(UNSEEN).encode(),
    }


def run(folder, files, task="sgcls", output="metrics.json", gz=(), **options) -> int:
    """Exit status of the command on these contents; there is no file of content None.

    Names of the files in `gz` end so, whatever the content.
    """
    paths = {}
    for key, content in files.items():
        paths[key] = folder / f"{key}.jsonl{'.gz' if key in gz else ''}"
        paths[key].unlink(missing_ok=True)
        if content is not None:
            paths[key].write_bytes(content)
    return command(task, folder / output, **(paths | options))


def assert_refused(capsys, folder, expected, call) -> None:
    """One message with these texts, status 2; no metrics, no trace, an earlier result untouched."""
    for earlier in (b"of an earlier run", None):
        if earlier:
            (folder / "metrics.json").write_bytes(earlier)
        else:
            (folder / "metrics.json").unlink()
        assert call() == 2
        captured = capsys.readouterr()
        assert captured.err.count("error: ") == 1
        error = captured.err[captured.err.index("error: ") :]
        assert all(x in error for x in expected), (error, expected)
        assert len(error) < 1500 and "R@" not in captured.out
        left = {x.name for x in folder.rglob("*")} - {f"{key}.jsonl" for key in valid()}
        left -= {f"{key}.jsonl.gz" for key in valid()}
        assert left == ({"metrics.json"} if earlier else set())
        assert not earlier or (folder / "metrics.json").read_bytes() == earlier
