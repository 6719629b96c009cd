"""Refining folders: matching names, going on, problems, and a process that dies, also through the command."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tagmask.cli import main
from tagmask.errors import InputError, RunError
from tagmask.methods.dense_crf.masks import refine_maps, refine_mask
from tagmask.methods.dense_crf.refiner import DenseCrf
from tagmask.predict import crf_folder
from tagmask.predict.crf_folder import refine_folder
from tagmask.storage.images import read_image
from tagmask.types import PixelValues


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Images a.png, deep/b.jpg, c.png; masks of a and c, maps of deep/b."""
    images, masks = tmp_path / "images", tmp_path / "masks"
    generator = np.random.default_rng(0)
    for name in ("a.png", "deep/b.jpg", "c.png"):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 99, (12, 16, 3), dtype=np.uint8)
        pixels[:, 8:] += 120
        Image.fromarray(pixels).save(images / name)
    masks.mkdir()
    for name in ("a.png", "c.png"):
        mask = np.zeros((12, 16), np.uint8)
        mask[:, 7:] = 5
        Image.fromarray(mask).save(masks / name)
    np.savez(masks / "deep%2Fb.npz", maps=generator.random((2, 3, 4)).astype(np.float16), classes=np.array([2, 6]))
    return images, masks


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def test_masks_and_maps_of_a_folder(folders: tuple[Path, Path], tmp_path: Path) -> None:
    images, masks = folders
    result = refine_folder(images, masks, tmp_path / "out")
    assert (result.done, result.kept, result.problems) == (3, 0, ())
    a, b = read_image(images / "a.png"), read_image(images / "deep/b.jpg")
    expected = refine_mask(DenseCrf(preset="irn_labels"), a, read(masks / "a.png"))
    assert np.array_equal(read(tmp_path / "out/a.png"), expected)
    with np.load(masks / "deep%2Fb.npz") as stored:
        maps = stored["maps"].astype(np.float32)
    expected = refine_maps(DenseCrf(), b, maps, np.array([2, 6]))
    assert np.array_equal(read(tmp_path / "out/deep%2Fb.png"), expected)
    assert Image.open(tmp_path / "out/a.png").mode == "P"


def test_nine_bits_are_read_by_their_own_range(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """By their type they would be one shade of black, and no outline would be seen."""
    images, masks = folders
    deep = np.random.default_rng(0).integers(0, 40, (12, 16), dtype=np.uint16)
    deep[:, 8:] += 300
    Image.fromarray(deep).save(images / "a.png")
    refine_folder(images, masks, tmp_path / "out")
    crf, mask = DenseCrf(preset="irn_labels"), read(masks / "a.png")
    seen = read_image(images / "a.png", pixels=PixelValues((0.0,), (511.0,)))
    expected = refine_mask(crf, seen, mask)
    assert np.array_equal(read(tmp_path / "out/a.png"), expected)
    assert not np.array_equal(expected, refine_mask(crf, read_image(images / "a.png"), mask))


def test_masks_written_among_the_masks_are_not_refined_again(folders: tuple[Path, Path]) -> None:
    images, masks = folders
    for name in ("._a.png", ".hidden/c.png"):
        (masks / name).parent.mkdir(exist_ok=True)
        (masks / name).write_text("no mask")
        (images / name).parent.mkdir(exist_ok=True)
        (images / name).write_text("no image")
    for kept in (0, 3):
        result = refine_folder(images, masks, masks / "out")
        assert (result.done, result.kept, result.problems) == (3 - kept, kept, ())
    for folder in folders:
        with pytest.raises(InputError, match="the output folder is that of the"):
            refine_folder(images, masks, folder)


def test_bands_are_chosen_as_those_of_the_data(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """Five bands of 12 bits, of which the first three show nothing of the outline."""
    images, masks = folders
    bands = np.random.default_rng(0).integers(0, 40, (12, 16, 5), dtype=np.uint16)
    bands[:, 8:, 3:] += 3000
    (images / "a.png").unlink()
    tifffile.imwrite(images / "a.tif", bands, photometric="minisblack", planarconfig="contig")
    shutil.rmtree(images / "deep")
    with pytest.raises(SystemExit) as left:
        main(["crf", str(images), str(masks), "--channels", "4,5,1", "-o", str(tmp_path / "out"), "--workers", "1"])
    assert not left.value.code
    seen = read_image(images / "a.tif", pixels=PixelValues((0.0, 0.0, 0.0), (4095.0, 4095.0, 39.0), (4, 5, 1)))
    assert np.array_equal(
        read(tmp_path / "out/a.png"), refine_mask(DenseCrf(preset="irn_labels"), seen, read(masks / "a.png"))
    )
    problems = (tmp_path / "out/problems.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in problems] == ["deep%2Fb", "c"]  # no image; three bands
    with pytest.raises(InputError, match="other settings"):
        refine_folder(images, masks, tmp_path / "out")


@pytest.mark.parametrize("channels", ["", "4,x", "0,1", "-1"])
def test_channels_are_numbers_of_bands(
    channels: str, folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["crf", *map(str, folders), f"--channels={channels}"])
    assert left.value.code == 2
    assert "numbers of bands between commas" in capsys.readouterr().err


def test_it_goes_on_but_not_with_other_settings(folders: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    refine_folder(*folders, out, crf=DenseCrf(iterations=1))
    (out / "c.png").unlink()
    before = (out / "a.png").stat().st_mtime_ns
    result = refine_folder(*folders, out, crf=DenseCrf(iterations=1))
    assert (result.done, result.kept) == (1, 2)
    assert (out / "a.png").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="other settings"):
        refine_folder(*folders, out, crf=DenseCrf(iterations=2))


def test_what_is_wrong_with_an_image_is_a_problem(folders: tuple[Path, Path], tmp_path: Path) -> None:
    images, masks = folders
    (images / "a.png").write_bytes(b"not a picture")
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(masks / "c.png")
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(masks / "nobody.png")
    np.savez(masks / "deep%2Fb.npz", maps=np.full((1, 3, 4), np.nan), classes=np.array([1]))
    result = refine_folder(images, masks, tmp_path / "out")
    assert result.done == 0
    reasons = {problem.id: problem.reason for problem in result.problems}
    assert "not an image" in reasons["a"]
    assert "the mask is 3x3" in reasons["c"]
    assert "no image is called 'nobody'" in reasons["nobody"]
    assert "finite" in reasons["deep%2Fb"]
    listed = [json.loads(line) for line in (tmp_path / "out/problems.jsonl").read_text().splitlines()]
    assert {line["id"] for line in listed} == set(reasons)


def test_refusals(folders: tuple[Path, Path], tmp_path: Path) -> None:
    images, masks = folders
    with pytest.raises(InputError, match="no such folder"):
        refine_folder(tmp_path / "nowhere", masks, tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no masks \(.png\)"):
        refine_folder(images, tmp_path / "empty", tmp_path / "out")
    with pytest.raises(InputError, match="taken for finished"):
        refine_folder(images, masks, masks)
    with pytest.raises(InputError, match="confidence"):
        refine_folder(images, masks, tmp_path / "out", confidence=1)
    np.savez(masks / "a.npz", maps=np.zeros((0, 1, 1)), classes=np.zeros(0))
    with pytest.raises(InputError, match="keep one of them"):
        refine_folder(images, masks, tmp_path / "out")


def die_at_c(job: crf_folder.Job, **options: object) -> None:
    if job.name == "c":
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_dies_names_its_image(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crf_folder, "_refine", die_at_c)
    with pytest.raises(RunError, match=r"c\.png: its worker process was killed by signal 9"):
        refine_folder(*folders, tmp_path / "out", workers=2)


def command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main(["crf", *map(str, arguments)])
    return int(end.value.code or 0)


def test_the_command_in_two_processes(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, masks = folders
    (images / "a.png").write_bytes(b"not a picture")
    assert command(images, masks, "iterations=2", "--output", tmp_path / "out", "--workers", 2, "--plain") == 0
    said = capsys.readouterr()
    assert "2 masks refined, 1 left out" in said.out
    assert "skipped: " in said.err
    expected = refine_mask(DenseCrf(iterations=2), read_image(images / "c.png"), read(masks / "c.png"))
    assert np.array_equal(read(tmp_path / "out/c.png"), expected)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("iteration=2", "Did you mean 'iterations'?"),
        ("iterations", "write KEY=VALUE"),
        ("alpha=[", "not YAML"),
        ("preset=best", "preset"),
    ],
)
def test_a_wrong_setting_is_bad_input(
    wrong: str, why: str, folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*folders, wrong, "--output", tmp_path / "out") == 2
    assert why in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_if_nothing_can_be_read_the_command_fails(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, masks = folders
    for path in (masks / "c.png", masks / "deep%2Fb.npz"):
        path.unlink()
    (masks / "a.png").write_bytes(b"")
    assert command(images, masks, "--output", tmp_path / "out", "--workers", 1) == 2
    assert "no mask of" in capsys.readouterr().err
