"""Data sets on disk: check, stats, convert, build and download; predictions: import.

python -m linknet_jax.data check FOLDER            what is wrong with it, and where
python -m linknet_jax.data stats FOLDER --out DIR  counts and plots
python -m linknet_jax.data convert FOLDER TARGET --format coco
python -m linknet_jax.data build RAW TARGET        raw Visual Genome to the layout of VG150
python -m linknet_jax.data download NAME ...       public files (--list shows them)
python -m linknet_jax.data import PREDICTIONS TARGET --ground_truth gt.jsonl
                                                   Scene-Graph-Benchmark's, for linknet_jax.score
"""

from __future__ import annotations

import argparse
import pathlib
import sys

from etils import epath

from linknet_jax.command import exit_status
from linknet_jax.data import check, convert, files, stats
from linknet_jax.data.formats import sgb_predictions
from linknet_jax.data.formats.prediction_lines import read_truth
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
    for add in (_add_check, _add_stats, _add_convert, _add_build, _add_download, _add_import):
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


def _add_import(verbs: argparse._SubParsersAction) -> None:
    text = "custom_prediction.json of Scene-Graph-Benchmark.pytorch to JSON Lines"
    parser = verbs.add_parser("import", help=text, description=text)
    parser.add_argument("predictions", type=epath.Path, help="beside custom_data_info.json")
    parser.add_argument("target", type=epath.Path, help="compressed if it ends in .gz")
    text = "JSON Lines, for the images' sizes"
    parser.add_argument("--ground_truth", required=True, type=epath.Path, help=text)
    text = "its INPUT.MIN_SIZE_TEST,MAX_SIZE_TEST (600,1000); none: boxes in original pixels"
    parser.add_argument("--resized", type=_sides, default="600,1000", metavar="SIDES", help=text)
    parser.set_defaults(run=_import)


def _sides(text: str) -> sgb_predictions.Sides | None:
    short, comma, long = text.partition(",")
    if text == "none":
        return None
    if not (comma and short.isdecimal() and long.isdecimal() and 0 < int(short) <= int(long)):
        raise argparse.ArgumentTypeError(f"{text!r} must be none or as 600,1000")
    return int(short), int(long)


def _import(arguments: argparse.Namespace) -> None:
    images, _ = read_truth(arguments.ground_truth, None)
    sizes = dict(zip(images.image_ids, map(tuple, images.sizes.tolist()), strict=True))
    target, resized = arguments.target, arguments.resized
    count, doubt = sgb_predictions.convert(arguments.predictions, sizes, target, resized)
    print(f"{count:,} of {len(sizes):,} annotated images have predictions; written to {target}")
    if doubt:
        print(f"warning: {doubt}")


def _on_folder(verbs: argparse._SubParsersAction, name: str, text: str) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=text, description=text)
    parser.add_argument("folder", type=epath.Path, help="a data set of any layout")
    parser.add_argument("--images", default="", help="folders of photographs, joined by commas")
    return parser


if __name__ == "__main__":
    sys.exit(main())
