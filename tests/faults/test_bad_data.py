"""Data as it comes: broken images, odd sizes, missing masks, missing splits. Runs finish and say what they left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from progress_recorder import ProgressRecorder
from tagmask.errors import RunError
from tagmask.pipeline.execute import run
from tagmask.runs.run import Run
from tagmask.stages.localize import stage as localize
from tagmask.storage.files import artifact_name
from tagmask.storage.pictures import load_mask

Spoil = Callable[[Path, str], None]
ROWS = {f"{number}.jpg": tags for number, tags in enumerate(["cow", "dog", "cow|dog", "dog", "cow", "", "dog", "cow"])}


def table(root: Path, **settings: Any) -> dict[str, Any]:
    return {"format": "table", "root": str(root), "val_fraction": 0.25, **settings}


@pytest.fixture
def walk(tmp_path: Path, weak: dict[str, Any]) -> Callable[..., Run]:
    def walk(data: dict[str, Any], *overrides: str, **options: Any) -> Run:
        return run({**weak, "data": data}, output=tmp_path / "run", overrides=overrides, **options)

    return walk


def problems(done: Run) -> dict[str, set[str]]:
    """Stage -> ids of the inputs left out, from the file, each listed once."""
    lines = [json.loads(line) for line in (done.path / "problems.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len({(line["stage"], line["id"]) for line in lines}) == len(lines)
    assert all("\n" not in line["reason"] and line["path"] in line["reason"] for line in lines)
    found: dict[str, set[str]] = {}
    for line in (line for line in lines if line["left_out"]):
        found.setdefault(line["stage"], set()).add(line["id"])
    return found


def masks(done: Run) -> set[str]:
    return {path.stem for path in (done.path / "refine" / "masks").iterdir()}


@pytest.mark.parametrize("how", ["cut", "empty", "text", "noise"])
def test_an_unreadable_image_costs_only_itself(
    pictures: Callable[..., Path], walk: Callable[..., Run], spoil: Spoil, how: str
) -> None:
    root = pictures(ROWS)
    spoil(root / "images" / "2.jpg", how)
    done = walk(table(root, val_fraction=0))
    found = problems(done)
    assert found["classify"] == found["localize"] == {"2"}
    assert masks(done) == {str(number) for number in range(8)} - {"2"}
    assert done.metrics["without_masks"]
    assert (done.path / "report.html").exists()


def test_images_that_break_later_cost_only_themselves(
    pictures: Callable[..., Path], walk: Callable[..., Run], spoil: Spoil, tmp_path: Path
) -> None:
    root = pictures(ROWS)
    walk(table(root, val_fraction=0), until="localize")
    spoil(root / "images" / "3.jpg", "zeros")
    done = walk(table(root, val_fraction=0), until="refine")
    assert problems(done) == {"refine": {"3"}}
    spoil(root / "images" / "4.jpg", "zeros")
    done = walk(table(root, val_fraction=0))
    assert problems(done) == {"refine": {"3"}, "segment (training)": {"4"}}
    # Going on with the run lists nothing twice.
    Path(done.path / "segment" / "model.safetensors").unlink()
    assert problems(walk(table(root, val_fraction=0))) == problems(done)


def test_an_unreadable_validation_image_is_predicted_by_nobody(
    pictures: Callable[..., Path], walk: Callable[..., Run], spoil: Spoil
) -> None:
    root = pictures(ROWS)
    data = table(root, val_fraction=0.3)
    val = {sample.id for sample in walk(data, until="classify").recipe.data.open().split("val")}
    bad = min(val)
    assert len(val) >= 2
    spoil(root / "images" / f"{bad}.jpg", "noise")
    done = walk(data)
    assert problems(done) == {"localize": {bad}, "segment": {bad}}
    assert {path.stem for path in (done.path / "segment" / "predictions").iterdir()} == val - {bad}


def test_no_readable_image_ends_in_one_line(
    pictures: Callable[..., Path], walk: Callable[..., Run], spoil: Spoil
) -> None:
    root = pictures(ROWS)
    for name in ROWS:
        spoil(root / "images" / name, "text")
    with pytest.raises(RunError, match=r"none of the \d inputs could be read; the first: .*\.jpg") as raised:
        walk(table(root))
    assert "\n" not in str(raised.value)


def test_all_images_lost_in_an_image_wise_stage(
    pictures: Callable[..., Path], walk: Callable[..., Run], spoil: Spoil
) -> None:
    root = pictures(ROWS)
    walk(table(root), until="classify")
    for name in ROWS:
        spoil(root / "images" / name, "zeros")
    with pytest.raises(RunError, match=r"activation maps: all 8 images failed; the first: .*\.jpg") as raised:
        walk(table(root))
    assert "\n" not in str(raised.value)


def test_without_masks_everything_runs_and_the_evaluation_says_so(
    pictures: Callable[..., Path], walk: Callable[..., Run]
) -> None:
    done = walk(table(pictures(ROWS)))
    assert done.metrics["splits"] == {}
    assert "no masks, no mIoU" in done.metrics["without_masks"]
    assert done.metrics["ratio_to_full"] is None
    assert done.metrics["tags"]["map"] is not None
    assert masks(done) == {str(number) for number in range(8)}


def test_full_supervision_without_masks_is_one_line(pictures: Callable[..., Path], walk: Callable[..., Run]) -> None:
    with pytest.raises(RunError, match="full supervision needs real masks"):
        walk(table(pictures(ROWS)), "segment.supervision=full", "segment.network.weights=null")


def test_no_validation_images(pictures: Callable[..., Path], walk: Callable[..., Run]) -> None:
    done = walk(table(pictures(ROWS), val_fraction=0))
    assert done.metrics["tags"] is None
    assert not list((done.path / "segment").glob("predictions/*"))
    assert (done.path / "segment" / "model.safetensors").exists()


def test_one_class(pictures: Callable[..., Path], walk: Callable[..., Run]) -> None:
    done = walk(table(pictures({f"{n}.jpg": "cow" for n in range(6)})))
    assert done.metrics["classes"] == ["background", "cow"]
    with Image.open(done.path / "refine" / "masks" / "0.png") as mask:
        assert set(np.unique(np.array(mask))) <= {0, 1}


def test_images_without_tags_become_background(pictures: Callable[..., Path], walk: Callable[..., Run]) -> None:
    done = walk(table(pictures(ROWS)))
    assert done.workspace.load_maps("5").maps.shape == (0, 12, 12)
    assert not load_mask(done.workspace.mask_path("5")).any()


def test_only_images_without_tags_but_one(pictures: Callable[..., Path], walk: Callable[..., Run]) -> None:
    rows = {f"{n}.jpg": "cow" if n == 0 else "" for n in range(5)}
    done = walk(table(pictures(rows), val_fraction=0), "refine.threshold.value=auto")
    assert masks(done) == set("01234")


def test_an_automatic_threshold_needs_tags(pictures: Callable[..., Path], walk: Callable[..., Run]) -> None:
    root = pictures({f"{n}.jpg": "" for n in range(5)})
    (root / "classes.txt").write_text("background\ncow\n")
    with pytest.raises(RunError, match=r"no threshold can be chosen; set refine.threshold.value"):
        walk(table(root, val_fraction=0), "refine.threshold.value=auto")


SIZES = {"0.jpg": (1, 1), "1.jpg": (1, 90), "2.jpg": (33, 7), "3.jpg": (47, 49), "4.jpg": (3, 2), "6.jpg": (97, 31)}


def test_odd_sizes(pictures: Callable[..., Path], walk: Callable[..., Run]) -> None:
    """A 1x1 image, slivers, primes: in training, at several scales, predicted and evaluated."""
    root = pictures(ROWS, sizes=SIZES)
    done = walk(table(root, val_fraction=0.4), "localize.scales=[1.0, 0.5, 1.5]", "segment.scales=[0.5, 1.0]")
    assert problems(done) == {}
    for name, size in SIZES.items():
        stored = done.workspace.load_maps(name.removesuffix(".jpg"))
        assert stored.image_size == size
        assert stored.maps.shape[1:] == tuple(-(-side // 4) for side in size)
        assert load_mask(done.workspace.mask_path(name.removesuffix(".jpg"))).shape == size
    sizes = {SIZES.get(f"{path.stem}.jpg", (48, 48)): path for path in (done.path / "segment").glob("predictions/*")}
    assert all(load_mask(path).shape == size for size, path in sizes.items())
    assert sizes


def test_names_with_folders_accents_and_200_letters(pictures: Callable[..., Path], walk: Callable[..., Run]) -> None:
    long = "x" * 210
    names = ["été/kühe äöü.jpg", "日本/猫.jpg", f"{long}.jpg", "a b%2Fc#.jpg", "été/2.jpg", "deep/er/3.jpg"]
    done = walk(table(pictures(dict.fromkeys(names, "cow")), val_fraction=0))
    assert problems(done) == {}
    assert masks(done) == {artifact_name(name.removesuffix(".jpg")) for name in names}
    assert len({path.name for path in (done.path / "localize" / "maps").iterdir()}) == len(names)


def test_a_single_image(pictures: Callable[..., Path], walk: Callable[..., Run]) -> None:
    done = walk(table(pictures({"one.jpg": "cow"}), val_fraction=0))
    assert masks(done) == {"one"}
    assert (done.path / "segment" / "model.safetensors").exists()


def test_problems_of_the_data_source_are_listed_too(pictures: Callable[..., Path], walk: Callable[..., Run]) -> None:
    root = pictures(ROWS)
    with (root / "labels.csv").open("a") as stream:
        stream.write("missing.jpg,cow\n")
    done = walk(table(root, val_fraction=0), until="classify")
    lines = [json.loads(line) for line in (done.path / "problems.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines] == ["data"]
    assert "missing" in lines[0]["reason"]


def test_left_out_images_are_spoken_of(pictures: Callable[..., Path], walk: Callable[..., Run], spoil: Spoil) -> None:
    root, recorder = pictures(ROWS), ProgressRecorder()
    spoil(root / "images" / "2.jpg", "cut")
    walk(table(root, val_fraction=0), until="localize", progress=recorder)
    assert [text for text in recorder.warnings if "problems.jsonl" in text] == [
        "classify: 1 inputs were left out; problems.jsonl lists them",
        "localize: 1 inputs were left out; problems.jsonl lists them",
    ]


@pytest.mark.parametrize("everywhere", [True, False])
def test_one_image_whose_maps_are_not_finite_does_not_end_the_run(
    pictures: Callable[..., Path],
    weak: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    everywhere: bool,
) -> None:
    """What overflows in half precision alone is made again in float32."""
    root, bad, made = pictures(ROWS, sizes={"0.jpg": (44, 52)}), "0", localize.activation_maps

    def broken(model: Any, image: Any, *more: Any, **options: Any) -> Any:
        maps = made(model, image, *more, **options)
        overflows = everywhere or torch.is_autocast_enabled("cpu")
        return replace(maps, maps=maps.maps * np.nan) if overflows and image.shape[:2] == (44, 52) else maps

    monkeypatch.setattr(localize, "activation_maps", broken)
    recipe = {**weak, "data": table(root), "engine": {**weak["engine"], "precision": "bf16"}}
    done = run(recipe, output=tmp_path / "run")
    assert (bad in problems(done).get("localize", set())) == everywhere
    assert (done.path / "localize" / "maps" / f"{bad}.npz").exists() != everywhere
    assert done.metrics
