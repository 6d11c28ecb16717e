"""The rival: LinkNet in plain torch eager, one image at a time with exact shapes, as in Motifs.

Written from the paper's equations with the defaults of this package, and fed with the
parameters of our model, so that its numbers can be compared before its time is.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from flax.traverse_util import flatten_dict
from torch import Tensor
from torch.nn import functional

from benchmarks.roi_align import SIZE, STRIDE, onnx_roi_align, torch_roi_align

VGG_STAGES = (2, 2, 3, 3, 3)  # convolutions before each pooling; none follows the last stage
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Pool = Callable[[Tensor, Tensor], Tensor]


def to_torch(params: dict) -> dict[str, Tensor]:
    """Copies of Flax parameters in torch's layouts, by path: [out, in], OIHW, fc6 on CHW."""
    return {path: _to_torch(path, x) for path, x in flatten_dict(params, sep="/").items()}


def _to_torch(path: str, x: np.ndarray) -> Tensor:
    x = np.asarray(x)
    if path.endswith("fc6/kernel"):
        x = x.reshape(SIZE, SIZE, -1, x.shape[1]).transpose(3, 2, 0, 1).reshape(x.shape[1], -1)
    elif path.endswith("kernel"):
        x = x.transpose(3, 2, 0, 1) if x.ndim == 4 else x.T
    return torch.from_numpy(np.array(x, order="C"))


def naive_pool(features: Tensor, boxes: Tensor) -> Tensor:
    """RoIAlign by grid_sample, [r, c, 7, 7]."""
    return torch_roi_align(features, boxes).transpose(0, 1)


def compiled_pool() -> Pool:
    """RoIAlign by onnxruntime's C++ operator, in the place of torchvision's; forward only."""
    run = onnx_roi_align(STRIDE)

    def pool(features: Tensor, boxes: Tensor) -> Tensor:
        ids = np.zeros(len(boxes), np.int64)
        return torch.from_numpy(run(features.numpy(), boxes.numpy(), ids))

    return pool


def trunk(weights: dict[str, Tensor], image: Tensor) -> Tensor:
    """VGG16 to conv5_3: uint8 [1, 3, h, w] to [1, 512, h / 16, w / 16]."""
    x = (image / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    for stage, depth in enumerate(VGG_STAGES, start=1):
        x = x if stage == 1 else functional.max_pool2d(x, 2)
        for layer in range(1, depth + 1):
            kernel, bias = (weights[f"trunk/conv{stage}_{layer}/{k}"] for k in ("kernel", "bias"))
            x = functional.relu(functional.conv2d(x, kernel, bias, padding=1))
    return x


def all_pairs(n: int) -> Tensor:
    """Every ordered pair (subject, object), row-major."""
    return (~torch.eye(n, dtype=torch.bool)).nonzero()


class Head:
    """Everything behind the feature map of one image (eqs. 1-14), without dropout.

    `ordered` computes the union features of (i, j) and of (j, i) apart, as the Motifs family does;
    else once for both. `layout_relu=False` is our `layout_head=linear`.
    """

    def __init__(
        self,
        weights: dict[str, Tensor],
        pool: Pool = naive_pool,
        ordered: bool = True,
        layout_relu: bool = True,
    ):
        self._weights, self._pool = weights, pool
        self._ordered, self._layout_relu = ordered, layout_relu

    def __call__(
        self, features: Tensor, boxes: Tensor, pairs: Tensor, labels: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Logits of the objects, of the pairs and of the context; argmax labels where none given.

        `features` [1, c, h, w], `boxes` [n, 4] pixels, `pairs` [m, 2] rows (subject, object).
        """
        pooled = self._pool(features, boxes).flatten(1)
        detected = self._fully_connected("object_head/box_features", pooled)
        distribution = self._linear("object_head/box_head", detected).softmax(1).detach()
        f = self._fully_connected("object_head/object_features", pooled)
        context = features.mean((2, 3))
        l_k0 = distribution @ self._weights["K0"]
        o0 = torch.cat([f, l_k0, context.expand(len(f), -1)], 1)
        o3 = self._stack("object_stack", o0)
        o4 = self._linear("fc3", o3)
        labels = 1 + o4[:, 1:].argmax(1) if labels is None else labels
        e0 = torch.cat([self._weights["K1"][labels], o3], 1)
        e1 = self._linear("projection/fc", self._stack("edge_stack", e0))
        g2 = self.pairs(features, boxes, e1.unflatten(1, (2, -1)), pairs)
        return {"O4": o4, "G2": g2, "context": self._linear("context/classifier", context)}

    def pairs(self, features: Tensor, boxes: Tensor, e1: Tensor, pairs: Tensor) -> Tensor:
        """G2 [m, p] of the given pairs (eqs. 12-14); `e1` [n, (subject, object), d]."""
        subject, object_ = pairs.unbind(1)
        g0 = e1[subject, 0] * e1[object_, 1] * self._unions(features, boxes, pairs)
        layout = relative_layout(boxes[subject], boxes[object_])
        layout = self._linear("edge_head/layout/K2", layout)
        layout = functional.relu(layout) if self._layout_relu else layout
        return self._linear("edge_head/fc4", torch.cat([g0, layout], 1))

    def _unions(self, features, boxes, pairs):
        if self._ordered:
            return self._union_features(features, boxes, pairs)
        once, inverse = pairs.sort(1).values.unique(dim=0, return_inverse=True)
        return self._union_features(features, boxes, once)[inverse]

    def _union_features(self, features, boxes, pairs):
        a, b = boxes[pairs[:, 0]], boxes[pairs[:, 1]]
        low, high = torch.minimum(a, b)[:, :2], torch.maximum(a, b)[:, 2:]
        pooled = self._pool(features, torch.cat([low, high], 1)).flatten(1)
        return self._fully_connected("edge_head/union_features", pooled, final_relu=False)

    def _linear(self, name, x):
        return functional.linear(x, self._weights[f"{name}/kernel"], self._weights[f"{name}/bias"])

    def _fully_connected(self, name, x, final_relu=True):
        x = self._linear(f"{name}/fc7", functional.relu(self._linear(f"{name}/fc6", x)))
        return functional.relu(x) if final_relu else x

    def _stack(self, name, x):
        x = self._linear(f"{name}/fc1", self._relational_embedding(f"{name}/rem1", x))
        return self._relational_embedding(f"{name}/rem2", x)

    def _relational_embedding(self, name, x):
        w, u, h = (self._linear(f"{name}/{part}", x) for part in "WUH")
        return x + self._linear(f"{name}/fc", (w @ u.T).softmax(1) @ h)


def relative_layout(subject: Tensor, object_: Tensor) -> Tensor:
    """b_{o|s} of eq. 17, centres, inclusive sizes."""
    sizes = [box[:, 2:] - box[:, :2] + 1 for box in (subject, object_)]
    centres = [box[:, :2] + size / 2 for box, size in zip((subject, object_), sizes, strict=True)]
    return torch.cat([(centres[1] - centres[0]) / sizes[0], (sizes[1] / sizes[0]).log()], 1)
