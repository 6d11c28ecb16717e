"""Imported weights compute what the torch modules compute, and the report is complete."""

from __future__ import annotations

import flax.linen as nn
import foreign
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from foreign import FC, OBJECTS, PREDICATES, error, randomised, tensors_of, torch
from test_resnet import network

from linknet_jax.config import get_default
from linknet_jax.models.linknet import LinkNet
from linknet_jax.models.pretrained import convert
from linknet_jax.models.resnet import RESNETS
from linknet_jax.models.roi_heads import FullyConnected
from linknet_jax.models.rpn import RegionProposals
from linknet_jax.models.trunks import VGG16, normalise
from linknet_jax.ops import boxes as box_ops
from linknet_jax.ops.roi_align import roi_align
from linknet_jax.ops.spatial_mask import draw_pair

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
CLOSE = 1e-4
FAST = {"xla_backend_optimization_level": 0}  # compiles take longer than runs here


def detector_of_torchvision(depth=50, old=False):
    """(backbone, heads, state dict) of a Faster R-CNN."""
    trunk = network((3, 4, 6 if depth == 50 else 23, 3))
    heads = randomised(foreign.TorchvisionHeads(old))
    tensors = {}
    for name, x in tensors_of(trunk).items():
        if name.endswith("num_batches_tracked"):
            continue  # torchvision's frozen norm has none
        place = "backbone." if name.startswith("fpn.") else "backbone.body."
        name = name.replace(".0.weight", ".weight").replace(".0.bias", ".bias") if (
            old and name.startswith("fpn.")) else name  # fmt: skip
        tensors[place + name] = x
    return trunk, heads, tensors | tensors_of(heads)


def resnet_of_imagenet(depth=50):
    trunk = network((3, 4, 6 if depth == 50 else 23))
    extra = {"fc.weight": np.ones((10, 2048), np.float32), "fc.bias": np.ones(10, np.float32)}
    layer4 = {"layer4.0.conv1.weight": np.ones((512, 1024, 1, 1), np.float32)}
    return trunk, tensors_of(trunk) | extra | layer4


@pytest.fixture(scope="module")
def linknet():
    model = randomised(foreign.LinkNet())
    return model, convert(tensors_of(model))


@pytest.fixture(scope="module")
def detector():
    model = randomised(foreign.Detector())
    return model, convert(tensors_of(model))


def apply(module, variables, *inputs):
    """Runs a module on imported variables."""
    run = jax.jit(lambda variables, *x: module.apply(variables, *x), compiler_options=FAST)
    return jax.device_get(run(variables, *inputs))


def nchw(x):
    return torch.tensor(np.asarray(x, np.float32)).permute(0, 3, 1, 2)


def run_torch(function, *inputs):
    with torch.no_grad():
        return function(*inputs)


def pooled(channels=512, count=4):
    return RNG.normal(size=(count, 7, 7, channels)).astype(np.float32)


def regions(params, name, x, features=FC, final_relu=True):
    module = FullyConnected(FC, features, 0.0, final_relu)
    return apply(module, {"params": params[name]}, x, None)


def test_vgg16_gives_the_same_features_and_fc7():
    model = randomised(foreign.VGG16())
    imported = convert(tensors_of(model))
    params, x = imported.variables["params"], pooled()
    (found,) = apply(VGG16(), {"params": params["trunk"]}, IMAGE)
    expected = run_torch(model.features[:-1], nchw(normalise(IMAGE))).permute(0, 2, 3, 1)
    assert found.shape == (1, 4, 4, 512) and error(found, expected) < CLOSE
    found = regions(params["object_head"], "box_features", x)
    expected = run_torch(model.classifier[:6], nchw(x).flatten(1))
    assert expected.max() > 0.1 and error(found, expected) < CLOSE
    assert imported.settings == {"model.trunk": "vgg16", "model.fc_dim": FC}


def test_motifs_proposals_are_split_into_logits_and_deltas(detector):
    model, imported = detector
    features = RNG.normal(size=(1, 3, 5, 512)).astype(np.float32)
    expected = run_torch(model.rpn_head, nchw(features)).reshape(1, -1, 6)
    params = {"params": imported.variables["params"]["rpn"]}
    logits, deltas = apply(RegionProposals(foreign.RPN, foreign.ANCHORS), params, (features,))
    assert error(logits, expected[..., :2]) < CLOSE
    assert error(deltas, expected[..., 2:]) < CLOSE


def test_motifs_box_head_gives_the_same_logits_and_deltas(detector):
    model, imported = detector
    x, head = pooled(), imported.variables["params"]["object_head"]
    hidden = run_torch(model.roi_fmap, nchw(x).flatten(1))
    found = regions(head, "box_features", x)
    assert error(found, hidden) < CLOSE
    for name, layer in (("box_head", model.score_fc), ("box_deltas", model.bbox_fc)):
        assert (
            error(found @ head[name]["kernel"] + head[name]["bias"], run_torch(layer, hidden))
            < CLOSE
        )
    assert imported.settings["model.roi_align"] == "motifs"
    assert imported.settings["rpn.width"] == foreign.RPN
    assert len(imported.settings["rpn.ratios"]) * len(imported.settings["rpn.scales"]) == 20


BOXES = np.array([[3, 5, 30, 40], [20, 8, 60, 50], [0, 0, 63, 63], [33, 30, 50, 61.0]], np.float32)


def scene_graph(imported, pair_mask):
    """Our model's outputs on IMAGE and BOXES, configured by the settings of the import."""
    config = get_default("sgcls")
    model = {k: v for k, v in imported.settings.items() if k.startswith("model.")}
    config.update_from_flattened_dict(model)
    module = LinkNet(nn.FrozenDict(config.model.to_dict()), OBJECTS, PREDICATES)
    n = len(BOXES)
    inputs = IMAGE, np.full((1, 2), 64, np.float32), BOXES[None], np.ones((1, n), bool), pair_mask
    return apply(module, imported.variables, *inputs)


def expected_graph(model, subject, object_):
    """The torch model on the regions of its own features."""
    image = nchw(normalise(IMAGE))
    features = jnp.asarray(run_torch(model.detector.features, image).permute(0, 2, 3, 1).numpy())

    def pool(boxes):
        ids = jnp.zeros(len(boxes), int)
        return nchw(roi_align(features, jnp.asarray(boxes), ids, stride=16, method="motifs"))

    a, b = BOXES[subject], BOXES[object_]
    rectangles = nchw(draw_pair(jnp.asarray(a), jnp.asarray(b)))
    layout = torch.tensor(box_ops.relative_layout(a, b))
    pairs = torch.tensor(np.stack([subject, object_], -1))
    unions = pool(box_ops.union(a, b))
    return run_torch(model, image, pool(BOXES), unions, rectangles, layout, pairs)


@pytest.mark.parametrize("pooling", [foreign.POOLING, FC])
def test_linknet_gives_the_same_graph(pooling):
    model = randomised(foreign.LinkNet(pooling), seed=3)
    imported = convert(tensors_of(model))
    assert imported.settings["model.pooling_dim"] == pooling
    pair_mask = ~np.eye(len(BOXES), dtype=bool)
    found = scene_graph(imported, pair_mask[None])
    expected = expected_graph(model, *pair_mask.nonzero())
    np.testing.assert_array_equal(found.labels[0], expected["labels"])
    for name in ("context", "context_logits"):
        assert error(getattr(found, name), expected[name]) < CLOSE, name
    for name in ("box_logits", "R1", "R2", "O3", "O4"):
        assert error(getattr(found, name)[0], expected[name]) < CLOSE, name
    assert error(found.G2[0][pair_mask], expected["G2"]) < CLOSE


def test_motifs_relations_share_all_but_the_context(linknet):
    model = randomised(foreign.MotifNet())
    imported = convert(tensors_of(model))
    x, head = pooled(), imported.variables["params"]
    found = regions(head["object_head"], "object_features", x)
    assert error(found, run_torch(model.roi_fmap_obj, nchw(x).flatten(1))) < CLOSE
    found = regions(head["edge_head"], "union_features", x, final_relu=False)
    assert error(found, run_torch(model.roi_fmap, nchw(x))) < CLOSE
    table = head["edge_head"]["frequency_bias"]
    np.testing.assert_array_equal(
        table[2, 4], model.freq_bias.obj_baseline.weight[2 * OBJECTS + 4].detach()
    )
    assert imported.report["context.obj_ctx_rnn.weight"].startswith("ignored: MotifNet's LSTM")
    used = {name for name, fate in imported.report.items() if fate.startswith("used")}
    assert used == {name for name in imported.report if not name.startswith(
        ("context.", "post_lstm.", "rel_compress.", "detector.rpn_head.anchors"))
        and not name.endswith("tracked")}  # fmt: skip
    assert imported.settings["model.frequency_bias"]


def test_without_frequency_bias_the_flag_is_off():
    tensors = tensors_of(randomised(foreign.MotifNet()))
    imported = convert({k: x for k, x in tensors.items() if not k.startswith("freq_bias.")})
    assert not imported.settings["model.frequency_bias"]
    assert "frequency_bias" not in imported.variables["params"]["edge_head"]


@pytest.mark.parametrize("depth", [50, 101])
def test_resnet_gives_the_same_features(depth):
    model, tensors = resnet_of_imagenet(depth)
    imported = convert(tensors)
    assert imported.settings == {"model.trunk": f"resnet{depth}_c4"}
    variables = {key: tree["trunk"] for key, tree in imported.variables.items()}
    found = apply(RESNETS[f"resnet{depth}_c4"](), variables, IMAGE)
    expected = run_torch(model, nchw(normalise(IMAGE)))
    assert error(found[0], expected[0].permute(0, 2, 3, 1)) < CLOSE
    assert imported.report["layer4.0.conv1.weight"].startswith("ignored: a C4 trunk ends")


@pytest.mark.parametrize("old", [False, True])
def test_torchvision_detector_gives_the_same_outputs(old):
    trunk, heads, tensors = detector_of_torchvision(old=old)
    imported = convert(tensors)
    params = imported.variables["params"]
    variables = {key: tree["trunk"] for key, tree in imported.variables.items()}
    maps = apply(RESNETS["resnet50_fpn"](), variables, IMAGE)
    for a, b in zip(maps, run_torch(trunk, nchw(normalise(IMAGE))), strict=True):
        assert error(a, b.permute(0, 2, 3, 1)) < CLOSE
    x, head = pooled(256), params["object_head"]
    box = heads.roi_heads
    y = torch.relu(run_torch(box.box_head.fc6, nchw(x).flatten(1)))
    y = torch.relu(run_torch(box.box_head.fc7, y))
    found = regions(head, "box_features", x)
    assert error(found, y) < CLOSE
    logits = found @ head["box_head"]["kernel"] + head["box_head"]["bias"]
    assert error(logits, run_torch(box.box_predictor.cls_score, y)) < CLOSE
    deltas = (found @ head["box_deltas"]["kernel"] + head["box_deltas"]["bias"]).reshape(4, -1, 4)
    expected = run_torch(box.box_predictor.bbox_pred, y).reshape(4, OBJECTS, 4).numpy()
    assert error(deltas, expected / [10, 10, 5, 5]) < CLOSE


def test_torchvision_proposals_land_where_its_own_do():
    """Centres and sizes in continuous pixels, by torchvision's definition of anchors and coder."""
    _, heads, tensors = detector_of_torchvision()
    imported, stride = convert(tensors), 8
    x = 0.3 * RNG.normal(size=(1, 3, 4, 256)).astype(np.float32)  # stays below ReLU6's 6
    params = {"params": imported.variables["params"]["rpn"]}
    logits, deltas = apply(RegionProposals(256, 3), params, (x,))
    hidden = run_torch(heads.rpn.head.conv, nchw(x)).relu()
    assert 0.5 < hidden.max() < 6
    z = run_torch(heads.rpn.head.cls_logits, hidden).permute(0, 2, 3, 1).reshape(-1)
    assert error(jax.nn.softmax(logits)[0, :, 1], torch.sigmoid(z)) < CLOSE
    theirs = run_torch(heads.rpn.head.bbox_pred, hidden).permute(0, 2, 3, 1).reshape(3, 4, 3, 4)
    for index in np.ndindex(3, 4, 3):
        row, column, kind = index
        ratio = (0.5, 1.0, 2.0)[kind]
        size = 8 * stride * np.array([ratio**-0.5, ratio**0.5])
        expected = np.array([column, row]) * stride + size * theirs[index][:2].numpy()
        ours = deltas[0].reshape(3, 4, 3, 4)[index]
        found = (np.array([column, row]) + 0.5) * stride + size * ours[:2]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(ours[2:], theirs[index][2:], rtol=1e-3, atol=1e-5)


KINDS = {
    "torchvision VGG16": lambda: tensors_of(randomised(foreign.VGG16())),
    "neural-motifs detector": lambda: tensors_of(randomised(foreign.Detector())),
    "neural-motifs relation": lambda: tensors_of(randomised(foreign.MotifNet())),
    "linknet-pytorch": lambda: tensors_of(randomised(foreign.LinkNet())),
    "torchvision ResNet": lambda: resnet_of_imagenet()[1],
    "torchvision Faster R-CNN": lambda: detector_of_torchvision()[2],
}


@pytest.mark.parametrize("kind", KINDS)
def test_report_tells_every_tensor_and_every_variable_once(kind):
    tensors = KINDS[kind]()
    file = {f"state_dict.{name}": x for name, x in tensors.items()}
    file["optimizer.state.0.momentum_buffer"] = np.zeros(3, np.float32)
    file["state_dict.ema.decay"] = np.zeros(3, np.float32)
    imported = convert(file)
    assert imported.kind == kind and imported.report.keys() == file.keys()
    assert imported.report["state_dict.ema.decay"] == f"ignored: no part of {kind}"
    assert "state of a training" in imported.report["optimizer.state.0.momentum_buffer"]
    fates = [part for fate in imported.report.values() if fate.startswith("used")
             for part in fate.split("; ")]  # fmt: skip
    told = sorted(part.removeprefix("used as ").partition(",")[0] for part in fates)
    leaves = {key: flatten_dict(tree) for key, tree in imported.variables.items()}
    assert told == sorted("/".join(path) for tree in leaves.values() for path in tree)
    for tree in leaves.values():
        assert all(x.dtype == np.float32 and x.flags.c_contiguous for x in tree.values())


DAMAGE = {
    "missing": lambda x: None,
    "; expected (": lambda x: x[:-1],
    "int64; expected floating point": lambda x: x.astype(np.int64),
    "not finite": lambda x: np.where(x == x.max(), np.nan, x),
    "not finite in float32": lambda x: x.astype(np.float64) * 1e300,
}


@pytest.mark.parametrize("rule", DAMAGE)
def test_every_damaged_tensor_is_named_in_one_error(rule):
    tensors = tensors_of(randomised(foreign.LinkNet()))
    names = [
        "context.RE3.U.weight",
        "union_boxes.conv.6.running_var",
        "detector.rpn_head.conv.2.bias",
    ]
    damaged = tensors | {name: DAMAGE[rule](tensors[name]) for name in names}
    with pytest.raises(ValueError, match="not linknet-pytorch weights") as caught:
        convert({name: x for name, x in damaged.items() if x is not None})
    lines = [line for line in str(caught.value).splitlines() if line.startswith("  ")]
    assert sorted(line.partition(":")[0].strip() for line in lines) == sorted(names)
    assert all(rule in line for line in lines)


def test_half_precision_is_read(detector):
    model, imported = detector
    half = {name: x.astype(np.float16) for name, x in tensors_of(model).items()}
    found = convert(half).variables["params"]["trunk"]["conv1_1"]["kernel"]
    assert found.dtype == np.float32
    assert error(found, imported.variables["params"]["trunk"]["conv1_1"]["kernel"]) < 1e-2


@pytest.mark.parametrize("tensors", [{}, {"encoder.weight": np.zeros(3, np.float32)}])
def test_other_files_are_refused(tensors):
    with pytest.raises(ValueError, match="unknown kind"):
        convert(tensors)
