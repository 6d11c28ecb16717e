"""Records without the command `tfds`: `python -m linknet_jax.data convert ... --format tfds`."""

from __future__ import annotations

import tensorflow_datasets as tfds
from etils import epath

from linknet_jax.data.tfds.visual_genome_sgg.visual_genome_sgg_dataset_builder import Builder


def prepare(folder: epath.Path, target: epath.Path) -> epath.Path:
    """Writes the data set of a folder, photographs included, as array records below `target`.

    Returns what to give as `data.dir`. ValueError for data with errors and missing photographs.
    """
    builder = Builder(config="other", data_dir=target, file_format="array_record")
    source = tfds.download.DownloadConfig(manual_dir=folder)
    builder.download_and_prepare(download_config=source)
    return epath.Path(builder.data_path)
