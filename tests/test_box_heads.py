"""The model without pixels: its equations, and that pixels, padding and devices change nothing."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import tiny
from test_train import SGD, make_mesh, start

from linknet_jax import parallel, train_step
from linknet_jax.config import get_config, get_default
from linknet_jax.models.box_heads import PairFeatures
from linknet_jax.state import create_state
from linknet_jax.tasks import TASKS
from linknet_jax.validation import validate

BOXES = {"name": "predcls", "model__predcls_l": "gt", "model__visual": False}
BIASED = {**BOXES, "model__frequency_bias": True, "model__layout_head": "linear"}
SMALL = {**BIASED, "model__num_rem": 1, "model__dropout": 0.3}
COUNTS, N = (4, 1, 3, 0), 8


def blind(scene):
    """The same scene without pixels, in another extent than the network's square."""
    return {**scene, "images": np.zeros((0, 0, 3), np.uint8)}


SCENES = [blind(tiny.scene(count, seed)) for seed, count in enumerate(COUNTS)]
BATCH = tiny.make_batch(SCENES, N)


def network(variables, config, image) -> dict:
    """The equations on boxes and true classes alone, pair by pair."""
    params, boxes, labels = variables["params"], image["boxes"], image["labels"]
    size, n = image["image_sizes"], len(labels)
    k0, k1 = (np.asarray(params[name], np.float64)[labels] for name in ("K0", "K1"))
    own = np.array([reference.box_geometry(box, size) for box in boxes]).reshape(n, 7)
    f = np.maximum(reference.linear(own, params["box_features"]["fc"]), 0)
    o3, _ = reference.relational_stack(np.concatenate([f, k0], axis=1), params["object_stack"])
    e0 = np.concatenate([k1, o3], axis=1)
    e1 = reference.relational_stack(e0, params["edge_stack"])[0]
    e1 = reference.linear(e1, params["projection"]["fc"])
    d, head = config["pooling_dim"], params["edge_head"]
    g2 = np.zeros((n, n, tiny.PREDICATES))
    for s, o in np.ndindex(n, n):
        if s == o:
            continue
        x = np.concatenate([reference.pair_geometry(boxes[s], boxes[o], size), k1[s], k1[o]])
        x = np.maximum(reference.linear(x, head["pair_features"]["fc6"]), 0)
        g = e1[s, :d] * e1[o, d:] * reference.linear(x, head["pair_features"]["fc7"])
        layout = np.array(reference.relative_layout(boxes[s], boxes[o]))
        layout = (layout - tiny.MOMENTS["layout_mean"]) / tiny.MOMENTS["layout_std"]
        code = reference.linear(layout, head["layout"]["K2"])
        code = code if config["layout_head"] == "linear" else np.maximum(code, 0)
        g2[s, o] = reference.linear(np.concatenate([g, code]), head["fc4"])
        if config["frequency_bias"]:
            g2[s, o] += head["frequency_bias"][labels[s], labels[o]]
    return {"O3": o3, "O4": reference.linear(o3, params["fc3"]), "E0": e0, "G2": g2}


@pytest.mark.parametrize("overrides", [BOXES, BIASED], ids=["plain", "biased"])
def test_network_is_the_equations(overrides):
    variables = tiny.variables(**overrides)
    graph, _ = tiny.graph_function(**overrides)(variables, BATCH)
    config = tiny.create_task(**overrides).config.model
    for index, (image, count) in enumerate(zip(SCENES, COUNTS, strict=True)):
        for name, wanted in network(variables, config, image).items():
            value = np.asarray(getattr(graph, name)[index], np.float64)[:count]
            value = value[:, :count] if name == "G2" else value
            np.testing.assert_allclose(value, wanted, rtol=2e-3, atol=2e-4, err_msg=name)
        assert not np.asarray(graph.G2[index, count:]).any()
    assert graph.box_logits is graph.context is graph.context_logits is None


def test_it_has_no_parameters_for_pixels():
    names = set(tiny.shapes(**BOXES)["params"])
    wanted = {"K0", "K1", "box_features", "object_stack", "fc3", "edge_stack", "projection"}
    assert names == wanted | {"edge_head"}
    head = set(tiny.shapes(**BOXES)["params"]["edge_head"])
    assert head == {"pair_features", "layout", "fc4"}


def test_a_fresh_state_needs_no_pixels_either():
    config = get_config("predcls", "boxes")
    config.update_from_flattened_dict(tiny.SIZES | {"model.predcls_l": "gt"})
    task = TASKS["predcls"](config, tiny.OBJECTS, tiny.PREDICATES)
    state = tiny.on_host(lambda key: create_state(config, task, key, {}, {}))(jax.random.key(0))
    wanted = tiny.shapes(**BOXES, train__ema=0.9)["params"]
    assert jax.tree.map(np.shape, state.params) == jax.tree.map(np.shape, wanted)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))
    layer = state.params["edge_head"]["pair_features"]["fc6"]["kernel"]
    assert layer.std() > 0.05


def masks(batch):
    return tiny.all_pair_masks(batch)


def losses_of(batch):
    return tiny.loss_function(**BOXES)(tiny.variables(**BOXES), batch, masks(batch), None)


def test_pixels_are_not_looked_at():
    forward, variables = tiny.graph_function(**BOXES), tiny.variables(**BOXES)
    expected = forward(variables, BATCH)[0]
    for value in (0, 255):
        images = np.full((len(SCENES), tiny.SIDE, tiny.SIDE, 3), value, np.uint8)
        found = forward(variables, BATCH.replace(images=images))[0]
        jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_the_extent_of_the_photograph_is():
    forward, variables = tiny.graph_function(**BOXES), tiny.variables(**BOXES)
    wide = BATCH.replace(image_sizes=BATCH.image_sizes * np.float32([1, 3]))
    a, b = (np.asarray(forward(variables, x)[0].G2) for x in (BATCH, wide))
    assert np.abs(a - b)[0].max() > 1e-3


def test_relations_are_all_that_is_learnt():
    (total, (terms, _)), gradients = losses_of(BATCH)
    assert set(terms) == {"relation"} and total == terms["relation"] > 0
    task = tiny.create_task(**BOXES)
    assert set(task.weights()) == set(task.counts(BATCH, masks(BATCH))) == {"relation"}
    graph, _ = tiny.graph_function(**BOXES)(tiny.variables(**BOXES), BATCH)
    wanted = reference.softmax_loss(graph.G2, BATCH.predicates, masks(BATCH))
    np.testing.assert_allclose(total, wanted, rtol=1e-4)
    silent = {name for name, x in gradients.items() if not any(map(np.any, jax.tree.leaves(x)))}
    assert silent == {"fc3"}  # of the object classes, which are given


def test_padding_changes_neither_values_nor_losses_nor_gradients():
    expected = losses_of(BATCH)
    jax.tree.map(
        np.testing.assert_array_equal, losses_of(tiny.make_batch(SCENES, N, garbage=2)), expected
    )
    wider = losses_of(tiny.make_batch(SCENES, 12, garbage=1))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-5), wider, expected)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(wider))
    forward, variables = tiny.graph_function(**BOXES), tiny.variables(**BOXES)
    graphs = [forward(variables, tiny.make_batch(SCENES, N, garbage=g))[0] for g in (0, 2)]
    jax.tree.map(np.testing.assert_array_equal, *graphs)


def test_images_without_a_pair_have_no_gradient():
    scenes = [blind(tiny.scene(count, 9)) for count in (0, 1, 0, 1)]
    (_, (terms, _)), gradients = losses_of(tiny.make_batch(scenes, N))
    assert terms["relation"] == 0
    assert not any(np.any(x) for x in jax.tree.leaves(gradients))  # NaN would count


def test_a_direction_alone_is_that_direction_of_both():
    task, variables = tiny.create_task(**BOXES), tiny.variables(**BOXES)
    forward = tiny.on_host(lambda v, batch, mask: task.forward(v, batch, mask)[0].G2)
    both = forward(variables, BATCH, masks(BATCH))
    for i, j in ((0, 1), (1, 0), (2, 3), (3, 2)):
        alone = np.zeros_like(masks(BATCH))
        alone[0, i, j] = True
        found = forward(variables, BATCH, alone)
        wanted = np.where(alone[..., None], both, 0)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
        assert np.abs(both[0, i, j] - both[0, j, i]).max() > 1e-3


def test_pair_features_of_both_directions():
    """The second is what the first is of the pair the other way round; dropout differs."""
    config = tiny.create_task(**BOXES, model__dropout=0.5).config.model.to_dict()
    params = tiny.variables(**BOXES)["params"]["edge_head"]["pair_features"]
    operands = {"boxes": BATCH.boxes[:1, :4], "image_sizes": BATCH.image_sizes[:1]}
    operands["classes"] = np.random.default_rng(0).normal(size=(1, 4, 6)).astype(np.float32)
    operands = jax.tree.map(jnp.asarray, operands)
    i, j = np.array([0, 0, 2]), np.array([1, 3, 3])
    module = PairFeatures(config)

    @tiny.on_host
    def apply(i, j, keys=None):
        rows = {"images": jnp.zeros_like(i), "i": i, "j": j, "keys": keys}
        return module.apply({"params": params}, operands, rows)

    there, back = apply(i, j), apply(j, i)
    assert there.shape == (3, 2, 8)
    np.testing.assert_allclose(there, back[:, ::-1], rtol=1e-6, atol=1e-6)
    assert np.abs(there[:, 0] - there[:, 1]).max() > 1e-3
    keys = jax.vmap(jax.random.key)(jnp.arange(3))
    dropped, backwards = apply(i, j, keys), apply(i[::-1].copy(), j[::-1].copy(), keys[::-1])
    np.testing.assert_array_equal(dropped, backwards[::-1])  # by the key, wherever the row is
    twice = apply(i, i, keys)  # of a box with itself only dropout differs
    assert (twice[:, 0] != twice[:, 1]).any() and (dropped != there).any()


def three_steps(devices, accumulation, n):
    """(values of every step, final state) on 32 images padded to n objects with garbage."""
    task = tiny.create_task(**SMALL, train__accumulation=accumulation, **SGD)
    mesh = make_mesh(devices)
    scenes = [blind(tiny.scene(3 + seed % 3, seed)) for seed in range(32)]
    batch = parallel.to_devices(tiny.make_batch(scenes, n, garbage=n), mesh)
    state = start(task, mesh, **SMALL)
    step = train_step.compile_train_step(task, mesh).lower(state, batch)
    step, values = step.compile(compiler_options=tiny.FAST), []
    for _ in range(3):
        state, found = step(state, batch)
        values.append({name: float(x) for name, x in found.items()})
    return values, jax.device_get(state)


def test_devices_accumulation_and_padding_change_nothing():
    expected, state = three_steps(1, 1, 5)
    values, other = three_steps(8, 4, 7)
    for a, b in zip(expected, values, strict=True):
        assert set(b) == {"loss", "relation", "grad_norm", "lr"}
        assert b == pytest.approx(a, rel=2e-5)
    assert expected[2]["loss"] < expected[0]["loss"]
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)


def test_predictions_need_no_pixels():
    predict = tiny.predict_function(**BOXES)
    found = predict(tiny.variables(**BOXES), BATCH)
    np.testing.assert_array_equal(found.labels[0, :4], BATCH.labels[0, :4])
    assert found.count.tolist() == [c * (c - 1) for c in COUNTS]


def test_only_given_classes_can_do_without_pixels():
    for task, source in (("sgcls", "detector"), ("sgcls", "gt"), ("predcls", "detector")):
        config = get_default(task)
        config.model.update({"visual": False, "predcls_l": source})
        with pytest.raises(ValueError, match=r"--config.model.visual=False: .*configs/predcls.py"):
            validate(config)
    config = get_config("predcls", "vg150,boxes")
    config.model.predcls_l = "gt"
    validate(config)
