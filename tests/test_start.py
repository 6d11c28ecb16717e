"""What a fresh run takes from the checkpoints of a detector and of a relation model."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from linknet_jax import parallel, start
from linknet_jax.checkpoints import Checkpoints
from linknet_jax.config import get_default

SHAPES = {
    "params/trunk/conv1/kernel": (3, 3, 2, 4),
    "params/rpn/conv/kernel": (3, 3, 4, 5),
    "params/object_head/box_features/fc6/kernel": (6, 7),
    "params/object_head/box_features/fc7/bias": (7,),
    "params/object_head/box_deltas/kernel": (7, 8),
    "params/object_head/object_features/fc6/kernel": (6, 7),
    "params/object_head/object_features/fc7/bias": (7,),
    "params/edge_head/union_features/fc6/kernel": (6, 7),
    "params/edge_head/union_features/fc7/bias": (9,),
    "params/edge_head/frequency_bias": (5, 3),
    "params/fc3/kernel": (7, 3),
    "constants/trunk/norm/mean": (4,),
    "constants/layout_mean": (4,),
    "batch_stats/layout_norm/mean": (4,),
}
FC = ("fc6/kernel", "fc7/bias")
DETECTOR = ("trunk", "rpn", "box_features", "box_deltas")


def place():
    mesh = parallel.create_mesh(devices=jax.devices()[:1])
    return parallel.replicated(mesh)


def tree(*words, shapes=SHAPES, fill=0.0):
    """Variables whose path has one of these names; each has its own values."""
    paths = {p: i for i, p in enumerate(SHAPES)}
    chosen = {p: s for p, s in shapes.items() if not words or set(words) & set(p.split("/"))}
    flat = {
        tuple(p.split("/")): np.arange(np.prod(s), dtype=np.float32).reshape(s)
        + 100 * paths.get(p, 50) + fill
        for p, s in chosen.items()
    }  # fmt: skip
    return unflatten_dict(flat)


def save(folder, variables, step=3, metrics=None, **overrides):
    """As training and import_weights do; an optimizer state is there to be passed over."""
    config = get_default("sgcls")
    config.update_from_flattened_dict(overrides)
    rest = {k: v for k, v in variables.items() if k != "params"}
    items = {"params": variables["params"], "train": {"step": np.array(step)}}
    with Checkpoints(folder, config.eval.metric, keep=5) as saved:
        saved.save(step, items | ({"constants": rest} if rest else {}), metrics,
                   {"config": config.to_dict()})  # fmt: skip
    return folder


def load(wanted=None, detector="", relations="", **overrides):
    config = get_default("sgcls")
    config.start.detector, config.start.relations = str(detector), str(relations)
    config.update_from_flattened_dict(overrides)
    shapes = jax.eval_shape(lambda: tree() if wanted is None else wanted)
    return {"/".join(path): x for path, x in start.load(config, shapes, place()).items()}


def same(found, paths, variables):
    flat = {"/".join(path): x for path, x in flatten_dict(variables).items()}
    for path in paths:
        np.testing.assert_array_equal(found[path], flat[path], err_msg=path)


def test_without_checkpoints_nothing_is_taken():
    assert load() == {}


def test_a_detector_gives_what_it_has_and_its_fc_layers_twice(tmp_path, capsys):
    variables = tree(*DETECTOR)
    found = load(detector=save(tmp_path, variables))
    own = {"/".join(path) for path in flatten_dict(variables)}
    copies = {
        "params/object_head/object_features/fc6/kernel": 2,
        "params/object_head/object_features/fc7/bias": 3,
        "params/edge_head/union_features/fc6/kernel": 2,
    }  # fc7 of the unions has another width
    assert found.keys() == own | copies.keys() and "constants/trunk/norm/mean" in own
    same(found, own, variables)
    for path, source in copies.items():
        np.testing.assert_array_equal(found[path], found[list(SHAPES)[source]])
    assert f"{len(own)} of {len(own)} arrays" in capsys.readouterr().out


def test_paths_that_the_model_lacks_are_left(tmp_path, capsys):
    variables = tree()
    wanted = tree("trunk", "box_features")
    found = load(wanted, detector=save(tmp_path, variables))
    assert found.keys() == {"/".join(path) for path in flatten_dict(wanted)}
    same(found, found, variables)
    assert "4 of 14 arrays" in capsys.readouterr().out


def test_what_was_measured_for_the_relations_stays_with_them(tmp_path):
    found = load(relations=save(tmp_path, tree()))
    assert {"params/edge_head/frequency_bias", "constants/layout_mean"} <= found.keys()


def test_trained_copies_are_kept(tmp_path):
    detector, relations = tree(*DETECTOR), tree()
    found = load(detector=save(tmp_path / "d", detector), relations=save(tmp_path / "r", relations))
    copies = [p for p in SHAPES if "object_features" in p or "union_features" in p]
    same(found, copies, relations)
    base = found["params/object_head/box_features/fc6/kernel"]
    assert not np.array_equal(found[copies[0]], base)
    same(found, [p for p in SHAPES if "rpn" in p or "box_deltas" in p], detector)


def test_relations_trained_on_another_detector_are_refused(tmp_path):
    detector = save(tmp_path / "d", tree(*DETECTOR, fill=0.5))
    relations = save(tmp_path / "r", tree("trunk", "fc3"))
    with pytest.raises(ValueError, match=r"trunk/\S+ differs between .*freeze_trunk") as error:
        load(detector=detector, relations=relations)
    assert str(detector) in str(error.value) and str(relations) in str(error.value)
    found = load(detector=detector, relations=relations, **{"train.end_to_end": True})
    assert {"params/trunk/conv1/kernel", "params/rpn/conv/kernel"} <= found.keys()


def test_relations_without_the_detectors_parts_join_any(tmp_path):
    relations = tree("fc3", "object_features")
    detector = tree(*DETECTOR)
    found = load(detector=save(tmp_path / "d", detector), relations=save(tmp_path / "r", relations))
    same(found, ["params/fc3/kernel", "params/object_head/object_features/fc7/bias"], relations)
    same(found, ["params/trunk/conv1/kernel"], detector)


def test_a_checkpoint_without_constants(tmp_path):
    """As VGG16's: no frozen normalisation."""
    variables = {"params": tree("trunk")["params"]}
    found = load(variables, detector=save(tmp_path, variables))
    assert found.keys() == {"params/trunk/conv1/kernel"}
    same(found, found, variables)


def test_wrong_shapes_are_listed(tmp_path):
    other = SHAPES | {"params/rpn/conv/kernel": (3, 3, 4, 6), "params/fc3/kernel": (2, 3)}
    folder = save(tmp_path, tree(shapes=other))
    with pytest.raises(ValueError, match="another architecture") as error:
        load(relations=folder)
    lines = str(error.value).splitlines()
    assert lines[0].startswith(f"--config.start.relations={folder}")
    assert lines[1:] == [
        "  params/fc3/kernel: stored (2, 3), needed (7, 3)",
        "  params/rpn/conv/kernel: stored (3, 3, 4, 6), needed (3, 3, 4, 5)",
    ]


def test_another_trunk_is_refused(tmp_path):
    shapes = {"params/trunk/conv1_1/kernel": (3, 3, 3, 4), "params/trunk/conv1_1/bias": (4,)}
    folder = save(tmp_path, tree(shapes=shapes))
    with pytest.raises(ValueError, match=r"nothing in it has a place.*trunk is small.*model.trunk"):
        load(detector=folder)


def test_the_best_step_counts(tmp_path):
    for step, score in ((1, 0.2), (2, 0.9), (3, 0.4)):
        metrics = {"mAP@50": score, "R@20": 1 - score}
        variables = tree("fc3", "rpn", fill=step)
        save(tmp_path, variables, step, metrics, **{"eval.metric": "mAP@50"})
    found = load(relations=tmp_path)
    same(found, ["params/fc3/kernel"], tree("fc3", fill=2))


def test_imported_weights_have_no_configuration(tmp_path):
    variables = tree("trunk")
    rest = {"constants": variables["constants"]}
    with Checkpoints(tmp_path, keep=1) as saved:
        items = {"params": variables["params"], "constants": rest}
        saved.save(0, items, None, {"imported": "a network", "settings": {}})
    same(load(detector=tmp_path), ["params/trunk/conv1/kernel", "constants/trunk/norm/mean"],
         variables)  # fmt: skip


def test_averaged_weights_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"train.ema"):
        load(detector=save(tmp_path, tree(), **{"train.ema": 0.9}))


def test_a_folder_without_checkpoints(tmp_path):
    with pytest.raises(ValueError, match="holds no checkpoints"):
        load(detector=tmp_path)


def test_scene_graph_detection_needs_a_whole_detector(tmp_path):
    relations = save(tmp_path, tree("trunk", "fc3"))
    with pytest.raises(ValueError, match=r"stands on a trained detector.*start\.detector"):
        load(relations=relations, task="sgdet")
    load(relations=relations, **{"task": "sgdet", "train.end_to_end": True})
    load(relations=relations, **{"task": "sgdet", "data.detections": "found.jsonl"})
