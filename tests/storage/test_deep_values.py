"""Values of more than 8 bits: read whole, brought to 0..255 by one range, never cut without a word."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from tagmask.errors import InputError, UnreadableImageError
from tagmask.storage.bands import turned
from tagmask.storage.deep_png import read_deep_png
from tagmask.storage.images import image_size, read_image
from tagmask.storage.pixel_values import pixels_entry, stored_pixels, to_uint8
from tagmask.types import PixelValues

TWELVE = PixelValues((0.0,), (4095.0,))


def values(*shape: int, top: int = 4096) -> NDArray[np.uint16]:
    smooth = np.cumsum(np.random.default_rng(0).integers(0, 50, shape), axis=1) % top
    return smooth.astype(np.uint16)


def save_png(path: Path, image: NDArray[np.uint16], filters: tuple[int, ...] = (0, 1, 2, 3, 4)) -> Path:
    """A PNG of 16 bits, its rows with these filters in turn: the definitions of the specification, written out."""
    height, width, samples = image.shape
    raw = image.astype(">u2").view(np.uint8).reshape(height, -1).astype(int)
    step, rows = 2 * samples, b""
    for y in range(height):
        kind = filters[y % len(filters)]
        left, above, corner = (np.zeros(raw.shape[1], int) for _ in range(3))
        left[step:] = raw[y, :-step]
        if y:
            above, corner[step:] = raw[y - 1], raw[y - 1, :-step]
        total = left + above - corner
        distances = np.abs(total - np.stack([left, above, corner]))
        paeth = np.choose(distances.argmin(0), [left, above, corner])  # of equal ones the first: left, above, corner
        guess = [0 * left, left, above, (left + above) // 2, paeth][kind]
        rows += bytes([kind]) + ((raw[y] - guess) % 256).astype(np.uint8).tobytes()
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[samples]
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    data = zlib.compress(rows)
    chunks = [(b"IHDR", header), (b"IDAT", data[:20]), (b"IDAT", data[20:]), (b"IEND", b"")]
    content = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


@pytest.mark.parametrize("samples", [1, 2, 3, 4])
def test_every_filter_of_a_deep_png(tmp_path: Path, samples: int) -> None:
    image = values(23, 17, samples, top=65536)
    np.testing.assert_array_equal(read_deep_png(save_png(tmp_path / "a.png", image)), image)
    with Image.open(tmp_path / "a.png") as opened:  # the file is one: Pillow reads its upper bytes
        opened.load()
        assert opened.size == (17, 23)
        if samples == 3:
            np.testing.assert_array_equal(np.asarray(opened), image >> 8)


def test_a_deep_png_that_ends_early(tmp_path: Path) -> None:
    content = save_png(tmp_path / "a.png", values(9, 9, 3)).read_bytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(UnreadableImageError, match=r"a\.png: "):
        read_image(tmp_path / "a.png", pixels=TWELVE)


@pytest.mark.parametrize("kind", ["png", "grey png", "tif", "grey tif", "float tif"])
def test_twelve_bits_in_sixteen_fill_the_range(tmp_path: Path, kind: str) -> None:
    image = values(20, 30, 1 if kind.startswith("grey") else 3)
    path = tmp_path / f"a.{kind.split()[-1]}"
    if kind == "png":
        save_png(path, image)
    elif kind == "grey png":
        Image.fromarray(image[..., 0]).save(path)
    else:
        tifffile.imwrite(path, image.squeeze().astype(np.float32 if kind == "float tif" else np.uint16))
    if kind == "float tif":  # no colours that Pillow knows, so its bands must be named
        with pytest.raises(UnreadableImageError, match=r"a TIFF of 3 bands.*data\.channels=3"):
            read_image(path, pixels=TWELVE)
        pixels = PixelValues((0.0,) * 3, (4095.0,) * 3, (1, 2, 3))
    else:
        pixels = TWELVE
    expected = np.rint(image * (255 / 4095)).astype(np.uint8)
    np.testing.assert_array_equal(read_image(path, pixels=pixels), np.broadcast_to(expected, (20, 30, 3)))
    assert read_image(path, pixels=pixels, max_side=15).shape == (10, 15, 3)
    assert image_size(path) == (20, 30)
    if not kind.startswith("float"):
        assert read_image(path).max() <= 16  # by its type, as before there was a range


def test_eight_bits_stay_as_they_are(tmp_path: Path) -> None:
    Image.fromarray(values(6, 7, 3, top=200).astype(np.uint8)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", pixels=TWELVE), read_image(tmp_path / "a.png"))


def test_transparent_pixels_are_white(tmp_path: Path) -> None:
    image = np.concatenate([values(8, 9, 3), np.zeros((8, 9, 1), np.uint16)], axis=2)
    image[:, 4:, 3] = 65535
    seen = read_image(save_png(tmp_path / "a.png", image), pixels=TWELVE)
    assert (seen[:, :4] == 255).all()
    np.testing.assert_array_equal(seen[:, 4:], np.rint(image[:, 4:, :3] * (255 / 4095)))


def test_beyond_the_range_and_no_data() -> None:
    row = np.array([[[-5.0], [10.0], [15.0], [20.0], [99.0], [np.nan], [np.inf], [-np.inf]]])
    assert to_uint8(row, PixelValues((10.0,), (20.0,)))[0, :, 0].tolist() == [0, 0, 128, 255, 255, 0, 255, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_deep_tiff_is_turned_as_a_flat_one(tmp_path: Path, orientation: int) -> None:
    flat = values(4, 6, 3, top=250).astype(np.uint8)
    for name, image in (("flat", flat), ("deep", flat.astype(np.uint16))):
        extra = [(274, "H", 1, orientation, True)]
        tifffile.imwrite(tmp_path / f"{name}.tif", image, photometric="rgb", extratags=extra)
    expected = read_image(tmp_path / "flat.tif")
    seen = read_image(tmp_path / "deep.tif", pixels=PixelValues((0.0,), (255.0,)))
    np.testing.assert_array_equal(seen, expected)
    assert image_size(tmp_path / "deep.tif") == expected.shape[:2]
    np.testing.assert_array_equal(turned(flat, orientation), expected)


def test_what_a_model_says_is_read_back(tmp_path: Path) -> None:
    assert pixels_entry(None) == {}
    assert stored_pixels({}, tmp_path) is None
    for pixels in (TWELVE, PixelValues((0.0, 1.5), (2.0, 4.0), (4, 2))):
        assert stored_pixels(pixels_entry(pixels), tmp_path) == pixels
    with pytest.raises(InputError, match="train it again"):
        stored_pixels({"pixels": {"low": "x"}}, tmp_path)


def test_heic_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(UnreadableImageError, match=r"a HEIC image.*pip install 'tagmask\[heic\]'"):
        read_image(tmp_path / "a.heic")


def test_heic_is_read_with_its_extra(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    image = np.full((64, 96, 3), 90, np.uint8)
    image[:, 48:] = 200
    heif.from_bytes("RGB", (96, 64), image.tobytes()).save(tmp_path / "a.heic", quality=90)
    assert image_size(tmp_path / "a.heic") == (64, 96)
    assert np.abs(read_image(tmp_path / "a.heic").astype(int) - image).mean() < 4


def test_a_compression_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        msg = "<COMPRESSION.LZW: 5> requires the 'imagecodecs' package"
        raise ValueError(msg)

    tifffile.imwrite(tmp_path / "a.tif", values(8, 9, 5), photometric="minisblack", planarconfig="contig")
    flat = values(8, 9, 4, top=250).astype(np.uint8)
    Image.fromarray(flat, "RGBA").save(tmp_path / "b.tif", compression="tiff_lzw")
    Image.fromarray(values(8, 9)).save(tmp_path / "c.tif")
    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", refuse)
    with pytest.raises(UnreadableImageError, match=r"compressed by LZW.*pip install 'tagmask\[geotiff\]'"):
        read_image(tmp_path / "a.tif", pixels=PixelValues((0.0,), (9.0,), (5,)))
    with pytest.raises(UnreadableImageError, match="compressed by LZW"):
        read_image(tmp_path / "c.tif", pixels=PixelValues((0.0,), (9.0,), (1,)))
    # Four bands of 8 bits need nothing: Pillow reads them, the fourth as it is.
    seen = read_image(tmp_path / "b.tif", pixels=PixelValues((0.0,), (9.0,), (4, 1)))
    np.testing.assert_array_equal(seen, flat[..., [3, 0]])
