"""Which boxes train the detector's two heads on one image: IoU assignment and draws of fixed size.

IoU is inclusive. Padding may hold anything, NaN too; draws depend on the key and the row alone.
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from linknet_jax.ops import boxes as box_ops
from linknet_jax.ops.box_coder import encode

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1
TIE = 1e-4  # relative: equal anchors a stride apart overlap equally, but not to float32's last bit


@flax.struct.dataclass
class Match:
    """The true box that each box overlaps most, the first of equals.

    Attributes:
      overlap: IoU with it; 0 in padding and where there is no true box.
      index: its row among the true boxes; meaningless where the overlap is 0.
    """

    overlap: Float[Array, "n"]
    index: Int[Array, "n"]


@flax.struct.dataclass
class AnchorSample:
    """Anchors drawn for the losses of the proposal network, positive ones first.

    Attributes:
      index: rows among the anchors, 0 in padding.
      labels: 1 object, 0 background and padding.
      deltas: offsets from the anchor to its true box, 0 where the label is 0.
      mask: which slots are filled.
    """

    index: Int[Array, "k"]
    labels: Int[Array, "k"]
    deltas: Float[Array, "k 4"]
    mask: Bool[Array, "k"]


@flax.struct.dataclass
class BoxSample:
    """Boxes drawn for the losses of the box head, objects first.

    Attributes:
      boxes: proposals and true boxes; a benign box in padding.
      labels: class of the object, 0 background and padding.
      deltas: offsets from the box to its true box, 0 where the label is 0.
      mask: which slots are filled.
    """

    boxes: Float[Array, "k 4"]
    labels: Int[Array, "k"]
    deltas: Float[Array, "k 4"]
    mask: Bool[Array, "k"]


def match(
    boxes: Float[Array, "n 4"],
    box_mask: Bool[Array, "n"],
    true_boxes: Float[Array, "g 4"],
    true_mask: Bool[Array, "g"],
) -> Match:
    """The best true box of every box."""
    return _best(overlaps(boxes, box_mask, true_boxes, true_mask))


def label_boxes(matched: Match, true_labels: Int[Array, "g"], foreground: float) -> Int[Array, "n"]:
    """Class of the best true box where the IoU is at least `foreground` (METHOD.md 1.1 and 3.3:
    0.5), else 0."""
    return jnp.where(matched.overlap >= foreground, true_labels[matched.index], 0)


def label_anchors(
    anchors: Float[Array, "a 4"],
    usable: Bool[Array, "a"],
    true_boxes: Float[Array, "g 4"],
    true_mask: Bool[Array, "g"],
    positive: float,
    negative: float,
) -> tuple[Int[Array, "a"], Int[Array, "a"]]:
    """(POSITIVE, NEGATIVE or IGNORED; best true box) of every anchor.

    Positive: IoU of at least `positive` (METHOD.md 3.2: 0.7), and each true box's best usable
    anchors, ties included, unless it overlaps none (pitfall 19). Negative: below `negative` (0.3)
    with every true box. Anchors that are not `usable` (outside the image) are ignored.
    """
    found = overlaps(anchors, usable, true_boxes, true_mask)
    matched = _best(found)
    best = (found > 0) & (found >= (1 - TIE) * found.max(axis=0))
    labels = jnp.where(matched.overlap < negative, NEGATIVE, IGNORED)
    labels = jnp.where((matched.overlap >= positive) | best.any(axis=1), POSITIVE, labels)
    return jnp.where(usable, labels, IGNORED), matched.index


def sample_anchors(
    anchors: Float[Array, "a 4"],
    usable: Bool[Array, "a"],
    true_boxes: Float[Array, "g 4"],
    true_mask: Bool[Array, "g"],
    key: Key[Array, ""],
    *,
    positive: float,
    negative: float,
    limit: int,
    positive_limit: int,
) -> AnchorSample:
    """Draws `limit` labelled anchors (METHOD.md 3.2: 256), `positive_limit` (128) of them positive
    at most and the rest negative, uniformly without replacement; thresholds as label_anchors."""
    labels, best = label_anchors(anchors, usable, true_boxes, true_mask, positive, negative)
    noise = _row_noise(labels.size, key)
    index, mask = _draw(labels == POSITIVE, labels == NEGATIVE, noise, limit, positive_limit)
    labels = jnp.where(mask & (labels[index] == POSITIVE), 1, 0)
    deltas = encode(anchors[index], true_boxes[best[index]])
    deltas = jnp.where(labels[:, None] > 0, deltas, 0)
    return AnchorSample(index=index, labels=labels, deltas=deltas, mask=mask)


def sample_boxes(
    proposals: Float[Array, "m 4"],
    proposal_mask: Bool[Array, "m"],
    true_boxes: Float[Array, "g 4"],
    true_labels: Int[Array, "g"],
    true_mask: Bool[Array, "g"],
    key: Key[Array, ""],
    *,
    foreground: float,
    background: tuple[float, float],
    limit: int,
    foreground_limit: int,
) -> BoxSample:
    """Draws `limit` boxes of one image (METHOD.md 3.3: 256) from proposals and true boxes.

    At most `foreground_limit` (64) are objects, with IoU of at least `foreground` (0.5); the rest
    is background, with low <= IoU < high of `background` (0, 0.5). Uniform without replacement,
    per image, not pooled over the batch (pitfall 24). No gradient reaches the proposals.
    """
    mask = jnp.concatenate([proposal_mask, true_mask])
    boxes = jnp.concatenate([jax.lax.stop_gradient(proposals), true_boxes])
    matched = match(boxes, mask, true_boxes, true_mask)
    labels = label_boxes(matched, true_labels, foreground)
    other = mask & (matched.overlap >= background[0]) & (matched.overlap < background[1])
    # Two streams, so that padding of the proposals does not move the true boxes' numbers.
    streams = enumerate((proposal_mask, true_mask))
    noise = [_row_noise(x.size, jax.random.fold_in(key, stream)) for stream, x in streams]
    index, drawn = _draw(labels > 0, other, jnp.concatenate(noise), limit, foreground_limit)
    labels = jnp.where(drawn, labels[index], 0)
    boxes = _benign(boxes[index], drawn)
    deltas = encode(boxes, true_boxes[matched.index[index]])
    deltas = jnp.where(labels[:, None] > 0, deltas, 0)
    return BoxSample(boxes=boxes, labels=labels, deltas=deltas, mask=drawn)


def _benign(boxes: Float[Array, "n 4"], mask: Bool[Array, "n"]) -> Float[Array, "n 4"]:
    return jnp.where(mask[:, None], boxes, jnp.asarray(box_ops.BENIGN_BOX))


def overlaps(
    boxes: Float[Array, "n 4"],
    box_mask: Bool[Array, "n"],
    true_boxes: Float[Array, "g 4"],
    true_mask: Bool[Array, "g"],
) -> Float[Array, "n g"]:
    """Inclusive IoU of every box with every true box, 0 in padding."""
    boxes, true_boxes = _benign(boxes, box_mask), _benign(true_boxes, true_mask)
    found = box_ops.iou(boxes, true_boxes, inclusive=True)
    return jnp.where(box_mask[:, None] & true_mask, found, 0)


def _best(overlaps: Float[Array, "n g"]) -> Match:
    return Match(overlap=overlaps.max(axis=1), index=overlaps.argmax(axis=1))


def _row_noise(rows: int, key: Key[Array, ""]) -> Float[Array, "n"]:
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(rows))
    return jax.vmap(jax.random.uniform)(keys)


def _draw(
    positive: Bool[Array, "n"],
    negative: Bool[Array, "n"],
    noise: Float[Array, "n"],
    limit: int,
    positive_limit: int,
) -> tuple[Int[Array, "k"], Bool[Array, "k"]]:
    """Rows with the lowest noise, positive ones up to their limit, then negative ones; mask."""
    negative = negative & ~positive
    order = jnp.argsort(jnp.where(positive, noise, jnp.where(negative, 1 + noise, 2)))
    positives = positive.sum()
    drawn = jnp.minimum(positives, positive_limit)
    slot = jnp.arange(limit)
    place = jnp.where(slot < drawn, slot, slot + positives - drawn)
    mask = slot < drawn + negative.sum()
    return jnp.where(mask, order[jnp.minimum(place, noise.size - 1)], 0), mask
