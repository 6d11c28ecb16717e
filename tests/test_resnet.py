"""ResNet trunks against torch modules with torchvision's names and random weights."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from linknet_jax.models.resnet import (
    Bottleneck,
    ResNet50C4,
    ResNet50FPN,
    ResNet101C4,
    ResNet101FPN,
    ResNetFPN,
    source,
)

torch = pytest.importorskip("torch")
SIZES = [(70, 93), (64, 96)]  # cells of the second double exactly, those of the first do not


class TorchBottleneck(torch.nn.Module):
    """Torchvision's: `stride` on the 3x3 convolution and on the shortcut."""

    def __init__(self, inputs, width, stride, project):
        super().__init__()
        conv, norm = torch.nn.Conv2d, torch.nn.BatchNorm2d
        self.conv1, self.bn1 = conv(inputs, width, 1, bias=False), norm(width)
        self.conv2, self.bn2 = conv(width, width, 3, stride, 1, bias=False), norm(width)
        self.conv3, self.bn3 = conv(width, 4 * width, 1, bias=False), norm(4 * width)
        shortcut = conv(inputs, 4 * width, 1, stride, bias=False), norm(4 * width)
        self.downsample = torch.nn.Sequential(*(shortcut if project else ()))

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        return torch.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class Network(torch.nn.Module):
    """Stem and stages, and a pyramid if there are four: the maps of the trunk."""

    def __init__(self, depths):
        super().__init__()
        self.conv1, self.bn1 = torch.nn.Conv2d(3, 64, 7, 2, 3, bias=False), torch.nn.BatchNorm2d(64)
        self.pool, inputs = torch.nn.MaxPool2d(3, 2, 1), 64
        for stage, depth in enumerate(depths):
            width, blocks = 64 * 2**stage, []
            for block in range(depth):
                stride = 2 if stage and not block else 1
                blocks.append(TorchBottleneck(inputs, width, stride, not block))
                inputs = 4 * width
            setattr(self, f"layer{stage + 1}", torch.nn.Sequential(*blocks))
        self.stages = len(depths)
        self.fpn = torch.nn.Module()
        if self.stages == 4:
            self.fpn.inner_blocks = self.blocks([256, 512, 1024, 2048], 1)
            self.fpn.layer_blocks = self.blocks([256] * 4, 3)

    @staticmethod
    def blocks(inputs, side):
        layers = [torch.nn.Conv2d(n, 256, side, padding=side // 2) for n in inputs]
        return torch.nn.ModuleList(map(torch.nn.Sequential, layers))

    def forward(self, x):
        x, maps = self.pool(torch.relu(self.bn1(self.conv1(x)))), []
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
            maps.append(x)
        if self.stages < 4:
            return maps[-1:]
        above, pyramid = None, []
        for x, inner, layer in zip(
            maps[::-1], self.fpn.inner_blocks[::-1], self.fpn.layer_blocks[::-1], strict=True
        ):
            x = inner(x)
            if above is not None:
                x = x + torch.nn.functional.interpolate(above, size=x.shape[-2:], mode="nearest")
            above = x
            pyramid.insert(0, layer(x))
        return pyramid


def network(depths):
    """Random kernels that keep the variance, and random statistics of every norm."""
    generator = torch.Generator().manual_seed(0)
    model = Network(depths).eval()
    with torch.no_grad():
        for name, x in model.state_dict().items():
            if x.ndim == 4:
                x.normal_(0, (2 / x[0].numel()) ** 0.5, generator=generator)
            elif x.ndim:
                low, high = (-0.3, 0.3) if name.endswith(("bias", "mean")) else (0.5, 1.5)
                x.uniform_(low, high, generator=generator)
            if name.endswith(("bn3.weight", "bn3.bias")):
                x *= 0.3
    return model


def variables_of(trunk, model):
    """Our variables with the model's values; every tensor has to be used once."""
    tensors = {name: x.numpy() for name, x in model.state_dict().items()}
    tensors = {name: x for name, x in tensors.items() if not name.endswith("tracked")}
    shapes = jax.eval_shape(trunk.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3), jnp.uint8))
    values = {}
    for path, wanted in flatten_dict(shapes).items():
        value = tensors.pop(source(path[1:]))
        values[path] = value.transpose(2, 3, 1, 0) if path[-1] == "kernel" else value
        assert values[path].shape == wanted.shape, path
    assert not tensors
    return unflatten_dict(values)


def photograph(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (1, *size, 3), dtype=np.uint8)


def expected_of(model, images):
    """The model on images normalised by ImageNet's moments, NHWC."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        maps = model(((torch.tensor(images) / 255 - mean) / std).permute(0, 3, 1, 2))
    return [x.permute(0, 2, 3, 1).numpy() for x in maps]


def error(found, expected):
    """Largest deviation against the largest value."""
    return np.abs(np.asarray(found, np.float32) - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [ResNet50C4, ResNet50FPN])
def test_features_agree_with_torch(kind, size):
    trunk = kind()
    model = network(trunk.depths)
    images = photograph(size)
    found = jax.jit(trunk.apply)(variables_of(trunk, model), images)
    expected = expected_of(model, images)
    assert isinstance(found, tuple) and len(found) == len(expected) == len(trunk.strides)
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape and np.abs(b).max() > 1
        assert error(a, b) < 1e-4


@pytest.mark.parametrize(
    ("kind", "convolutions"),
    # torchvision's classifiers have 25 557 032 and 44 549 160 parameters: less norms and fc
    [(ResNet50C4, 8_512_704), (ResNet101C4, 27_452_608),
     (ResNet50FPN, 26_799_296), (ResNet101FPN, 45_739_200)],
)  # fmt: skip
def test_shapes_and_sizes(kind, convolutions):
    trunk = kind()
    images = jnp.zeros((2, 592, 333, 3), jnp.uint8)
    maps, variables = jax.eval_shape(trunk.init_with_output, jax.random.key(0), images)
    cells = [(-(592 // -s), -(333 // -s)) for s in kind.strides]
    assert [x.shape for x in maps] == [(2, *side, trunk.channels) for side in cells]
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == convolutions


def test_names_are_torchvisions():
    assert source(("conv1", "kernel")) == "conv1.weight"
    assert source(("bn1", "scale")) == "bn1.weight"
    assert source(("layer1_0", "downsample_1", "var")) == "layer1.0.downsample.1.running_var"
    assert source(("layer3_22", "bn2", "mean")) == "layer3.22.bn2.running_mean"
    assert source(("inner_0", "kernel")) == "fpn.inner_blocks.0.0.weight"
    assert source(("layer_3", "bias")) == "fpn.layer_blocks.3.0.bias"


@pytest.fixture(scope="module")
def shallow():
    """A pyramid with a block a stage, and its variables."""
    trunk = ResNetFPN((1, 1, 1, 1))
    return trunk, variables_of(trunk, network(trunk.depths))


def test_half_precision_stays_close(shallow):
    trunk, variables = shallow
    images = photograph((70, 93))
    half = jax.jit(trunk.clone(dtype=jnp.bfloat16).apply)(variables, images)
    for a, b in zip(half, jax.jit(trunk.apply)(variables, images), strict=True):
        assert a.dtype == jnp.bfloat16
        assert error(a, np.asarray(b)) < 0.03


def test_gradients_reach_kernels_and_no_frozen_statistics(shallow):
    trunk, variables = shallow
    images = photograph((32, 32))

    @jax.jit
    @jax.grad
    def gradients(variables):
        return sum(jnp.sum(x**2) for x in trunk.apply(variables, images))

    found = gradients(variables)
    assert all(np.isfinite(x).all() and np.any(x) for x in jax.tree.leaves(found["params"]))
    assert not any(np.any(x) for x in jax.tree.leaves(found["constants"]))


def test_a_fresh_block_keeps_the_scale():
    x = np.random.default_rng(0).exponential(size=(1, 12, 12, 256)).astype(np.float32)
    block = Bottleneck(64, 1, project=False)
    y, _ = block.init_with_output(jax.random.key(0), x)
    assert 1 < np.square(y).mean() / np.square(x).mean() < 1.15  # 33 of them: less than 100


def test_an_image_does_not_depend_on_its_batch(shallow):
    trunk, variables = shallow
    images = np.concatenate([photograph((40, 56), seed) for seed in range(2)])
    together = jax.jit(trunk.apply)(variables, images)
    alone = jax.jit(trunk.apply)(variables, images[1:])
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a[1:], b, rtol=1e-4, atol=1e-4)
