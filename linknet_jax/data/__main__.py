"""Data sets on disk: check, stats, convert, build and download.

python -m linknet_jax.data check FOLDER            what is wrong with it, and where
python -m linknet_jax.data stats FOLDER --out DIR  counts and plots
python -m linknet_jax.data convert FOLDER TARGET --format coco
python -m linknet_jax.data build RAW TARGET        raw Visual Genome to the layout of VG150
python -m linknet_jax.data download NAME ...       public files (--list shows them)
"""

from __future__ import annotations

import argparse
import pathlib
import sys

from etils import epath

from linknet_jax.command import exit_status
from linknet_jax.data import check, convert, files, stats
from linknet_jax.data.public import download, locations
from linknet_jax.data.raw import build


def main(argv: list[str] | None = None) -> int:
    """Runs one verb; returns its exit status."""
    arguments = _parser().parse_args(argv)
    return exit_status(lambda: arguments.run(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m linknet_jax.data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for add in (_add_check, _add_stats, _add_convert, _add_build, _add_download):
        add(verbs)
    return parser


def _add_check(verbs: argparse._SubParsersAction) -> None:
    parser = _on_folder(verbs, "check", "exit status 0: nothing, 1: warnings, 2: errors")
    parser.add_argument("--no-images", action="store_true", help="do not look at the photographs")
    parser.add_argument("--all", action="store_true", help="list every finding of a kind")
    parser.set_defaults(
        run=lambda a: check.check(a.folder, a.images, pixels=not a.no_images, every=a.all)
    )


def _add_stats(verbs: argparse._SubParsersAction) -> None:
    parser = _on_folder(verbs, "stats", "counts of classes, boxes and relations")
    parser.add_argument("--out", type=epath.Path, help="folder for stats.json and plots")
    parser.add_argument("--val-images", type=int, default=0, help="as data.val_images")
    parser.set_defaults(run=lambda a: stats.stats(a.folder, a.out, a.images, a.val_images))


def _add_convert(verbs: argparse._SubParsersAction) -> None:
    parser = _on_folder(verbs, "convert", "from any layout to another")
    parser.add_argument("target", type=epath.Path, help="a new folder")
    parser.add_argument("--format", required=True, choices=(*files.FORMATS, convert.RECORDS))
    parser.set_defaults(run=lambda a: convert.convert(a.folder, a.target, a.format, a.images))


def _add_build(verbs: argparse._SubParsersAction) -> None:
    text = "objects.json, relationships.json and image_data.json to VG-SGG.h5"
    parser = verbs.add_parser("build", help=text, description=text)
    parser.add_argument("folder", type=epath.Path, help="where the raw files lie")
    parser.add_argument("target", type=epath.Path, help="a new folder")
    parser.add_argument("--dicts", type=epath.Path, help="VG-SGG-dicts.json of other classes")
    parser.set_defaults(run=lambda a: build.build(a.folder, a.target, a.dicts))


def _add_download(verbs: argparse._SubParsersAction) -> None:
    text = "public files, with resume, mirrors and checksums"
    parser = verbs.add_parser("download", help=text, description=text)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--dir", type=pathlib.Path, default=pathlib.Path("data"))
    parser.add_argument("--locations", type=pathlib.Path, help="an own list of addresses")
    parser.add_argument("--list", action="store_true", help="what there is, and from where")
    parser.set_defaults(run=_download)


def _download(arguments: argparse.Namespace) -> None:
    known = locations.load_locations(arguments.locations)
    if arguments.list or not arguments.names:
        print(locations.describe(known))
    else:
        download.download(arguments.names, arguments.dir, known)


def _on_folder(verbs: argparse._SubParsersAction, name: str, text: str) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=text, description=text)
    parser.add_argument("folder", type=epath.Path, help="a data set of any layout")
    parser.add_argument("--images", default="", help="folders of photographs, joined by commas")
    return parser


if __name__ == "__main__":
    sys.exit(main())
