"""Near duplicates: saved again, enlarged, a little moved; and that they stay on one side of the split."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tagmask.data import near_duplicates as module
from tagmask.data.health.check import check
from tagmask.data.near_duplicates import DISTANCE, image_hashes, near_duplicates, perceptual_hash, united
from tagmask.data.table.source import TableSource
from tagmask.storage.files import user_cache
from tagmask.types import Sample, UInt8Array


def scene(seed: int, size: tuple[int, int] = (96, 128)) -> UInt8Array:
    """A picture of coarse patches, as unlike another seed's as two photographs are."""
    patches = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(patches).resize(size[::-1], Image.Resampling.BICUBIC))


def distance(first: UInt8Array, second: UInt8Array) -> int:
    one, other = perceptual_hash(first), perceptual_hash(second)
    assert one is not None
    assert other is not None
    return (one ^ other).bit_count()


@pytest.mark.parametrize("seed", range(5))
def test_the_same_picture_in_other_files_is_near_and_another_is_not(seed: int, tmp_path: Path) -> None:
    picture = scene(seed)
    Image.fromarray(picture).save(tmp_path / "a.jpg", quality=40)
    assert distance(picture, np.asarray(Image.open(tmp_path / "a.jpg"))) <= DISTANCE
    large = np.asarray(Image.fromarray(picture).resize((300, 222), Image.Resampling.BICUBIC))
    assert distance(picture, large) <= DISTANCE
    assert distance(picture, np.clip(picture * 0.8 + 20, 0, 255).astype(np.uint8)) <= DISTANCE
    assert distance(picture, scene(seed + 1)) > 2 * DISTANCE


def test_a_picture_that_shows_nothing_is_near_to_none() -> None:
    assert perceptual_hash(np.full((40, 40, 3), 7, np.uint8)) is None


def test_groups_by_hand() -> None:
    """b is near to a and to c, which are not near to each other; d is alone."""
    hashes = {"a": 0, "b": 0b1111, "c": 0b11111111, "d": 2**64 - 1}
    assert near_duplicates(hashes) == [("a", "b", "c")]
    assert near_duplicates(hashes, distance=3) == []
    assert near_duplicates({}) == []


@given(st.dictionaries(st.text("abc", min_size=1, max_size=4), st.integers(0, 255), max_size=12), st.integers(0, 4))
def test_groups_are_those_of_all_pairs(hashes: dict[str, int], limit: int) -> None:
    linked = united(
        [one, other] for one in hashes for other in hashes if (hashes[one] ^ hashes[other]).bit_count() <= limit
    )
    expected = {frozenset(group) for group in linked if len(group) > 1}
    assert {frozenset(group) for group in near_duplicates(hashes, limit)} == expected


def test_bands_and_sixteen_bits(tmp_path: Path) -> None:
    """The picture that is hashed is that of the bands, from the lowest to the highest value."""
    samples = []
    for name, number in (("a", 0), ("copy", 0), ("other", 5)):
        image = scene(number).astype(np.uint16) + (3 if name == "copy" else 0)
        bands = np.concatenate([np.zeros_like(image[..., :1]), image], axis=2)
        tifffile.imwrite(tmp_path / f"{name}.tif", bands, photometric="minisblack", planarconfig="contig")
        Image.fromarray(image[..., 0] * 7 + 9000).save(tmp_path / f"{name}.png")
        samples.append(Sample(name, tmp_path / f"{name}.tif", ()))
    assert image_hashes(samples, max_pixels=10**6, channels=(1,)) == {}  # an empty band shows nothing
    hashes = image_hashes(samples, max_pixels=10**6, channels=(2, 3, 4))
    assert near_duplicates(hashes) == [("a", "copy")]
    deep = [Sample(s.id, s.image_path.with_suffix(".png"), ()) for s in samples]
    assert near_duplicates(image_hashes(deep, max_pixels=10**6)) == [("a", "copy")]


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=3), max_size=8))
def test_united_groups_part_their_members(links: list[list[int]]) -> None:
    groups = united(links)
    members = [member for group in groups for member in group]
    assert sorted(members) == sorted({member for link in links for member in link})
    assert all(sum(bool(set(link) & set(group)) for group in groups) == 1 for link in links)


def test_hashes_are_kept_and_made_again_for_a_changed_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = []
    for name in ("a", "b", "broken"):
        path = tmp_path / f"{name}.png"
        Image.fromarray(scene(len(samples))).save(path) if name != "broken" else path.write_bytes(b"no")
        samples.append(Sample(name, path, ()))
    first = image_hashes(samples, max_pixels=10**6)
    assert first.keys() == {"a", "b"}
    read: list[Path] = []
    really_read = module._picture
    monkeypatch.setattr(module, "_picture", lambda path, *options: read.append(path) or really_read(path, *options))
    assert image_hashes(samples, max_pixels=10**6) == first
    assert read == [tmp_path / "broken.png"]
    Image.fromarray(scene(9, (50, 60))).save(tmp_path / "a.png")
    assert image_hashes(samples, max_pixels=10**6)["a"] != first["a"]
    (cache,) = (
        path for path in (user_cache() / "tagmask" / "hashes").glob("*.json") if str(tmp_path) in path.read_text()
    )
    cache.write_text(json.dumps({"version": -1}))
    assert image_hashes(samples, max_pixels=10**6)["b"] == first["b"]


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """12 scenes of 4 views each, every view saved at another size; the columns name their scene."""
    (tmp_path / "images").mkdir()
    rows = ["image,tags,scene"]
    for number in range(12):
        for view in range(4):
            picture = Image.fromarray(scene(number)).resize((100 + 10 * view, 80 + 8 * view))
            picture.save(tmp_path / "images" / f"{view}-{number:02}.png")
            rows.append(f"{view}-{number:02}.png,{'cow' if number % 2 else 'dog'},s{number}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    return tmp_path


def scenes(source: object, split: str) -> list[str]:
    return [sample.id.partition("-")[2] for sample in source.splits[split]]  # type: ignore[attr-defined]


@pytest.mark.parametrize("settings", [{"near_duplicates": True}, {"groups": "scene"}], ids=["hash", "column"])
@pytest.mark.parametrize("stratified", [False, True])
def test_a_series_is_on_one_side_of_the_split(series: Path, settings: dict[str, object], stratified: bool) -> None:
    source = TableSource(root=series, stratified=stratified, **settings).open()  # type: ignore[arg-type]
    train, val = scenes(source, "train"), scenes(source, "val")
    assert val
    assert not set(train) & set(val)
    assert all(val.count(name) == 4 for name in val)
    torn = TableSource(root=series, stratified=stratified).open()
    assert set(scenes(torn, "train")) & set(scenes(torn, "val")), "without them a series is parted"


def test_the_check_names_near_duplicates_across_splits_and_with_other_tags(series: Path) -> None:
    text = (series / "labels.csv").read_text().replace("0-03.png,cow", "0-03.png,dog")
    (series / "labels.csv").write_text(text)
    report = check(TableSource(root=series).open())
    assert len(report.near_duplicates) == 12
    assert ("0-03", "1-03", "2-03", "3-03") in report.near_duplicates
    assert any("groups of near duplicates are in several splits" in text for text in report.warnings)
    assert any("1 groups of near duplicates have different tags, e.g. 0-03 ~ 1-03" in text for text in report.warnings)
    lines = report.lines()
    assert "near duplicates: 12 groups" in lines
    kept = check(TableSource(root=series, near_duplicates=True).open())
    assert not any("in several splits" in text for text in kept.warnings)


def test_exact_copies_alone_are_no_near_duplicates(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(scene(0 if name != "c" else 1)).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "labels.csv").write_text("image,tags\na,cow\nb,cow\nc,dog\n")
    report = check(TableSource(root=tmp_path, val_fraction=0).open())
    assert report.duplicates == (("a", "b"),)
    assert report.near_duplicates == ()


def test_too_many_images_are_not_compared_and_that_is_said(series: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tagmask.data.source.MOST_COMPARED", 10)
    source = TableSource(root=series, near_duplicates=True).open()
    assert any("48 images are too many, up to 10 are compared" in problem.reason for problem in source.problems)


def test_a_group_that_the_datas_own_splits_part_is_told(series: Path) -> None:
    lines = (series / "labels.csv").read_text().splitlines()
    rows = [f"{line},{'val' if line.startswith('0-') else 'train'}" for line in lines[1:]]
    (series / "labels.csv").write_text("\n".join([f"{lines[0]},split", *rows]))
    source = TableSource(root=series, groups="scene").open()
    (note,) = [problem for problem in source.problems if "groups" in problem.reason]
    assert note.reason.startswith("12 groups have images in several splits, such as 's0'")
    assert not note.left_out


def test_a_column_of_groups_that_is_not_there_and_one_beside_classes(series: Path) -> None:
    from tagmask.errors import UnknownNameError

    with pytest.raises(UnknownNameError, match="Did you mean 'scene'"):
        TableSource(root=series, groups="scenes").open()
    rows = [
        line.replace("cow", "1,0").replace("dog", "0,1") for line in (series / "labels.csv").read_text().splitlines()
    ]
    numbered = [row.rpartition(",s") for row in rows[1:]]
    rows = ["image,cow,dog,tile", *(f"{row[0]},{int(row[2]) % 2}" for row in numbered)]
    (series / "labels.csv").write_text("\n".join(rows))
    assert TableSource(root=series, groups="tile").open().classes.names == ("background", "cow", "dog")
