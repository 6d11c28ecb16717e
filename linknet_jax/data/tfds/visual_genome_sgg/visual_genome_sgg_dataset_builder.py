"""Scene graphs and photographs as sharded records.

    tfds build linknet_jax/data/tfds/visual_genome_sgg --config=vg150 --file_format=array_record \
        --manual_dir=FOLDER --data_dir=FOLDER

The command `tfds` does not start without the packages apache_beam and mlcroissant, which neither
this builder nor reading its records needs. The records keep the order and the splits of the h5, and
the bytes of every photograph.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from linknet_jax.data.collection import AnnotationTable, raise_errors
from linknet_jax.data.files import load
from linknet_jax.data.photographs import Photographs, photograph_name
from linknet_jax.types import Annotation

VG150 = (151, 51)  # classes, the background included


@dataclasses.dataclass(eq=False)
class Config(tfds.core.BuilderConfig):
    """A variant of the layout.

    Attributes:
      sizes: (C_obj, C_rel) that the files must have; None takes any.
    """

    sizes: tuple[int, int] | None = None


class Builder(tfds.core.GeneratorBasedBuilder):
    """Every image of the files that has a box. The metadata holds the class names in order."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar[list[Config]] = [
        Config(name="vg150", sizes=VG150, description="Visual Genome, 150 objects, 50 predicates"),
        Config(name="other", description="any other data set, in any layout"),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    manual_dir holds VG-SGG.h5, VG-SGG-dicts.json, image_data.json (other: the files of any layout)
    and the photographs, in images/, in VG_100K/ and VG_100K_2/, or beside the files.
    """

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(encoding_format="jpeg", doc="the file as it was"),
            "image_id": tfds.features.Text(doc='as JSON: a number, or a name in ""'),
            "file_name": tfds.features.Text(doc='empty for "{image_id}.jpg"'),
            "width": np.int32,
            "height": np.int32,
            "boxes": tfds.features.Tensor(
                shape=(None, 4),
                dtype=np.float64,
                encoding="bytes",  # a tf.train.Example has floats of 32 bits only
                doc="x1 y1 x2 y2, half-open, pixels of the photograph",
            ),
            "labels": tfds.features.Tensor(shape=(None,), dtype=np.int32),
            "relations": tfds.features.Tensor(
                shape=(None, 3), dtype=np.int32, doc="subject and object (rows of boxes), predicate"
            ),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"Scene graphs: {self.builder_config.description}.",
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,  # the validation split is a matter of order
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        folder = epath.Path(dl_manager.manual_dir)
        collection, photographs = load("custom", str(folder))
        raise_errors(collection.findings)
        vocabulary, sizes = collection.vocabulary, self.builder_config.sizes
        if sizes not in (None, vocabulary.sizes):
            objects, predicates = (size - 1 for size in vocabulary.sizes)
            raise ValueError(
                f"{folder}: {objects} objects and {predicates} predicates, but vg150 has 150 and "
                "50; build it with --config=other"
            )
        self.info.metadata["objects"] = list(vocabulary.objects)
        self.info.metadata["predicates"] = list(vocabulary.predicates)
        self.info.metadata["relative"] = collection.relative
        splits = {k: t.select(np.flatnonzero(t.box_counts)) for k, t in collection.splits.items()}
        _check_present(splits, photographs)
        return {k: self._generate_examples(t, photographs) for k, t in splits.items() if len(t)}

    def _generate_examples(
        self, table: AnnotationTable, photographs: Photographs
    ) -> Iterator[tuple[int, dict]]:
        for index, annotation in enumerate(table):
            yield index, _example(annotation, photographs)


def _check_present(splits: dict[str, AnnotationTable], photographs: Photographs) -> None:
    names = [photograph_name(annotation) for table in splits.values() for annotation in table]
    missing = [name for name in names if photographs.find(name) is None]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(names)} photographs are missing, the first is {missing[0]!r}; "
            f"searched in {photographs}: copy them into manual_dir/images"
        )


def _example(annotation: Annotation, photographs: Photographs) -> dict:
    return {
        "image": photographs.find(photograph_name(annotation)),
        "image_id": json.dumps(annotation.image_id, ensure_ascii=False),
        "file_name": annotation.file_name,
        "width": annotation.width,
        "height": annotation.height,
        "boxes": annotation.boxes,
        "labels": annotation.labels,
        "relations": annotation.relations,
    }
