"""`python -m linknet_jax.data build`: raw Visual Genome to a folder in the layout of VG150."""

from __future__ import annotations

from etils import epath

from linknet_jax.data.convert import check_new
from linknet_jax.data.formats import visual_genome
from linknet_jax.data.formats.vg_dicts import read_vocabulary
from linknet_jax.data.raw.convert import convert_raw

REPORT = "report.json"


def build(folder: epath.Path, target: epath.Path, dicts: epath.Path | None = None) -> None:
    """Writes VG-SGG.h5, its dicts, image_data.json and report.json; prints what was left out.

    `dicts` is a VG-SGG-dicts.json with other classes than VG150's. ValueError for a target that
    is not empty and for raw files that are wrong.
    """
    check_new(target)
    vocabulary = read_vocabulary(dicts) if dicts else None
    collection, report = convert_raw(folder, vocabulary)
    visual_genome.write(collection, target)
    (target / REPORT).write_text(report.to_json())
    print("\n".join([*map(str, collection.findings), str(report), f"written to {target}"]))
