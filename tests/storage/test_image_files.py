"""read_image, image_size and read_mask_png on everything that cameras, tools and accidents leave behind."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageFile

from tagmask.errors import RunError, UnreadableImageError, UnreadableMaskError
from tagmask.ops.transforms import reduced_to, working_size
from tagmask.storage.images import image_size, read_image
from tagmask.storage.label_masks import read_mask_png
from tagmask.storage.pictures import load_mask

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # what EXIF 2.3 says to do with the stored pixels
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


def jpeg_bytes(size: tuple[int, int] = (64, 48)) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, format="JPEG", quality=90)
    return stream.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds almost nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def one_line(caught: pytest.ExceptionInfo[Exception], *parts: str) -> None:
    text = str(caught.value)
    assert "\n" not in text
    for part in parts:
        assert part in text, text


# -- kinds of images ----------------------------------------------------------------------------------------


def test_rgb_is_read_unchanged(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, RGB)
    assert image.flags.writeable


def test_grey_and_black_and_white_repeat_over_channels(tmp_path: Path) -> None:
    Image.fromarray(RGB[..., 0]).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), RGB[..., [0, 0, 0]])
    Image.fromarray(RGB[..., 0] > 127).save(tmp_path / "bw.png")
    np.testing.assert_array_equal(read_image(tmp_path / "bw.png")[..., 1], np.where(RGB[..., 0] > 127, 255, 0))


def test_palette_gives_its_colours(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1], [1, 2]], dtype=np.uint8), mode="P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.save(tmp_path / "p.png")
    expected = [[[10, 20, 30], [40, 50, 60]], [[40, 50, 60], [70, 80, 90]]]
    np.testing.assert_array_equal(read_image(tmp_path / "p.png"), expected)
    image.save(tmp_path / "t.png", transparency=1)
    expected[0][1] = expected[1][0] = [255, 255, 255]
    np.testing.assert_array_equal(read_image(tmp_path / "t.png"), expected)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 257, 128 * 257], [4096, 40000, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"deep{suffix}")
    grey = read_image(tmp_path / f"deep{suffix}")
    np.testing.assert_array_equal(grey[..., 0], [[0, 1, 128], [16, 156, 255]])
    assert (grey[..., 0] == grey[..., 2]).all()
    Image.fromarray(values[:, :2]).save(tmp_path / f"dim{suffix}")  # a dim picture is not stretched
    np.testing.assert_array_equal(read_image(tmp_path / f"dim{suffix}")[..., 0], [[0, 1], [16, 156]])


def test_sixteen_bit_colour_png_keeps_its_high_byte(tmp_path: Path) -> None:
    rows = b"".join(b"\0" + (row.astype(">u2") * 257).tobytes() for row in RGB)
    head = struct.pack(">IIBBBBB", 7, 5, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    data = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png"), RGB)


def test_thirty_two_bits_and_floats(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1_000_000]], dtype=np.int32)).save(tmp_path / "int.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "int.tif")[0, :, 0], [0, 255])
    Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32)).save(tmp_path / "float.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "float.tif")[0, :, 0], [0, 128, 255])
    Image.fromarray(np.array([[0.0, 7.5]], dtype=np.float32)).save(tmp_path / "wide.tif")
    with pytest.raises(UnreadableImageError) as caught:
        read_image(tmp_path / "wide.tif")
    one_line(caught, "wide.tif", "outside [0, 1]", "8 or 16 bits")


def test_transparency_lies_on_white(tmp_path: Path) -> None:
    rgba = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 51]]], dtype=np.uint8)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), [[[255, 0, 0], [255] * 3, [204] * 3]])
    Image.fromarray(rgba[..., 2:]).save(tmp_path / "la.png")  # grey + alpha
    np.testing.assert_array_equal(read_image(tmp_path / "la.png")[0, :, 0], [0, 255, 204])


def test_cmyk_jpeg_has_its_colours(tmp_path: Path) -> None:
    red = np.full((16, 16, 4), (0, 255, 255, 0), dtype=np.uint8)
    Image.fromarray(red, mode="CMYK").save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - (255, 0, 0)).max() < 8


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_exif_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    blocks = np.kron(np.arange(6).reshape(2, 3), np.ones((16, 16))).astype(np.uint8) * 50  # survives JPEG
    stored = np.stack([blocks, 255 - blocks, blocks], axis=2)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned{suffix}"
    Image.fromarray(stored).save(path, exif=exif, **({"quality": 95} if suffix in (".jpg", ".webp") else {}))
    upright = UPRIGHT[orientation](stored)
    image = read_image(path)
    assert image.shape == upright.shape
    assert np.abs(image.astype(int) - upright).mean() < 4
    assert image_size(path) == upright.shape[:2]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_damaged_exif_block_does_not_cost_the_image(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff rubbish")
    assert read_image(tmp_path / "a.jpg").shape == RGB.shape
    assert image_size(tmp_path / "a.jpg") == (5, 7)


def test_one_pixel_is_an_image(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), [[[1, 2, 3]]])
    assert image_size(tmp_path / "a.png") == (1, 1)


# -- broken images ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated_jpeg_is_refused(tmp_path: Path, share: float) -> None:
    data = jpeg_bytes()
    (tmp_path / "half.jpg").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UnreadableImageError) as caught:
        read_image(tmp_path / "half.jpg")
    one_line(caught, "half.jpg", "truncated", "Copy it again")
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.jpg", b"", "0 bytes"),
        ("text.jpg", b"hello world, I am no picture", "begins with 'hello world,'"),
        ("page.jpg", b"<!DOCTYPE html><html>", "begins with '<!DOCTYPE ht'"),
        ("binary.png", bytes(range(128, 200)), "80 81 82"),
    ],
    ids=["empty", "text", "page", "binary"],
)
def test_files_that_are_no_images(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    for read in (read_image, image_size):
        with pytest.raises(UnreadableImageError) as caught:
            read(tmp_path / name)
        one_line(caught, str(tmp_path / name), said, "remove it")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError) as caught:
        read_image(tmp_path / "gone.jpg")
    one_line(caught, "gone.jpg", "does not exist")
    with pytest.raises(UnreadableImageError) as caught:
        read_image(tmp_path)
    one_line(caught, str(tmp_path), "directory")


def test_huge_image_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "huge.png"
    Image.new("1", (12000, 9000)).save(path, compress_level=1)

    def refuse(self: ImageFile.ImageFile) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", refuse)
    with pytest.raises(UnreadableImageError) as caught:
        read_image(path)
    one_line(caught, "huge.png", "12000x9000", "108000000", "limit of 100000000", "data.max_pixels")
    assert image_size(path, max_pixels=108_000_000) == (9000, 12000)


def test_the_pixel_limit_is_exact(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", max_pixels=35).shape == (5, 7, 3)
    with pytest.raises(UnreadableImageError):
        read_image(tmp_path / "a.png", max_pixels=34)


def test_limit_beyond_what_pillow_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 89_478_485)
    (tmp_path / "vast.png").write_bytes(png_header(40_000, 40_000))
    with pytest.raises(UnreadableImageError) as caught:
        read_image(tmp_path / "vast.png")
    one_line(caught, "vast.png", "data.max_pixels")
    assert image_size(tmp_path / "vast.png", max_pixels=2_000_000_000) == (40_000, 40_000)


def smooth(height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A picture without anything finer than a few pixels, none of its corners alike."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    planes = [x / width, y / height, 0.5 + 0.5 * np.sin(x / width * 9) * np.cos(y / height * 5)]
    return np.rint(255 * np.stack(planes, 2)).astype(np.uint8)


@pytest.mark.parametrize("longest", [16, 39, 40, 41, 1000])
def test_a_working_size_reduces_and_never_enlarges(tmp_path: Path, longest: int) -> None:
    Image.fromarray(smooth(30, 40)).save(tmp_path / "a.png")
    found = read_image(tmp_path / "a.png", max_side=longest)
    np.testing.assert_array_equal(found, reduced_to(smooth(30, 40), longest))
    assert found.shape[:2] == working_size((30, 40), longest)
    assert max(found.shape[:2]) == min(40, longest)


@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
def test_a_reduced_jpeg_is_the_picture_of_full_decoding(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / "a.jpg"
    Image.fromarray(smooth(601, 803)).save(path, quality=95, exif=exif)
    found, whole = read_image(path, max_side=60), read_image(path)
    assert found.shape[:2] == working_size((whole.shape[0], whole.shape[1]), 60)
    assert np.abs(found.astype(int) - reduced_to(whole, 60)).mean() < 1.5


def test_a_large_jpeg_is_never_decoded_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(smooth(600, 800)).save(tmp_path / "a.jpg")
    decoded = []
    load = ImageFile.ImageFile.load

    def noted(self: ImageFile.ImageFile) -> Any:
        decoded.append(self.size)
        return load(self)

    monkeypatch.setattr(ImageFile.ImageFile, "load", noted)
    read_image(tmp_path / "a.jpg", max_side=100)
    assert decoded[0] == (200, 150)


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), suffix=st.sampled_from([".jpg", ".png", ".gif", ".bmp", ".tif", ".webp"]))
def test_damage_anywhere_is_an_image_or_one_line(tmp_path: Path, data: st.DataObject, suffix: str) -> None:
    stream = io.BytesIO()
    formats = {".jpg": "JPEG", ".tif": "TIFF"}
    Image.fromarray(RGB).save(stream, format=formats.get(suffix, suffix[1:].upper()))
    damaged = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / f"a{suffix}"
    path.write_bytes(damaged[: data.draw(st.integers(1, len(damaged)))])
    line, image = "", None
    try:
        image = read_image(path, max_pixels=10_000)
    except UnreadableImageError as error:
        line = str(error)
    if image is None:
        assert str(path) in line
        assert "\n" not in line
    else:
        assert (image.dtype, image.ndim, image.shape[2]) == (np.uint8, 3, 3)


# -- masks --------------------------------------------------------------------------------------------------

LABELS = np.array([[0, 1, 2], [3, 255, 0]], dtype=np.uint8)


def test_palette_grey_and_deep_masks_hold_the_same_labels(tmp_path: Path) -> None:
    palette = Image.fromarray(LABELS, mode="P")
    palette.putpalette([value for label in range(256) for value in (255 - label, 7, 7)])
    palette.save(tmp_path / "palette.png")
    Image.fromarray(LABELS).save(tmp_path / "grey.png")
    Image.fromarray(LABELS.astype(np.uint16)).save(tmp_path / "deep.png")
    for name in ("palette", "grey", "deep"):
        mask = read_mask_png(tmp_path / f"{name}.png", (2, 3), 4)
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, LABELS)
        np.testing.assert_array_equal(load_mask(tmp_path / f"{name}.png"), LABELS)


def test_predictions_that_are_no_labels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 3), 257, np.uint16)).save(tmp_path / "instances.png")
    with pytest.raises(RunError, match=r"instances\.png.*holds the number 257, and labels go from 0 to 255"):
        load_mask(tmp_path / "instances.png")
    Image.fromarray(RGB).save(tmp_path / "colour.png")
    with pytest.raises(RunError, match=r"colour\.png.*colour picture"):
        load_mask(tmp_path / "colour.png")


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("mode", ["P", "L"])
def test_masks_of_few_bits_hold_labels(tmp_path: Path, bits: int, mode: str) -> None:
    labels = np.arange(8, dtype=np.uint8).reshape(2, 4) % (1 << bits)
    rows = b"".join(b"\0" + np.packbits(np.unpackbits(row[:, None], axis=1)[:, -bits:]).tobytes() for row in labels)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 4, 2, bits, 3 if mode == "P" else 0, 0, 0, 0))]
    chunks += [(b"PLTE", bytes(range(3 << bits)))] if mode == "P" else []
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    data = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    (tmp_path / "m.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    np.testing.assert_array_equal(read_mask_png(tmp_path / "m.png", (2, 4), 16), labels)
    np.testing.assert_array_equal(load_mask(tmp_path / "m.png"), labels)


def test_unknown_index_is_named_with_the_number_of_classes(tmp_path: Path) -> None:
    Image.fromarray(LABELS).save(tmp_path / "m.png")
    with pytest.raises(UnreadableMaskError) as caught:
        read_mask_png(tmp_path / "m.png", (2, 3), 3)
    one_line(caught, "m.png", "class number 3", "3 classes (0 to 2)", "255 = ignore")


def test_mask_of_another_size(tmp_path: Path) -> None:
    Image.fromarray(LABELS).save(tmp_path / "m.png")
    with pytest.raises(UnreadableMaskError) as caught:
        read_mask_png(tmp_path / "m.png", (4, 6), 4)
    one_line(caught, "m.png", "mask is 3x2", "image is 6x4", "nearest")
    with pytest.raises(UnreadableMaskError) as caught:
        read_mask_png(tmp_path / "m.png", (3, 2), 4)
    one_line(caught, "EXIF rotation")


def test_masks_that_are_no_label_files(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "colour.png")
    with pytest.raises(UnreadableMaskError) as caught:
        read_mask_png(tmp_path / "colour.png", (5, 7), 4)
    one_line(caught, "colour.png", "palette or grey")
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("empty.png", "gone.png"):
        with pytest.raises(UnreadableMaskError) as caught:
            read_mask_png(tmp_path / name, (5, 7), 4)
        one_line(caught, name)
