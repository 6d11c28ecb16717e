"""Slow loops written from the definitions."""

from __future__ import annotations

import numpy as np
from reference_metrics import box_iou


def ranked_triplets(label_scores, probabilities, pair_mask) -> tuple[list, list]:
    """Constrained and free (subject, object, predicate) lists; ties by pair, then predicate."""
    label_scores, probabilities = np.float32(label_scores), np.float32(probabilities)
    best, free = [], []
    for i in range(len(label_scores)):
        for j in range(len(label_scores)):
            if not pair_mask[i, j]:
                continue
            candidates = [
                (-(label_scores[i] * label_scores[j] * probabilities[i, j, p]), i, j, p)
                for p in range(1, probabilities.shape[-1])
            ]
            best.append(min(candidates))
            free.extend(candidates)
    return [c[1:] for c in sorted(best)], [c[1:] for c in sorted(free)[:100]]


def bilinear(image, y, x) -> np.ndarray:
    """The map at a point of its own grid, between the four nearest cells."""
    height, width, _ = image.shape
    top, left = min(int(np.floor(y)), height - 1), min(int(np.floor(x)), width - 1)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = y - top, x - left
    upper = image[top, left] * (1 - dx) + image[top, right] * dx
    lower = image[bottom, left] * (1 - dx) + image[bottom, right] * dx
    return upper * (1 - dy) + lower * dy


def onnx_sample(image, y, x) -> np.ndarray:
    """A sample of RoIAlign: clamped up to one cell outside the map, 0 beyond."""
    height, width, channels = image.shape
    if y < -1 or y > height or x < -1 or x > width:
        return np.zeros(channels)
    return bilinear(image, np.clip(y, 0, height - 1), np.clip(x, 0, width - 1))


def roi_align_aligned(features, boxes, image_ids, stride, size=7, ratio=2) -> np.ndarray:
    """RoIAlign with half-pixel centres and the mean of ratio x ratio samples a bin, float64."""
    features, boxes = np.asarray(features, np.float64), np.asarray(boxes, np.float64) / stride
    pooled = np.zeros((len(boxes), size, size, features.shape[-1]))
    for r, (x1, y1, x2, y2) in enumerate(boxes):
        bin_height, bin_width = (y2 - y1) / size, (x2 - x1) / size
        for i, j in np.ndindex(size, size):
            for a, b in np.ndindex(ratio, ratio):
                y = y1 - 0.5 + (i + (a + 0.5) / ratio) * bin_height
                x = x1 - 0.5 + (j + (b + 0.5) / ratio) * bin_width
                pooled[r, i, j] += onnx_sample(features[image_ids[r]], y, x) / ratio**2
    return pooled


def roi_align_motifs(features, boxes, image_ids, stride, size=7) -> np.ndarray:
    """One sample a bin on the corner grid x1 + k (x2 - x1) / (size - 1), 0 outside the map."""
    features, boxes = np.asarray(features, np.float64), np.asarray(boxes, np.float64)
    _, height, width, channels = features.shape
    pooled = np.zeros((len(boxes), size, size, channels))
    for r, (x1, y1, x2, y2) in enumerate(boxes):
        for i, j in np.ndindex(size, size):
            y = (y1 + i * (y2 - y1) / (size - 1)) / stride
            x = (x1 + j * (x2 - x1) / (size - 1)) / stride
            if 0 <= y <= height - 1 and 0 <= x <= width - 1:
                pooled[r, i, j] = bilinear(features[image_ids[r]], y, x)
    return pooled


def pair_counts(annotations, num_objects, num_predicates, overlap) -> tuple:
    """How often classes are related by a predicate, and how often they are candidates at all."""
    foreground = np.zeros((num_objects, num_objects, num_predicates))
    background = np.zeros((num_objects, num_objects))
    for annotation in annotations:
        boxes, labels = annotation.boxes, annotation.labels
        for s, o, predicate in annotation.relations:
            foreground[labels[s], labels[o], predicate] += 1
        pairs = [(s, o) for s in range(len(boxes)) for o in range(len(boxes)) if s != o]
        touching = [(s, o) for s, o in pairs if box_iou(boxes[s], boxes[o], True) > 0]
        for s, o in touching if overlap and touching else pairs:
            background[labels[s], labels[o]] += 1
    return foreground, background


def layout_of_pair(subject, object_) -> list[float]:
    """b_{o|s} in the centre form with inclusive sizes."""
    (ws, hs), (wo, ho) = ((b[2] - b[0] + 1, b[3] - b[1] + 1) for b in (subject, object_))
    dx = (object_[0] + wo / 2) - (subject[0] + ws / 2)
    dy = (object_[1] + ho / 2) - (subject[1] + hs / 2)
    return [dx / ws, dy / hs, np.log(wo / ws), np.log(ho / hs)]


def frequency_ranking(labels, probabilities) -> list[tuple[int, int, int]]:
    """FREQ on ground-truth labels: the likeliest predicate of every pair, likeliest pair first."""
    scored = []
    for s in range(len(labels)):
        for o in range(len(labels)):
            if s != o:
                row = probabilities[labels[s], labels[o]]
                scored.append((-row.max(), (s, o, int(row.argmax()))))
    return [triplet for _, triplet in sorted(scored, key=lambda x: x[0])]


def mean_recall_of_rankings(rankings, annotations, k) -> float:
    """R@K in PredCls, by exact match of rows; the mean over images."""
    found = [
        np.mean([tuple(map(int, row)) in ranking[:k] for row in annotation.relations])
        for ranking, annotation in zip(rankings, annotations, strict=True)
    ]
    return float(np.mean(found))


def relative_layout(subject, object_, corner: bool = False) -> list[float]:
    """Eq. 17 with inclusive sizes, from the centres or from the top left corners."""
    centre = layout_of_pair(subject, object_)
    if not corner:
        return centre
    width, height = subject[2] - subject[0] + 1, subject[3] - subject[1] + 1
    return [(object_[0] - subject[0]) / width, (object_[1] - subject[1]) / height, *centre[2:]]


def union_box(a, b) -> list[float]:
    """The smallest box around two."""
    return [min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])]


def pair_rectangles(subject, object_, cells: int = 27) -> np.ndarray:
    """Share of every cell of the union box that either box covers, minus a half."""
    frame, masks = union_box(subject, object_), np.zeros((cells, cells, 2))
    width, height = (max(frame[2 + k] - frame[k], 1e-3) / cells for k in (0, 1))
    for y, x in np.ndindex(cells, cells):
        left, top = frame[0] + x * width, frame[1] + y * height
        for channel, box in enumerate((subject, object_)):
            across = min(box[2], left + width) - max(box[0], left)
            down = min(box[3], top + height) - max(box[1], top)
            masks[y, x, channel] = max(across, 0) * max(down, 0) / (width * height)
    return masks - 0.5


def softmax(logits) -> np.ndarray:
    """Over the last axis, float64."""
    powers = np.exp(np.asarray(logits, np.float64) - np.max(logits, axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def linear(x, params) -> np.ndarray:
    """x W + b, float64."""
    return x @ np.asarray(params["kernel"], np.float64) + np.asarray(params["bias"], np.float64)


def relational_embedding(x, params, row_op="softmax", similarity="dot", scale=False):
    """(X + fc(R X H), R) of eqs. 1 and 2, object by object."""
    w, u, h = (linear(x, params[name]) for name in ("W", "U", "H"))
    scores = np.zeros((len(x), len(x)))
    for i, j in np.ndindex(*scores.shape):
        distance = np.sum((w[i] - u[j]) ** 2)
        kinds = {"dot": w[i] @ u[j], "euclidean": -distance, "euclidean_root": -(distance**0.5)}
        scores[i, j] = kinds[similarity] / (w.shape[1] ** 0.5 if scale else 1)
    r = 1 / (1 + np.exp(-scores)) if row_op == "sigmoid" else softmax_rows(scores)
    y = [
        x[i] + linear(sum(r[i, j] * h[j] for j in range(len(x))), params["fc"])
        for i in range(len(x))
    ]
    return np.array(y).reshape(x.shape), r


def softmax_rows(scores) -> np.ndarray:
    """Softmax of every row; no rows give no rows."""
    return np.array([softmax(row) for row in scores]).reshape(scores.shape)


def relational_stack(x, params, num_rem=2, use_rem=True, **options):
    """REM, fc, then further REMs with an fc between two of them; the matrices R beside it."""
    matrices = []
    for index in range(1, num_rem + 1):
        if use_rem:
            x, r = relational_embedding(x, params[f"rem{index}"], **options)
            matrices.append(r)
        if index == 1 or index < num_rem:
            x = linear(x, params[f"fc{index}"])
    return x, matrices


def convolution(image, params, stride: int = 1, padding=None) -> np.ndarray:
    """Cross-correlation of [h, w, c], zero padded (low, high); None is TensorFlow's SAME."""
    kernel = np.asarray(params["kernel"], np.float64)
    size, side = kernel.shape[0], image.shape[0]
    if padding is None:
        total = max((-(-side // stride) - 1) * stride + size - side, 0)
        padding = (total // 2, total - total // 2)
    wide = np.pad(np.asarray(image, np.float64), (padding, padding, (0, 0)))
    outputs = (side + sum(padding) - size) // stride + 1
    result = np.zeros((outputs, outputs, kernel.shape[-1]))
    for y, x in np.ndindex(outputs, outputs):
        patch = wide[y * stride : y * stride + size, x * stride : x * stride + size]
        result[y, x] = np.einsum("ijc,ijcf->f", patch, kernel)
    return result + np.asarray(params["bias"], np.float64)


def small_trunk(image, params) -> np.ndarray:
    """The small trunk on one raw RGB image; a product per patch is a strided convolution."""
    x = (image / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    for name, side in (("patch1", 4), ("patch2", 2)):
        dense = params[name]
        kernel = np.asarray(dense["kernel"]).reshape(side, side, x.shape[-1], -1)
        x = convolution(x, {"kernel": kernel, "bias": dense["bias"]}, side, (0, 0))
        x = np.maximum(x, 0)
    for name in ("conv1", "conv2"):
        x = np.maximum(convolution(x, params[name]), 0)
    return x


def normalised(x, params, statistics) -> np.ndarray:
    """Batch normalisation with running statistics."""
    mean, var, scale, bias = (
        np.asarray(value, np.float64)
        for value in (statistics["mean"], statistics["var"], params["scale"], params["bias"])
    )
    return (x - mean) / np.sqrt(var + 1e-5) * scale + bias


def union_mask(subject, object_, params, statistics) -> np.ndarray:
    """The drawn rectangles of one ordered pair, convolved to 7 x 7."""
    x = np.maximum(convolution(pair_rectangles(subject, object_), params["conv1"], 2, (3, 3)), 0)
    x = np.pad(
        normalised(x, params["norm1"], statistics["norm1"]),
        ((1, 1), (1, 1), (0, 0)),
        constant_values=-np.inf,
    )
    rows = range(0, 13, 2)
    x = np.array([[x[i : i + 3, j : j + 3].max((0, 1)) for j in rows] for i in rows])
    x = np.maximum(convolution(x, params["conv2"], 1, (1, 1)), 0)
    return normalised(x, params["norm2"], statistics["norm2"])


def fully_connected(pooled, params, final_relu: bool) -> np.ndarray:
    """fc6, ReLU, fc7 and perhaps ReLU on one pooled region."""
    x = linear(np.maximum(linear(pooled.ravel(), params["fc6"]), 0), params["fc7"])
    return np.maximum(x, 0) if final_relu else x


def average_pool(features, size=None) -> np.ndarray:
    """Mean over the map of one image, or over the cells that `size` (height, width) touches."""
    height, width = features.shape[:2] if size is None else size
    cells = [features[y, x] for y, x in np.ndindex(*features.shape[:2]) if y < height and x < width]
    return np.mean(cells, axis=0, dtype=np.float64)


def link_net(variables, config, image, size, boxes, labels=None, distribution=None) -> dict:
    """LinkNet with the small trunk on the n boxes of one image, pair by pair (eqs. 1-14)."""
    params, n = variables["params"], len(boxes)
    features = small_trunk(image, params["trunk"])
    size, result = np.asarray(size) / 8, {}
    options = {
        "num_rem": config["num_rem"],
        "use_rem": config["use_rem"],
        "row_op": config["row_op"],
        "similarity": config["similarity"],
        "scale": config["attention_scale"] == "rsqrt_dim",
    }
    f, result["box_logits"] = objects_of(params["object_head"], config, features, boxes)
    distribution = softmax(result["box_logits"]) if distribution is None else distribution
    o0 = [f, distribution @ np.asarray(params["K0"], np.float64)]
    if config["use_gcem"]:
        source = features
        if config["context_trunk"]:
            source = np.maximum(convolution(features, params["context"]["convolution"]), 0)
        result["context"] = average_pool(
            source, size if config["context_pool"] == "valid" else None
        )
        result["context_logits"] = linear(result["context"], params["context"]["classifier"])
        o0.append(np.tile(result["context"], (n, 1)))
    o3, matrices = relational_stack(np.concatenate(o0, axis=1), params["object_stack"], **options)
    result["R1"], result["R2"] = [*matrices, None, None][:2]
    result["O3"], result["O4"] = o3, linear(o3, params["fc3"])
    if labels is None:
        labels = [1 + int(np.argmax(row[1:])) for row in result["O4"]]
    result["labels"], k1 = np.array(labels, int), np.asarray(params["K1"], np.float64)
    part = softmax(result["O4"]) @ k1 if config["e0_label"] == "softmax" else k1[result["labels"]]
    e0 = result["E0"] = np.concatenate([part, o3], axis=1) if config["e0_context"] else part
    e1, _ = relational_stack(e0, params["edge_stack"], **options)
    e1 = linear(e1, params["projection"]["fc"])
    result["G2"] = np.zeros((n, n, params["edge_head"]["fc4"]["bias"].shape[0]))
    for s in range(n):
        for o in range(n):
            if s != o:
                rows = e1[s, : config["pooling_dim"]], e1[o, config["pooling_dim"] :]
                result["G2"][s, o] = predicate_logits(
                    variables, config, features, boxes[s], boxes[o], rows, result["labels"][[s, o]]
                )
    return result


def pooled_region(features, box, config) -> np.ndarray:
    """RoIAlign of one box."""
    align = roi_align_aligned if config["roi_align"] == "aligned" else roi_align_motifs
    return align(features[None], [box], [0], 8, config["roi_size"])[0]


def objects_of(params, config, features, boxes):
    """(f_i, detector logits) of every box."""
    pooled = [pooled_region(features, box, config) for box in boxes]
    f = [fully_connected(x, params["object_features"], True) for x in pooled]
    detected = [fully_connected(x, params["box_features"], True) for x in pooled]
    shape = (len(boxes), config["fc_dim"])
    f, detected = (np.array(x).reshape(shape) for x in (f, detected))
    return f, linear(detected, params["box_head"])


def predicate_logits(variables, config, features, subject, object_, rows, labels) -> np.ndarray:
    """Eqs. 12-14 for one ordered pair; `rows` are its subject's and object's halves of E1."""
    params = variables["params"]["edge_head"]
    pooled = pooled_region(features, union_box(subject, object_), config)
    if config["union_mask"]:
        statistics = variables["batch_stats"]["edge_head"]["union_mask"]
        pooled = pooled + union_mask(subject, object_, params["union_mask"], statistics)
    g = rows[0] * rows[1] * fully_connected(pooled, params["union_features"], False)
    if config["use_glem"]:
        layout = np.array(relative_layout(subject, object_, config["layout_box"] == "corner"))
        if config["layout_head"] == "batch_norm":
            norm = variables["params"]["layout_norm"], variables["batch_stats"]["layout_norm"]
            layout = normalised(layout, *norm)
        else:
            constants = variables["constants"]
            layout = (layout - constants["layout_mean"]) / constants["layout_std"]
        code = linear(layout, params["layout"]["K2"])
        g = np.concatenate([g, code if config["layout_head"] == "linear" else np.maximum(code, 0)])
    logits = linear(g, params["fc4"])
    return logits + params["frequency_bias"][tuple(labels)] if config["frequency_bias"] else logits


def softmax_loss(logits, labels, mask) -> float:
    """Sum of -log softmax(logits)[label] over the valid entries."""
    logits, mask = np.asarray(logits, np.float64), np.asarray(mask)
    return sum(
        -np.log(softmax(logits[index])[labels[index]])
        for index in np.ndindex(mask.shape)
        if mask[index]
    )


def sigmoid_loss(logits, present) -> float:
    """Sum of both terms of the binary cross-entropies of one image."""
    total = 0.0
    for logit, wanted in zip(np.asarray(logits, np.float64), present, strict=True):
        probability = 1 / (1 + np.exp(-logit))
        total -= np.log(probability) if wanted else np.log(1 - probability)
    return total


def box_geometry(box, size) -> list[float]:
    """Corners, log width and height in parts of the image of (height, width); log aspect ratio."""
    height, width = size
    w, h = box[2] - box[0] + 1, box[3] - box[1] + 1
    corners = [box[0] / width, box[1] / height, box[2] / width, box[3] / height]
    return [*corners, np.log(w / width), np.log(h / height), np.log(w / h)]


def pair_geometry(subject, object_, size) -> list[float]:
    """Both boxes, the layout either way, shared parts of the areas, differences of the edges."""
    features = [*box_geometry(subject, size), *box_geometry(object_, size)]
    for a, b in ((subject, object_), (object_, subject)):
        dx, dy, dw, dh = layout_of_pair(a, b)
        features += [np.arcsinh(dx), np.arcsinh(dy), dw, dh]
    areas = [(b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (subject, object_)]
    both = box_iou(subject, object_, True)
    shared = both * sum(areas) / (1 + both)
    around = union_box(subject, object_)
    w, h = around[2] - around[0] + 1, around[3] - around[1] + 1
    edges = [(b - a) / side for a, b, side in zip(subject, object_, (w, h, w, h), strict=True)]
    return [*features, shared / areas[0], shared / areas[1], both, *edges]
