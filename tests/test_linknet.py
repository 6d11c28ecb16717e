"""The whole network against its equations, pair by pair, and what padding may not change."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import tiny

from linknet_jax.config import get_default
from linknet_jax.models.backbones import TRUNKS
from linknet_jax.models.layers import UnitVarianceLinear
from linknet_jax.state import create_state
from linknet_jax.tasks import TASKS
from linknet_jax.validation import CHOICES, STRIDES
from linknet_jax.variants import PRESETS, TABLES

COUNTS, N = (4, 1, 3, 0), 8
SCENES = [tiny.scene(count, seed) for seed, count in enumerate(COUNTS)]
BATCH = tiny.make_batch(SCENES, N)

# Real runs of the choices, several at once; tiny.create_task's overrides.
MANY = {
    "attention": {
        "model__row_op": "sigmoid",
        "model__similarity": "euclidean",
        "model__attention_scale": "rsqrt_dim",
        "model__num_rem": 3,
        "model__reduction": 4,
        "model__e0_label": "softmax",
        "model__layout_box": "corner",
        "model__layout_head": "linear",
        "model__context_pool": "valid",
        "model__context_trunk": True,
    },
    "motifs": {
        "model__frequency_bias": True,
        "model__union_mask": True,
        "model__roi_size": 7,
        "model__layout_head": "batch_norm",
        "model__roi_align": "motifs",
        "model__similarity": "euclidean_root",
        "model__num_rem": 1,
        "model__reduction": 1,
        "model__e0_label_train": "argmax",
    },
    "bare": {
        "model__use_rem": False,
        "model__use_glem": False,
        "model__use_gcem": False,
        "model__e0_context": False,
        "model__num_rem": 4,
        "model__freeze_trunk": True,
        "model__freeze_box_head": True,
    },
}


def close(a, b, rtol=1e-4, atol=1e-4):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol, atol), a, b)


def losses_of(batch, **overrides):
    run = tiny.loss_function(**overrides)
    return run(tiny.variables(**overrides), batch, tiny.all_pair_masks(batch), None)


def check_image(graph, index, count, expected):
    """One image of a batched graph against the loop over its pairs."""
    for name, wanted in expected.items():
        value = getattr(graph, name)
        if wanted is None:
            assert value is None, name
            continue
        value = np.asarray(value[index], np.float64)
        if name not in ("context", "context_logits"):
            value = value[:count]
        if name in ("R1", "R2", "G2"):
            assert not value[:, count:].any(), name
            value = value[:, :count]
        np.testing.assert_allclose(value, wanted, rtol=2e-3, atol=2e-4, err_msg=name)
    assert not np.asarray(graph.G2[index, count:]).any()


@pytest.mark.parametrize("many", ["", *MANY])
def test_network_is_the_equations(many):
    overrides = MANY.get(many, {})
    variables, config = tiny.variables(**overrides), tiny.create_task(**overrides).config.model
    graph, _ = tiny.graph_function(**overrides)(variables, BATCH)
    for index, (image, count) in enumerate(zip(SCENES, COUNTS, strict=True)):
        expected = reference.link_net(
            variables, config, image["images"], image["image_sizes"], image["boxes"]
        )
        check_image(graph, index, count, expected)


def test_given_labels_and_distribution_enter_the_equations():
    overrides = {"name": "predcls", "model__predcls_l": "gt"}
    variables, config = tiny.variables(**overrides), tiny.create_task(**overrides).config.model
    graph, _ = tiny.graph_function(**overrides)(variables, BATCH)
    for index, (image, count) in enumerate(zip(SCENES, COUNTS, strict=True)):
        expected = reference.link_net(
            variables, config, image["images"], image["image_sizes"], image["boxes"],
            image["labels"], np.eye(tiny.OBJECTS)[image["labels"]],
        )  # fmt: skip
        check_image(graph, index, count, expected)


def test_padding_changes_neither_losses_nor_gradients():
    expected = losses_of(BATCH)
    result = losses_of(tiny.make_batch(SCENES, 16, garbage=1))
    close(result, expected)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(result))


def test_garbage_in_the_padding_changes_nothing_at_all():
    expected, result = losses_of(BATCH), losses_of(tiny.make_batch(SCENES, N, garbage=2))
    jax.tree.map(np.testing.assert_array_equal, result, expected)
    forward, variables = tiny.graph_function(), tiny.variables()
    graphs = [forward(variables, tiny.make_batch(SCENES, N, garbage=g))[0] for g in (0, 2)]
    jax.tree.map(np.testing.assert_array_equal, *graphs)


def test_an_image_alone_is_the_image_in_a_batch():
    alone = [losses_of(tiny.make_batch([image], N)) for image in SCENES]
    close(jax.tree.map(lambda *x: sum(x), *alone), losses_of(BATCH))


def test_images_without_a_pair_have_finite_gradients():
    for count in (0, 1):
        (_, (terms, _)), gradients = losses_of(tiny.make_batch([tiny.scene(count, 9)], N))
        assert terms["relation"] == 0 and (terms["object"] > 0) == (count == 1)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))
        assert not any(np.any(x) for x in jax.tree.leaves(gradients["edge_head"]))


def permuted(image, order):
    changes = {name: image[name][order] for name in ("boxes", "labels")}
    return {**image, **changes, "predicates": image["predicates"][order][:, order]}


def test_order_of_the_boxes_does_not_matter():
    orders = [np.random.default_rng(count).permutation(count) for count in COUNTS]
    orders[0] = np.array([2, 0, 3, 1])
    batch = tiny.make_batch([permuted(*x) for x in zip(SCENES, orders, strict=True)], N)
    forward, variables = tiny.graph_function(), tiny.variables()
    graph, moved = forward(variables, BATCH)[0], forward(variables, batch)[0]
    for i, order in enumerate(orders):
        for name in ("box_logits", "O3", "O4", "labels", "E0"):
            close(getattr(moved, name)[i, : len(order)], getattr(graph, name)[i, order])
        for name in ("R1", "R2", "G2"):
            close(
                getattr(moved, name)[i, : len(order), : len(order)],
                getattr(graph, name)[i][np.ix_(order, order)],
            )
    close(losses_of(batch), losses_of(BATCH))


def leaves(tree):
    return {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def untrained(name):
    """Parameters without a gradient: frozen ones, and a bias that a row softmax cancels."""
    if name == "bare":
        return ("trunk", "box_features", "box_head")
    return () if name == "motifs" else ("'U'",) if name == "" else ()


@pytest.mark.parametrize("many", ["", *MANY])
def test_every_parameter_that_should_train_has_a_finite_gradient(many):
    (loss, _), gradients = losses_of(BATCH, **MANY.get(many, {}))
    assert np.isfinite(loss)
    for name, gradient in leaves(gradients).items():
        assert np.isfinite(gradient).all(), name
        if not any(part in name for part in untrained(many)):
            assert np.any(gradient), name
        elif many == "bare":
            assert not np.any(gradient), name


def test_bfloat16_with_dropout_is_finite():
    overrides = {"model__dtype": "bfloat16", "model__reduction": 2, "model__dropout": 0.5}
    keys = tiny.keys_of(BATCH)
    run = tiny.loss_function(**overrides)
    (_, (terms, _)), gradients = run(
        tiny.variables(**overrides), BATCH, tiny.all_pair_masks(BATCH), keys
    )
    exact = losses_of(BATCH)[0][1][0]
    for name, term in terms.items():
        assert term.dtype == jnp.float32 and 0.3 < term / exact[name] < 3
    for name, gradient in leaves(gradients).items():
        assert gradient.dtype == jnp.float32 and np.isfinite(gradient).all(), name


def test_predicate_logits_are_float32_under_bfloat16():
    """Rounded to bfloat16, triplets would tie in the ranking."""
    overrides = {"model__dtype": "bfloat16"}
    graph, _ = tiny.graph_function(**overrides)(tiny.variables(), BATCH)
    logits = graph.G2[graph.pair_mask]
    assert logits.dtype == np.float32
    assert np.mean(logits != logits.astype(jnp.bfloat16).astype(np.float32)) > 0.9


def test_dropout_of_an_image_depends_on_its_key_only():
    overrides = {"model__dropout": 0.5}
    forward, variables = tiny.graph_function(train=True, **overrides), tiny.variables()
    keys = tiny.keys_of(BATCH)
    together, _ = forward(variables, BATCH, keys)
    for i in (0, 2):
        alone, _ = forward(variables, tiny.make_batch([SCENES[i]], 5), keys[i : i + 1])
        for name in ("box_logits", "O4"):
            close(getattr(alone, name)[0, : COUNTS[i]], getattr(together, name)[i, : COUNTS[i]])
        close(alone.G2[0, :3, :3], together.G2[i, :3, :3])
    other, _ = forward(variables, BATCH, keys[::-1])
    for name in ("box_logits", "O4", "G2"):
        assert np.abs(getattr(other, name)[0] - getattr(together, name)[0]).max() > 0.01


def test_running_statistics_are_those_of_the_valid_pairs():
    before = tiny.variables(**MANY["motifs"])["batch_stats"]
    (_, (_, updates)), _ = losses_of(BATCH, **MANY["motifs"])
    (_, (_, again)), _ = losses_of(tiny.make_batch(SCENES, N, garbage=3), **MANY["motifs"])
    jax.tree.map(np.testing.assert_array_equal, again, updates)
    layouts = [
        reference.relative_layout(s, o)
        for image in SCENES
        for i, s in enumerate(image["boxes"])
        for j, o in enumerate(image["boxes"])
        if i != j
    ]
    norm, old = updates["batch_stats"]["layout_norm"], before["layout_norm"]
    for name, value in (("mean", np.mean(layouts, 0)), ("var", np.var(layouts, 0))):
        close(norm[name], 0.999 * old[name] + 0.001 * value, 1e-5, 1e-6)
    changes = jax.tree.map(lambda a, b: np.abs(a - b).max(), updates["batch_stats"], before)
    assert all(0 < x < np.inf for x in jax.tree.leaves(changes["edge_head"]))


def test_images_without_a_pair_leave_the_running_statistics_alone():
    scenes = [tiny.scene(1, 1), tiny.scene(0, 2), tiny.scene(1, 3), tiny.scene(1, 4)]
    (_, (_, updates)), gradients = losses_of(tiny.make_batch(scenes, N), **MANY["motifs"])
    close(updates["batch_stats"], tiny.variables(**MANY["motifs"])["batch_stats"], 1e-6, 1e-6)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))


ELSEWHERE = {"full_size", "boxes"}  # too large; tests/test_box_heads.py
SINGLES = {name: x for name, x in (PRESETS | TABLES).items() if name not in ELSEWHERE}
SINGLES |= {
    f"{key}={choice}": {key: choice}
    for key, choices in CHOICES.items()
    if key.startswith("model.")
    for choice in choices
}
FLAGS = {"context_trunk", "frequency_bias", "freeze_trunk", "freeze_box_head"}
SINGLES |= {f"{flag}=True": {f"model.{flag}": True} for flag in FLAGS}


@functools.cache
def structure(**overrides):
    task, batch = tiny.create_task(**overrides), tiny.make_batch(SCENES[:2], 4)
    masks = tiny.all_pair_masks(batch)
    return jax.eval_shape(task.forward, tiny.shapes(**overrides), batch, masks)[0]


@pytest.mark.parametrize("single", sorted(SINGLES))
def test_every_variant_initialises_and_keeps_the_contract(single):
    overrides = {key.replace(".", "__"): value for key, value in SINGLES[single].items()}
    if overrides.get("model__union_mask"):
        overrides["model__roi_size"] = 7
    model, graph = tiny.create_task(**overrides).config.model, structure(**overrides)
    shapes = {name: (x.shape, str(x.dtype)) for name, x in vars(graph).items() if x is not None}
    width = model.hidden_dim * model.e0_context + model.embed_dim
    expected = {
        "box_logits": (2, 4, tiny.OBJECTS),
        "O3": (2, 4, model.hidden_dim),
        "O4": (2, 4, tiny.OBJECTS),
        "E0": (2, 4, width),
        "G2": (2, 4, 4, tiny.PREDICATES),
    }
    for name, shape in expected.items():
        assert shapes[name] == (shape, "float32")
    assert ("context_logits" in shapes) == model.use_gcem
    assert ("R1" in shapes, "R2" in shapes) == (model.use_rem, model.use_rem and model.num_rem > 1)


def size(tree):
    return sum(np.prod(x.shape) for x in jax.tree.leaves(tree))


def test_the_papers_size_has_the_papers_parameters():
    """The paper's sizes; numbers in millions."""
    config = get_default("sgcls")
    config.update_from_flattened_dict(PRESETS["full_size"] | PRESETS["motifs"])
    task = TASKS["sgcls"](config, 151, 51)
    state = jax.eval_shape(lambda key: create_state(config, task, key, {}, {}), jax.random.key(0))
    params = state.params
    assert params["object_stack"]["rem1"]["W"]["kernel"].shape == (4808, 2404)
    assert params["edge_stack"]["rem1"]["W"]["kernel"].shape == (456, 228)
    assert params["edge_head"]["fc4"]["kernel"].shape == (4224, 51)
    objects, edges, head = params["object_stack"], params["edge_stack"], params["edge_head"]
    for tree, millions in (
        (objects["rem1"], 46.25), (objects["fc1"], 1.23), (objects["rem2"], 0.13),
        (params["fc3"], 0.039), (edges["rem1"], 0.42), (edges["fc1"], 0.12),
        (edges["rem2"], 0.13), (params["projection"], 2.11), (params["context"], 0.077),
        (params["K0"], 0.0302), (params["K1"], 0.0302), (head["layout"]["K2"], 0.00064),
        (head["fc4"], 0.215), (head["frequency_bias"], 1.16), (head["union_features"], 119.5),
        (params["object_head"]["object_features"], 119.5),
        (params["object_head"]["box_features"], 119.5), (head["union_mask"], 1.21),
        (params["trunk"], 14.71),
    ):  # fmt: skip
        digits = str(millions).split(".")[1]
        assert round(float(size(tree)) / 1e6, len(digits)) == millions
    assert set(objects) == set(edges) == {"rem1", "fc1", "rem2"}


def test_the_projection_starts_with_unit_variance_on_the_valid_rows():
    rng = np.random.default_rng(0)
    x, mask = rng.normal(size=(4, 30, 64)) * 0.02, np.arange(30) < np.array([[30], [11], [5], [0]])
    x[~mask] = 1e4
    module = UnitVarianceLinear(400)
    y, _ = module.init_with_output(jax.random.key(0), jnp.asarray(x), jnp.asarray(mask))
    np.testing.assert_allclose(np.asarray(y)[mask].std(), 1, rtol=0.1)


def test_validation_knows_the_trunks():
    assert STRIDES == {name: trunk.strides[-1] for name, trunk in TRUNKS.items()}
    assert set(CHOICES["model.trunk"]) == set(TRUNKS)
