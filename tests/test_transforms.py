"""One decoder and resizer: against Pillow, on real and on awkward files."""

from __future__ import annotations

import io
import threading
import time

import numpy as np
import pytest
from PIL import Image, ImageOps

from linknet_jax.data.transforms import PADDING, ImageError, image_size, load_image, resize_and_pad


def reference(image: Image.Image, size: int) -> np.ndarray:
    """The definition to the letter: pad the whole square, then Pillow's bilinear kernel."""
    canvas = Image.new("RGB", [max(image.size)] * 2, PADDING)
    canvas.paste(image)
    return np.asarray(canvas.resize((size, size), Image.Resampling.BILINEAR))


def photograph(width: int, height: int) -> Image.Image:
    """A smooth picture with an asymmetric mark, which survives JPEG."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 255 / width, y * 255 / height, (x + y) % 64 + 90], -1)
    pixels[: height // 4, : width // 3] = (250, 20, 30)
    return Image.fromarray(pixels.astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def difference(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max())


@pytest.mark.parametrize("size", [128, 592, 700])
def test_real_photographs_equal_pillow(vrd_dir, size):
    paths = sorted((vrd_dir / "images").iterdir())[:12]
    shapes = set()
    for path in paths:
        image, _, _ = load_image(path, size)
        with Image.open(path) as photo:
            assert difference(image, reference(photo.convert("RGB"), size)) <= 1
            shapes.add(photo.width > photo.height)
    assert shapes == {True, False}


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (37, 53), (200, 31), (64, 64)])
@pytest.mark.parametrize("size", [16, 53, 64, 150])
def test_any_shape_equals_padding_then_resizing(shape, size):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    image, valid, scale = resize_and_pad(pixels, size)
    assert difference(image, reference(Image.fromarray(pixels), size)) <= 1
    assert scale == size / max(shape)
    np.testing.assert_array_equal(valid, [max(1, int(s * size / max(shape))) for s in shape])
    flipped = resize_and_pad(pixels, size, flip=True)
    np.testing.assert_array_equal(flipped[0], resize_and_pad(pixels[:, ::-1].copy(), size)[0])
    np.testing.assert_array_equal(flipped[1], valid)
    assert image.shape == (size, size, 3) and image.dtype == np.uint8


def test_numbers_of_the_method():
    image, valid, scale = load_image(encoded(photograph(640, 427), "JPEG"), 592)
    assert (scale, valid.tolist(), valid.dtype) == (0.925, [394.0, 592.0], np.float32)
    assert (image[397:] == PADDING).all() and not (image[393] == PADDING).all()


def test_downscaling_is_antialiased():
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    image, _, _ = resize_and_pad(stripes, 32)
    assert difference(image[:, 1:-1], 127) <= 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(kind, orientation):
    photo = photograph(96, 64)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photo, kind, exif=exif)
    with Image.open(io.BytesIO(data)) as opened:
        upright = ImageOps.exif_transpose(opened).convert("RGB")
    image, valid, _ = load_image(data, 48)
    assert difference(image, reference(upright, 48)) <= 1
    assert valid.tolist() == ([32, 48] if orientation < 5 else [48, 32])
    assert image_size(data) == upright.size


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("L", "JPEG"), ("CMYK", "JPEG"), ("L", "PNG"), ("P", "PNG"), ("1", "PNG"),
        ("RGBA", "PNG"), ("LA", "PNG"), ("P", "GIF"), ("RGB", "BMP"),
    ],
)  # fmt: skip
def test_colour_modes(mode, kind):
    photo = photograph(80, 60).convert(mode)
    data = encoded(photo, kind)
    image, _, _ = load_image(data, 80)
    expected = np.asarray(photo.convert("RGB"), int)
    assert np.abs(image[:60] - expected).mean() < (3 if kind == "JPEG" else 0.1)
    assert image_size(data) == (80, 60)


def test_sixteen_bits():
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)
    data = encoded(Image.fromarray(np.tile(ramp, (64, 1))), "PNG")
    image, _, _ = load_image(data, 64)
    assert difference(image[0, :, 0], ramp >> 8) == 0


def test_path_bytes_and_unicode_name_agree(tmp_path):
    data = encoded(photograph(50, 40), "JPEG")
    path = tmp_path / "Straße 写真 é.jpg"
    path.write_bytes(data)
    np.testing.assert_array_equal(load_image(path, 32)[0], load_image(data, 32)[0])
    np.testing.assert_array_equal(load_image(str(path), 32)[0], load_image(data, 32)[0])


def test_other_threads_run_meanwhile():
    data = encoded(photograph(3000, 2000), "JPEG")
    worker = threading.Thread(target=load_image, args=(data, 592))
    started = last = time.perf_counter()
    longest = 0.0
    worker.start()
    while worker.is_alive():
        time.sleep(0.0005)
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    assert longest < 0.5 * (now - started)


def broken() -> dict[str, tuple[bytes, str]]:
    jpeg, png = encoded(photograph(90, 70), "JPEG"), encoded(photograph(90, 70), "PNG")
    floats = Image.fromarray(np.ones((4, 4), np.float32))
    return {
        "empty": (b"", "broken.jpg is empty; copy"),
        "truncated_jpeg": (jpeg[: len(jpeg) // 2], "broken.jpg: .*truncated.*; replace"),
        "header_only": (jpeg[:20], "broken.jpg: .*; replace"),
        "truncated_png": (png[: len(png) // 2], "broken.jpg: .*truncated.*; replace"),
        "text": (b"<html>404</html>", "broken.jpg: not a known image format; replace"),
        "float": (encoded(floats, "TIFF"), "broken.jpg: .*32 bits.*; replace"),
    }


@pytest.mark.parametrize("case", list(broken()))
@pytest.mark.parametrize("read", [lambda p: load_image(p, 32), image_size])
def test_broken_file_names_file_and_remedy(tmp_path, case, read):
    data, message = broken()[case]
    path = tmp_path / "broken.jpg"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=message):
        read(path)


def test_missing_file(tmp_path):
    with pytest.raises(ImageError, match=r"nowhere\.jpg.*check the path"):
        load_image(tmp_path / "nowhere.jpg", 32)


def test_huge_dimensions_are_refused_before_decoding(tmp_path, monkeypatch):
    path = tmp_path / "bomb.png"
    path.write_bytes(encoded(photograph(200, 100), "PNG"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9000)
    for read in (lambda p: load_image(p, 32), image_size):
        with pytest.raises(ImageError, match=r"bomb\.png is too large.*20000.*store it smaller"):
            read(path)


@pytest.mark.parametrize(
    "array",
    [np.zeros((0, 5, 3), np.uint8), np.zeros((5, 5), np.uint8), np.zeros((5, 5, 3), np.float32)],
)
def test_arrays_that_are_no_pictures(array):
    with pytest.raises(ImageError, match="expected uint8 RGB"):
        resize_and_pad(array, 32)
