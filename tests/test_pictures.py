"""Which images are shown, and that they are the ones asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linknet_jax import data, pictures
from linknet_jax.config import get_default
from linknet_jax.metrics.baselines import ceiling_prediction


@pytest.fixture(scope="module")
def dataset():
    config = get_default("sgcls")
    config.update_from_flattened_dict({"data.test_images": 7, "data.image_size": 32})
    return data.build(config, "test")


def test_extremes_have_the_most_relations_of_equals():
    seen = [
        (0.5, 9, 0),
        (1.0, 2, 1),
        (0.0, 1, 2),
        (1.0, 5, 3),
        (0.0, 4, 4),
        (0.0, 4, 5),
        (1.0, 1, 6),
    ]
    found = {k: [index for *_, index in rows] for k, rows in pictures.extremes(seen).items()}
    assert found == {"best": [3, 1, 6, 0], "worst": [4, 5, 2, 0]}
    assert pictures.extremes([]) == {"best": [], "worst": []}


@pytest.mark.parametrize("indices", [[5, 0, 6], [3], [2, 1, 4, 0], []])
def test_batches_of_chosen_images(dataset, indices):
    batches = list(dataset.batches_of(indices, 2))
    assert len(batches) == -(-len(indices) // 2)
    shown = [int(k) for b in batches for k in b.image_index[b.example_mask]]
    assert shown == indices
    for batch in batches:
        for row in np.flatnonzero(batch.example_mask):
            truth = dataset.annotations[int(batch.image_index[row])]
            np.testing.assert_array_equal(batch.labels[row][batch.box_mask[row]], truth.labels)


def test_a_picture_for_every_image_of_a_small_split(dataset):
    config = get_default("sgcls")
    config.eval.batch_size = 4

    def predict(_, batch):
        """The same graph for all: object 0 and object 1, predicate 1."""
        labels = np.ones(batch.labels.shape[1], np.int32)
        one = ceiling_prediction(np.array([[0, 1, 1]]), labels)
        return jax.tree.map(lambda x: jnp.stack([x] * len(batch.labels)), one)

    drawn = list(pictures.draw(predict, {}, dataset, config, range(7)))
    assert len(drawn) == 7
    sheet = pictures.stack(drawn[:3])
    assert sheet.height == sum(x.height for x in drawn[:3])
    assert sheet.width == max(x.width for x in drawn[:3])
    assert len({picture.tobytes() for picture in drawn}) == 7
