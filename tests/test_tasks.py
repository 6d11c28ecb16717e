"""Which ground truth enters a task, what it sums, and what it predicts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import tiny

COUNTS, N = (4, 1, 3, 0), 8
SCENES = [tiny.scene(count, seed) for seed, count in enumerate(COUNTS)]
BATCH = tiny.make_batch(SCENES, N)
GT = {"model__predcls_l": "gt"}


def relabelled(batch):
    """Other labels and relations, the same boxes."""
    labels = 1 + (batch.labels % (tiny.OBJECTS - 1))
    return batch.replace(labels=labels, predicates=(batch.predicates + 1) % tiny.PREDICATES)


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_scene_graph_classification_never_sees_the_labels_it_is_scored_on():
    predict, variables = tiny.predict_function(), tiny.variables()
    equal(predict(variables, relabelled(BATCH)), predict(variables, BATCH))


def test_teacher_forcing_feeds_labels_to_the_edges_only():
    forward, variables = tiny.graph_function(train=True, model__dropout=0.5), tiny.variables()
    keys = tiny.keys_of(BATCH)
    graph, _ = forward(variables, BATCH, keys)
    other, _ = forward(variables, relabelled(BATCH), keys)
    for name in ("box_logits", "context", "context_logits", "R1", "R2", "O3", "O4"):
        equal(getattr(other, name), getattr(graph, name))
    valid = BATCH.box_mask
    np.testing.assert_array_equal(graph.labels, np.where(valid, BATCH.labels, 0))
    assert (np.asarray(other.G2) != np.asarray(graph.G2))[0].any()


@pytest.mark.parametrize(
    ("train", "source", "given"),
    [(True, "ground_truth", True), (True, "argmax", False), (False, "ground_truth", False)],
)
def test_when_labels_are_given_in_scene_graph_classification(train, source, given):
    inputs = tiny.create_task(model__e0_label_train=source).inputs(BATCH, train)
    assert set(inputs) == {"labels"} and (inputs["labels"] is not None) == given


@pytest.mark.parametrize("train", [True, False])
def test_inputs_of_predicate_classification(train):
    detector = tiny.create_task("predcls").inputs(BATCH, train)
    assert set(detector) == {"labels"} and detector["labels"] is BATCH.labels
    given = tiny.create_task("predcls", **GT).inputs(BATCH, train)
    expected = np.eye(tiny.OBJECTS)[BATCH.labels[0, :4]]
    np.testing.assert_array_equal(given["label_distribution"][0, :4], expected)


def test_the_detector_makes_l_unless_it_is_given():
    """Other labels change the objects of `gt` only; other detector weights those of `detector`."""
    variables = tiny.variables()
    head = jax.tree.map(lambda x: 2 * x, variables["params"]["object_head"]["box_head"])
    params = variables["params"]
    params = {**params, "object_head": {**params["object_head"], "box_head": head}}
    rebuilt = {**variables, "params": params}
    valid = BATCH.box_mask
    for overrides, by_labels, by_weights in (({}, False, True), (GT, True, False)):
        forward = tiny.graph_function("predcls", **overrides)
        base = np.asarray(forward(variables, BATCH)[0].O4)[valid]
        labels = np.asarray(forward(variables, relabelled(BATCH))[0].O4)[valid]
        weights = np.asarray(forward(rebuilt, BATCH)[0].O4)[valid]
        assert (np.abs(labels - base).max() > 1e-3) == by_labels
        assert (np.abs(weights - base).max() > 1e-3) == by_weights


def test_predicted_graph_is_the_brute_force_one():
    task, variables = tiny.create_task(), tiny.variables()
    prediction = tiny.predict_function()(variables, BATCH)
    for index, (image, n) in enumerate(zip(SCENES, COUNTS, strict=True)):
        graph = reference.link_net(
            variables, task.config.model, image["images"], image["image_sizes"], image["boxes"]
        )
        scores = reference.softmax(graph["O4"])[np.arange(n), graph["labels"]]
        pairs = ~np.eye(n, dtype=bool)
        best, free = reference.ranked_triplets(scores, reference.softmax(graph["G2"]), pairs)
        one = jax.tree.map(lambda x: x[index], prediction)  # noqa: B023
        np.testing.assert_array_equal(one.labels[:n], graph["labels"])
        np.testing.assert_allclose(one.label_scores[:n], scores, rtol=1e-3)
        assert one.count == len(best) and one.free_count == len(free)
        assert [(*s, p) for s, p in zip(one.pairs.tolist(), one.predicates, strict=True)][
            : len(best)
        ] == best
        rows = zip(one.free_pairs.tolist(), one.free_predicates, strict=True)
        assert [(*s, p) for s, p in rows][: len(free)] == free


def test_predicate_classification_scores_given_labels_with_one():
    graph, _ = tiny.graph_function("predcls")(tiny.variables(), BATCH)
    labels, scores = tiny.create_task("predcls").objects(graph, BATCH)
    assert labels is BATCH.labels
    np.testing.assert_array_equal(scores, np.ones((4, N)))
    given = np.where(BATCH.box_mask, BATCH.labels, 0)
    np.testing.assert_array_equal(graph.labels, given)


def test_background_is_never_predicted():
    variables = tiny.variables()
    fc3 = {**variables["params"]["fc3"], "bias": jnp.asarray([90.0, 0, 0, 0, 0])}
    changed = {**variables, "params": {**variables["params"], "fc3": fc3}}
    prediction = tiny.predict_function()(changed, BATCH)
    valid = BATCH.box_mask
    assert (np.asarray(prediction.labels)[valid] > 0).all()
    assert (np.asarray(prediction.label_scores)[valid] < 1e-6).all()


def test_losses_are_the_loops_over_valid_entries():
    task, variables, masks = tiny.create_task(), tiny.variables(), tiny.all_pair_masks(BATCH)
    (_, (terms, _)), _ = tiny.loss_function()(variables, BATCH, masks, None)
    expected = dict.fromkeys(terms, 0.0)
    for image, n in zip(SCENES, COUNTS, strict=True):
        graph = reference.link_net(
            variables, task.config.model, image["images"], image["image_sizes"], image["boxes"],
            image["labels"],
        )  # fmt: skip
        every, pairs = np.ones(n, bool), ~np.eye(n, dtype=bool)
        expected["object"] += reference.softmax_loss(graph["O4"], image["labels"], every)
        expected["box_head"] += reference.softmax_loss(graph["box_logits"], image["labels"], every)
        expected["relation"] += reference.softmax_loss(graph["G2"], image["predicates"], pairs)
        present = [c in image["labels"] for c in range(1, tiny.OBJECTS)]
        expected["context"] += reference.sigmoid_loss(graph["context_logits"], present)
    for name, value in expected.items():
        np.testing.assert_allclose(terms[name], value, rtol=1e-3, err_msg=name)


def sampled(predicates, limit=7, related_limit=2):
    """How many ordered pairs of an unpadded image are drawn."""
    related, pairs = (predicates > 0).sum(), len(predicates) * (len(predicates) - 1)
    taken = min(related, related_limit)
    return taken + min(pairs - related, limit - taken)


def test_counts_are_what_the_losses_sum_over():
    """With all last layers at zero every entry costs the logarithm of the number of classes."""
    zero = {"fc3", "fc4", "classifier", "box_head"}
    variables = jax.tree_util.tree_map_with_path(
        lambda path, x: x * (not zero & {str(key.key) for key in path}), tiny.variables()
    )
    batch = BATCH.replace(example_mask=np.arange(4) < 3)
    task = tiny.create_task()
    pair_mask = tiny.sample_function()(batch, tiny.keys_of(batch))
    (_, (terms, _)), _ = tiny.loss_function()(variables, batch, pair_mask, None)
    counts = task.counts(batch, pair_mask)
    classes = {"object": 5, "box_head": 5, "relation": 4, "context": 2}
    assert set(terms) == set(counts) == set(classes) == set(task.weights())
    for name, number in classes.items():
        np.testing.assert_allclose(terms[name] / counts[name], np.log(number), rtol=1e-5)
    assert counts["object"] == sum(COUNTS) and counts["context"] == 3 * 4
    assert counts["relation"] == sum(sampled(image["predicates"]) for image in SCENES)
    summed = tiny.create_task(loss__context_reduction="sum").counts(batch, pair_mask)
    assert summed["context"] == 3


def test_an_image_without_example_has_no_loss():
    """The first three images alone, and with a fourth that only fills the batch."""
    variables, masks = tiny.variables(), tiny.all_pair_masks(BATCH)
    noise, filler = BATCH.images.copy(), np.arange(4) < 3
    noise[3] = 255 - noise[3]
    results = [
        tiny.loss_function()(variables, BATCH.replace(images=i, example_mask=filler), masks, None)
        for i in (BATCH.images, noise)
    ]
    equal(*results)


def test_sample_respects_the_limits_and_the_padding():
    batch = tiny.make_batch([tiny.scene(6, s) for s in range(4)], N)
    mask = tiny.sample_function()(batch, tiny.keys_of(batch))
    assert not mask[~tiny.all_pair_masks(batch)].any()
    related = (mask & (batch.predicates > 0)).sum((1, 2))
    np.testing.assert_array_equal(mask.sum((1, 2)), 7)
    np.testing.assert_array_equal(related, 2)


@pytest.mark.parametrize(
    ("name", "overrides", "terms"),
    [
        ("sgcls", {}, {"object", "relation", "context", "box_head"}),
        ("sgcls", {"model__use_gcem": False}, {"object", "relation", "box_head"}),
        ("sgcls", {"model__freeze_box_head": True}, {"object", "relation", "context"}),
        ("predcls", {}, {"relation", "context", "box_head"}),
        ("predcls", GT, {"relation", "context"}),
    ],
)
def test_which_losses_a_task_has(name, overrides, terms):
    task = tiny.create_task(name, loss__relation=3.0, **overrides)
    assert set(task.weights()) == terms and task.weights()["relation"] == 3
    counts = jax.eval_shape(task.counts, BATCH, tiny.all_pair_masks(BATCH))
    assert set(counts) == terms
