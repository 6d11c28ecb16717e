"""Any file that calls itself a photograph: the right graph, or an error that says what is wrong."""

import io
import json
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps
from predicting import NAMES, create_config, photograph, quick_compiles, save_checkpoint

from linknet_jax import Predictor, queries
from linknet_jax.data.transforms import PADDING, ImageError, image_size, upright
from linknet_jax.predict import __main__ as predict

BOXES = [[0, 0, 20, 10], [5, 2, 40, 28]]


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(photograph(64, 40), "JPEG", exif=exif)


def sixteen_bits():
    ramp = np.linspace(0, 65535, 64 * 40).astype(np.uint16).reshape(40, 64)
    return encoded(Image.fromarray(ramp), "PNG")


def animated(kind):
    later = [photograph(64, 40, seed) for seed in (1, 2)]
    return encoded(photograph(64, 40), kind, save_all=True, append_images=later, duration=50)


def readable():
    """Bytes and the upright (width, height) of each."""
    photo, size = photograph(64, 40), (64, 40)
    alpha = photo.convert("RGBA")
    alpha.putalpha(128)
    files = {
        "plain.png": encoded(photo, "PNG"),
        "plain.jpg": encoded(photo, "JPEG"),
        "plain.webp": encoded(photo, "WEBP", lossless=True),
        "grey.png": encoded(photo.convert("L"), "PNG"),
        "grey.jpg": encoded(photo.convert("L"), "JPEG"),
        "cmyk.jpg": encoded(photo.convert("CMYK"), "JPEG"),
        "palette.png": encoded(photo.convert("P"), "PNG"),
        "bits.png": encoded(photo.convert("1"), "PNG"),
        "alpha.png": encoded(alpha, "PNG"),
        "alpha.webp": encoded(alpha, "WEBP"),
        "sixteen.png": sixteen_bits(),
        "animated.gif": animated("GIF"),
        "animated.webp": animated("WEBP"),
        "animated.png": animated("PNG"),
        "wrong_suffix.jpg": encoded(photo, "PNG"),
    }
    named = {name: (data, size) for name, data in files.items()}
    named |= {f"turned{k}.jpg": (turned(k), size if k < 5 else size[::-1]) for k in (3, 6, 8)}
    for one in ((1, 1), (20_000, 20), (20, 20_000)):
        named["x".join(map(str, one)) + ".png"] = encoded(photograph(*one), "PNG"), one
    return named


def claiming(width, height, start=b"\x00" * 50):
    """A PNG of that size whose pixels are a few bytes."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(start))
        + chunk(b"IEND", b"")
    )  # fmt: skip


def bomb(width, height):
    """A PNG of black pixels, a thousandth of their size."""
    return encoded(Image.new("1", (width, height)), "PNG")


def hostile():
    """Bytes and what the error says."""
    jpeg, png = (encoded(photograph(64, 40), kind) for kind in ("JPEG", "PNG"))
    sequence = encoded(Image.new("RGB", (8, 8)), "PPM")
    return {
        "empty.jpg": (b"", "is empty"),
        "text.jpg": (b"<html>not found</html>", "not a known image format"),
        "noise.jpg": (np.random.default_rng(0).bytes(3000), "not a known image format"),
        "cut.jpg": (jpeg[: len(jpeg) // 2], "(?i)truncated"),
        "cut.png": (png[: len(png) // 2], "(?i)truncated"),
        "head.jpg": (jpeg[:30], "cannot decode"),
        "head.png": (png[:20], "cannot decode"),
        "script.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a known"),
        "claims.png": (claiming(60_000, 60_000), "is too large"),
        "claims_less.png": (claiming(12_000, 12_000), "is too large"),
        "claims_bmp.bmp": (bmp(50_000, 50_000), "is too large"),
        "claims_gif.gif": (gif(65_535, 65_535), "is too large"),
        "bomb.png": (bomb(13_000, 13_000), "is too large"),
        "strip.png": (bomb(2_000_000, 1), "is too large"),
        "zero.ppm": (sequence.replace(b"8 8", b"0 8"), "cannot decode"),
    }


def gif(width, height):
    frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x4c\x01\0;"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + frame


def bmp(width, height):
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 60, 0, 0, 54, 40, width, height, 1, 24, *[0] * 6)


@pytest.fixture(scope="module", autouse=True)
def compile_quickly(tmp_path_factory):
    """Compiling takes longer than all else here."""
    with quick_compiles(tmp_path_factory.mktemp("cache")):
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("run") / "sgcls")


@pytest.fixture(scope="module")
def predictor(run):
    return Predictor.from_checkpoint(run)


@pytest.mark.parametrize("name", list(readable()))
def test_every_kind_is_read(predictor, tmp_path, name):
    """Pixels as Pillow turns them into RGB; a graph of the upright size."""
    data, size = readable()[name]
    path = tmp_path / name
    path.write_bytes(data)
    pixels = upright(path)
    assert (pixels.shape[1], pixels.shape[0]) == size
    with Image.open(path) as image:
        if name == "sixteen.png":
            expected = np.repeat((np.asarray(image) >> 8)[:, :, None], 3, 2)
        else:
            expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    np.testing.assert_allclose(pixels, expected, atol=0)
    graph = predictor(path, BOXES)
    assert graph.size == size and len(graph.relations) == 2 and graph == predictor(path, BOXES)
    assert all(np.isfinite(r.score) for r in graph.relations)


@pytest.mark.parametrize("name", list(hostile()))
def test_hostile_files_are_refused(predictor, tmp_path, name):
    data, message = hostile()[name]
    path = tmp_path / name
    path.write_bytes(data)
    for read in (predictor, image_size):
        with pytest.raises(ImageError, match=message) as error:
            read(path, BOXES) if read is predictor else read(path)
        assert name in str(error.value)
    with pytest.raises(ImageError, match=message):
        predictor(data, BOXES)


def test_long_strips_in_memory_are_refused(predictor):
    for image in (np.zeros((1, 2_000_000, 3), np.uint8), Image.new("RGB", (1, 2_000_000))):
        with pytest.raises(ImageError, match="2000000"):
            predictor(image, BOXES)


@pytest.mark.parametrize("width, height", [(20_000, 20), (20, 20_000), (1, 1), (65_535, 1)])
def test_awkward_shapes_are_padded(width, height):
    """Where the photograph lies, and padding everywhere else."""
    pixels = np.full((height, width, 3), 250, np.uint8)
    query = queries.read(pixels, None, None, 0, create_config(), NAMES)
    valid = query.valid.astype(int)
    assert query.pixels.shape == (32, 32, 3) and (valid >= 1).all()
    long = 0 if width > height else 1
    assert (query.pixels.take(31, 1 - long)[valid[long] + 2 :] == PADDING).all() or width == height


LIMITED = """
import resource, sys
from linknet_jax.data.transforms import ImageError, load_image
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    try:
        load_image(path, 592)
    except ImageError:
        pass
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_memory_is_bounded(tmp_path):
    """Refused files take next to nothing."""
    for name, (data, _) in hostile().items():
        (tmp_path / name).write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LIMITED, *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout) < 100, "MiB"


def test_the_command_goes_on(run, tmp_path, capsys):
    """Of all files together, the readable ones get their graphs, the others a line of errors."""
    folder, output = tmp_path / "files", tmp_path / "graphs"
    folder.mkdir()
    good, bad = readable(), hostile()
    for number, (name, (data, _)) in enumerate([*good.items(), *bad.items()]):
        (folder / f"{number:02d}{name}").write_bytes(data)
    paths = [str(path) for path in sorted(folder.iterdir())]
    lines = [
        json.dumps({"image_id": p.name, "objects": [{"box": b} for b in BOXES]})
        for p in folder.iterdir()
    ]
    (tmp_path / "boxes.jsonl").write_text("\n".join(lines))
    arguments = ["--boxes", str(tmp_path / "boxes.jsonl"), "--output", str(output)]
    assert predict.main([str(run), *paths, *arguments, "--format", "json", "--batch", "4"]) == 1
    graphs = [json.loads(line) for line in (output / "graphs.jsonl").read_text().splitlines()]
    assert [g["image_id"][2:] for g in graphs] == list(good)
    assert [(g["width"], g["height"]) for g in graphs] == [size for _, size in good.values()]
    errors = (output / "errors.txt").read_text().splitlines()
    assert [line.partition(":")[0][2:] for line in errors] == list(bad)
    assert f"failed: {len(bad)}, see" in capsys.readouterr().err
