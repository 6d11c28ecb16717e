"""Torch modules with the names and shapes of the files that are imported, written for the tests.

Names: torchvision's, and those of lib/object_detector.py, lib/rel_model.py, lib/get_union_boxes.py,
lib/sparse_targets.py and lib/rel_model_linknet.py of neural-motifs and linknet-pytorch.
"""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
nn = torch.nn

OBJECTS, PREDICATES, ANCHORS = 7, 5, 20
FC, EMBED, HIDDEN, POOLING, LAYOUT, RPN = 24, 6, 8, 10, 9, 16
PLAN = [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"]


def features():
    """VGG16's `features`, with the last pooling as number 30."""
    layers, inputs = [], 3
    for width in PLAN:
        if width == "M":
            layers.append(nn.MaxPool2d(2, 2))
            continue
        layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers)


def classifier(fc=FC, last=None, channels=512):
    """VGG16's `classifier`; without `last` Motifs' one, which ends with dropout."""
    layers = [nn.Linear(channels * 49, fc), nn.ReLU(), nn.Dropout(), nn.Linear(fc, fc), nn.ReLU()]
    return nn.Sequential(*layers, nn.Dropout(), *([nn.Linear(fc, last)] if last else []))


class VGG16(nn.Module):
    def __init__(self):
        super().__init__()
        self.features, self.classifier = features(), classifier(last=10)


class RPNHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(512, RPN, 3, padding=1), nn.ReLU6(), nn.Conv2d(RPN, 6 * ANCHORS, 1)
        )
        self.register_buffer("anchors", torch.zeros(3, 3, ANCHORS, 4))

    def forward(self, x):
        """[b, h, w, anchors, 6]: two logits, four deltas."""
        x = self.conv(x).permute(0, 2, 3, 1)
        return x.reshape(*x.shape[:3], ANCHORS, 6)


class Detector(nn.Module):
    """ObjectDetector of neural-motifs."""

    def __init__(self):
        super().__init__()
        self.features, self.roi_fmap = features()[:-1], classifier()
        self.score_fc, self.bbox_fc = nn.Linear(FC, OBJECTS), nn.Linear(FC, 4 * OBJECTS)
        self.rpn_head = RPNHead()


class UnionBoxes(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(2, 256, 7, stride=2, padding=3), nn.ReLU(), nn.BatchNorm2d(256),
            nn.MaxPool2d(3, 2, 1), nn.Conv2d(256, 512, 3, padding=1), nn.ReLU(),
            nn.BatchNorm2d(512),
        )  # fmt: skip


class FrequencyBias(nn.Module):
    def __init__(self):
        super().__init__()
        self.obj_baseline = nn.Embedding(OBJECTS**2, PREDICATES)


class Relations(nn.Module):
    """What RelModel and RelModelLinknet share; `pooling` FC leaves fc7 in VGG's classifier."""

    def __init__(self, pooling):
        super().__init__()
        self.detector, self.union_boxes = Detector(), UnionBoxes()
        full = classifier()
        parts = [full[:4]] if pooling == FC else [full[:3], nn.Linear(FC, pooling)]
        self.roi_fmap, self.roi_fmap_obj = nn.Sequential(nn.Flatten(), *parts), classifier()
        self.freq_bias = FrequencyBias()


class MotifNet(Relations):
    def __init__(self):
        super().__init__(FC)
        self.context = nn.Module()
        self.context.obj_embed = nn.Embedding(OBJECTS, EMBED)
        self.context.obj_ctx_rnn = nn.Linear(4, 4)
        self.post_lstm = nn.Linear(HIDDEN, 2 * FC)
        self.rel_compress = nn.Linear(FC, PREDICATES)


class RelationalEmbedding(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.W, self.U, self.H = (nn.Linear(inputs, inputs // 2) for _ in range(3))
        self.fc0, self.fc1 = nn.Linear(inputs // 2, inputs), nn.Linear(inputs, outputs)

    def forward(self, x):
        r = torch.softmax(self.W(x) @ self.U(x).T, 1)
        y = x + self.fc0(r @ self.H(x))
        return y, self.fc1(y), r


class Context(nn.Module):
    def __init__(self, pooling):
        super().__init__()
        self.obj_embed, self.obj_embed2 = (nn.Embedding(OBJECTS, EMBED) for _ in range(2))
        self.RE1 = RelationalEmbedding(FC + EMBED + 512, HIDDEN)
        self.RE2 = RelationalEmbedding(HIDDEN, OBJECTS)
        self.RE3 = RelationalEmbedding(EMBED + HIDDEN, HIDDEN)
        self.RE4 = RelationalEmbedding(HIDDEN, 2 * pooling)


class LinkNet(Relations):
    """RelModelLinknet in evaluation on the boxes of one image."""

    def __init__(self, pooling=POOLING):
        super().__init__(pooling)
        self.context, self.GCE = Context(pooling), nn.Module()
        self.GCE.multi_score_fc = nn.Linear(512, OBJECTS)
        self.pos_embed = nn.Sequential(
            nn.BatchNorm1d(4), nn.Linear(4, LAYOUT), nn.ReLU(), nn.Dropout(0.1)
        )
        self.rel_compress = nn.Linear(pooling + LAYOUT, PREDICATES)

    def forward(self, image, pooled, unions, rectangles, layout, pairs):
        """Outputs by the names of LinkNetOutput; regions are [n, 512, 7, 7], `pairs` [p, 2]."""
        context, subject, object_ = self.context, *pairs.T
        c = self.detector.features(image).mean((2, 3))
        logits = self.detector.score_fc(self.detector.roi_fmap(pooled.flatten(1)))
        soft = torch.softmax(logits, 1) @ context.obj_embed.weight
        f = self.roi_fmap_obj(pooled.flatten(1))
        _, o2, r1 = context.RE1(torch.cat((f, soft, c.expand(len(f), -1)), 1))
        o3, o4, r2 = context.RE2(o2)
        labels = 1 + o4[:, 1:].argmax(1)
        _, x, _ = context.RE3(torch.cat((context.obj_embed2(labels), o3), 1))
        e1 = context.RE4(x)[1].reshape(len(f), 2, -1)
        g0 = e1[subject, 0] * e1[object_, 1]
        g0 = g0 * self.roi_fmap(unions + self.union_boxes.conv(rectangles))
        g2 = self.rel_compress(torch.cat((g0, self.pos_embed(layout)), 1))
        g2 = g2 + self.freq_bias.obj_baseline(labels[subject] * OBJECTS + labels[object_])
        multi = self.GCE.multi_score_fc(c)
        outputs = {"box_logits": logits, "context": c, "context_logits": multi[:, 1:], "G2": g2}
        return outputs | {"R1": r1, "R2": r2, "O3": o3, "O4": o4, "labels": labels}


class TorchvisionHeads(nn.Module):
    """`rpn.head` and `roi_heads` of Faster R-CNN, in both numberings of the convolution."""

    def __init__(self, old):
        super().__init__()
        conv = nn.Conv2d(256, 256, 3, padding=1)
        self.rpn, self.roi_heads = nn.Module(), nn.Module()
        self.rpn.head = nn.Module()
        self.rpn.head.conv = conv if old else nn.Sequential(nn.Sequential(conv, nn.ReLU()))
        self.rpn.head.cls_logits, self.rpn.head.bbox_pred = (
            nn.Conv2d(256, n, 1) for n in (3, 12)
        )  # fmt: skip
        self.roi_heads.box_head, self.roi_heads.box_predictor = nn.Module(), nn.Module()
        self.roi_heads.box_head.fc6 = nn.Linear(256 * 49, FC)
        self.roi_heads.box_head.fc7 = nn.Linear(FC, FC)
        self.roi_heads.box_predictor.cls_score = nn.Linear(FC, OBJECTS)
        self.roi_heads.box_predictor.bbox_pred = nn.Linear(FC, 4 * OBJECTS)


def randomised(model, seed=0):
    """The model in evaluation; kernels keep the variance, nothing is left at zero or one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, x in model.state_dict().items():
            if x.ndim > 1:
                x.normal_(0, (2 / x[0].numel()) ** 0.5, generator=generator)
            elif x.ndim:
                low, high = (-0.3, 0.3) if name.endswith(("bias", "mean")) else (0.5, 1.5)
                x.uniform_(low, high, generator=generator)
    return model.eval()


def tensors_of(model):
    """Its state dict in numpy."""
    return {name: x.numpy() for name, x in model.state_dict().items()}


def error(found, expected):
    """Largest deviation against the largest value."""
    expected = np.asarray(expected)
    return np.abs(np.asarray(found) - expected).max() / np.abs(expected).max()
