"""Where the photographs of a data set lie: by file name in one folder or several."""

from __future__ import annotations

from collections.abc import Sequence

from etils import epath

from linknet_jax.types import Annotation

USUAL = ("images", "VG_100K", "VG_100K_2", "JPEGImages", "")


def photograph_name(annotation: Annotation) -> str:
    """The file of an image, relative to a folder of photographs."""
    return annotation.file_name or f"{annotation.image_id}.jpg"


class Photographs:
    """Finds files by name in folders that are listed once, which is quick on a bucket too."""

    def __init__(self, folders: Sequence[epath.Path]):
        self.folders = tuple(folders)
        self._names: dict[epath.Path, frozenset[str]] = {}

    def find(self, name: str) -> epath.Path | None:
        """The file in the first folder that has it, else None; never outside the folders."""
        return next(iter(self.places(name)), None)

    def places(self, name: str) -> list[epath.Path]:
        """All files of that name, in the order of the folders."""
        parent, _, base = name.rpartition("/")
        if name.startswith("/") or ".." in name.split("/"):
            return []
        return [x / name for x in self.folders if base in self._listing(x / parent)]

    def _listing(self, folder: epath.Path) -> frozenset[str]:
        if folder not in self._names:
            files = folder.iterdir() if folder.is_dir() else ()
            self._names[folder] = frozenset(p.name for p in files)
        return self._names[folder]

    def __str__(self) -> str:
        return ", ".join(map(str, self.folders)) or "no folder"


def photographs_of(folder: epath.Path, setting: str = "") -> Photographs:
    """The folders that `setting` names, joined by commas, or the usual ones beside the files.

    ValueError for a named folder that does not exist.
    """
    if not setting:
        return Photographs([p for p in (folder / name for name in USUAL) if p.is_dir()])
    folders = [epath.Path(part.strip()) for part in setting.split(",") if part.strip()]
    missing = [str(p) for p in folders if not p.is_dir()]
    if missing:
        raise ValueError(
            f"data.images={setting!r}: no folder {', '.join(missing)}; name the folders of the "
            "photographs, joined by commas"
        )
    return Photographs(folders)
