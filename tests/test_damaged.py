"""Damaged data sets through the whole path: told clearly, or loaded right, never a wrong batch."""

from __future__ import annotations

import gzip
import io
import struct
import zlib

import damage
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("tensorflow")


@pytest.mark.parametrize("visual", [True, False])
@pytest.mark.parametrize("layout", damage.LAYOUTS)
def test_undamaged(tmp_path, capsys, layout, visual):
    world = damage.World(layout)
    damage.store(tmp_path, world.files, world.photographs)
    status, printed, message = damage.outcome(tmp_path, capsys, world.splits, visual=visual)
    assert status == 0 and not message and "0 errors, 0 warnings" in printed


def saved(kind, mode="RGB", **options):
    """The second photograph in another file format."""

    def change(content):
        image = Image.open(io.BytesIO(content))
        if mode == "16":
            image = Image.fromarray(np.uint16(np.asarray(image.convert("L"))) * 256 + 77)
        elif mode == "32":
            image = Image.fromarray(np.float32(np.asarray(image.convert("L"))))
        else:
            image = image.convert(mode)
        Image.Image.save(image, file := io.BytesIO(), kind, **options)
        return file.getvalue()

    return change


def oriented(orientation, kind="PNG"):
    """Stored turned, with the EXIF entry that turns it upright again."""

    def change(content):
        back = {6: 8, 8: 6}.get(orientation, orientation)
        array = np.ascontiguousarray(
            damage.UPRIGHT[back](np.asarray(Image.open(io.BytesIO(content))))
        )
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(np.ascontiguousarray(array)).save(file := io.BytesIO(), kind, exif=exif)
        return file.getvalue()

    return change


def resized(*size):
    def change(content):
        file = io.BytesIO()
        Image.open(io.BytesIO(content)).resize(size).save(file, "JPEG")
        return file.getvalue()

    return change


def claims_to_be_huge(content):
    """A JPEG whose header says 65,000 x 65,000."""
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + struct.pack(">HH", 65000, 65000) + content[at + 4 :]


def huge_png(content):
    def chunk(kind, body):
        check = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


def flipped_byte(content):
    data = bytearray(saved("PNG")(content))
    data[len(data) // 2] ^= 255
    return bytes(data)


UNREADABLE = r"2\.jpg"
OTHER_SHAPE = r"2.*40.*64"
PHOTOGRAPHS = {
    **{f"cut to {n} bytes": (lambda c, n=n: c[:n], UNREADABLE) for n in (0, 1, 2, 3, 20, 300, -40)},
    "half": (lambda c: c[: len(c) // 2], UNREADABLE),
    "zeros": (lambda c: bytes(len(c)), UNREADABLE),
    "zeros after the header": (lambda c: c[:200] + bytes(len(c)), UNREADABLE),
    "page": (lambda c: b"<!DOCTYPE html><html>404 Not Found</html>", UNREADABLE),
    "text": (lambda c: b"no photograph", UNREADABLE),
    "compressed": (gzip.compress, UNREADABLE),
    "backwards": (lambda c: c[::-1], UNREADABLE),
    "bomb": (claims_to_be_huge, "too large"),
    "png bomb": (huge_png, "too large"),
    "png half": (lambda c: (d := saved("PNG")(c))[: len(d) // 2], UNREADABLE),
    "png wrong byte": (flipped_byte, UNREADABLE),
    "webp half": (lambda c: (d := saved("WEBP")(c))[: len(d) // 2], UNREADABLE),
    "gif half": (lambda c: (d := saved("GIF")(c))[: len(d) // 2], UNREADABLE),
    "bmp half": (lambda c: (d := saved("BMP")(c))[: len(d) // 2], UNREADABLE),
    "tiff of floats": (saved("TIFF", "32"), "32 bits"),
    "lying": (resized(64, 40), OTHER_SHAPE),
    "another image": (resized(64, 64), OTHER_SHAPE),
    "tiny": (resized(1, 1), OTHER_SHAPE),
    "sideways": (lambda c: saved("JPEG")(resized(64, 40)(c)), OTHER_SHAPE),
    "cut by its end": (lambda c: c[:-2], UNREADABLE),
    "one byte short": (lambda c: c[:-1], UNREADABLE),
    "more behind it": (lambda c: c + b"\0" * 99, damage.LOADS),
    "two in one": (lambda c: c + c, damage.LOADS),
    "grey": (saved("JPEG", "L"), damage.LOADS),
    "cmyk": (saved("JPEG", "CMYK"), damage.LOADS),
    "progressive": (saved("JPEG", progressive=True), damage.LOADS),
    "png": (saved("PNG"), damage.LOADS),
    "png 16 bits": (saved("PNG", "16"), damage.LOADS),
    "png grey alpha": (saved("PNG", "LA"), damage.LOADS),
    "png alpha": (saved("PNG", "RGBA"), damage.LOADS),
    "png palette": (saved("PNG", "P"), damage.LOADS),
    "png 1 bit": (saved("PNG", "1"), damage.LOADS),
    "png optimized": (saved("PNG", "RGB", optimize=True), damage.LOADS),
    "webp": (saved("WEBP", lossless=True), damage.LOADS),
    "bmp": (saved("BMP"), damage.LOADS),
    "gif": (saved("GIF"), damage.LOADS),
    "tiff": (saved("TIFF"), damage.LOADS),
    "broken exif": (saved("JPEG", exif=b"Exif\0\0garbage"), damage.LOADS),
    **{f"orientation {k}": (oriented(k), damage.LOADS) for k in range(1, 9)},
    **{f"jpeg orientation {k}": (oriented(k, "JPEG"), damage.LOADS) for k in (3, 6, 8)},
}  # fmt: skip


@pytest.mark.parametrize("name", PHOTOGRAPHS)
@pytest.mark.parametrize("layout", ["vrd", "visual_genome", "jsonl"])
def test_photographs(tmp_path, capsys, layout, name):
    world, (change, expected) = damage.World(layout), PHOTOGRAPHS[name]
    if layout == "visual_genome" and expected == OTHER_SHAPE:
        expected = damage.LOADS  # its boxes are parts of the longer side, which fit any photograph
    world.show(change(world.scenes[1].photograph))
    damage.verify(tmp_path, capsys, world, expected)


@pytest.mark.parametrize("layout", damage.LAYOUTS)
def test_a_photograph_of_twice_the_size(tmp_path, capsys, layout):
    """Boxes of visual_genome are parts of the longer side; those of the others are pixels."""
    world = damage.World(layout)
    world.show(resized(80, 128)(world.scenes[1].photograph))
    damage.verify(
        tmp_path, capsys, world, damage.LOADS if layout == "visual_genome" else r"2.*40.*64"
    )


@pytest.mark.parametrize("layout", damage.LAYOUTS)
@pytest.mark.parametrize("kind", ["missing", "folder", "dangling link", "link to itself"])
def test_absent_photographs(tmp_path, capsys, layout, kind):
    world = damage.World(layout)
    del world.photographs["2.jpg"]
    path = tmp_path / "images" / "2.jpg"
    path.parent.mkdir()
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.symlink_to("2.jpg" if kind == "link to itself" else "nowhere.jpg")
    damage.verify(tmp_path, capsys, world, r"2\.jpg")


@pytest.mark.parametrize("layout", damage.LAYOUTS)
def test_a_photograph_of_one_pixel(tmp_path, capsys, layout):
    """Both boxes of the pair are this pixel."""
    world = damage.World(layout)
    scene = world.scenes[1]
    scene.width = scene.height = 1
    scene.boxes, scene.labels = [[0, 0, 1, 1]] * 2, [1, 2]
    scene.relations = [[0, 1, 2]]
    world.files = damage.LAYOUTS[layout](world.splits)
    world.show(saved("PNG")(resized(1, 1)(scene.photograph)))
    damage.verify(tmp_path, capsys, world, damage.LOADS)


NAMES = {
    **dict.fromkeys(
        ["日本 ü.jpg", " a  b .jpg", "-rf.jpg", "--config.jpg", "a,b;c.jpg", "x.tar.JPG", ".hidden",
         "sub/folder/x.jpg", "'q\"uote.jpg", "new\nline.jpg", "tab\t.jpg", "%s{0}.jpg", "~root.jpg",
         "$HOME.jpg", "*.jpg", "[ab].jpg", "C:\\x.jpg", "gs:x.jpg", "no ending", "é.jpg",
         "é.jpg", "\u202egpj.jpg", "a" * 250 + ".jpg", "2.jpg/2.jpg", "./2.jpg"],
        damage.LOADS,
    ),
    **dict.fromkeys(["a" * 300 + ".jpg", "a" * 300 + "/x.jpg", "/etc/hostname", "..", ".", "/",
                     "../outside.jpg", "sub/../../outside.jpg", "nul\0.jpg", "images", "x/", "//x",
                     "surrogate\ud800.jpg", "\ud800/x.jpg", "gone.jpg"],
                    r"photograph|image"),
}  # fmt: skip


@pytest.mark.parametrize("layout", damage.LAYOUTS)
@pytest.mark.parametrize("name", NAMES)
def test_names_of_photographs(tmp_path, capsys, layout, name):
    world, expected = damage.World(layout), NAMES[name]
    world.rename(name)
    if expected is not damage.LOADS:
        content = world.photographs.pop(name)
        (tmp_path / "outside.jpg").write_bytes(content)
    damage.verify(tmp_path, capsys, world, expected)
