"""Files that a recipe names are asked for before the first stage, and no longer once their stage is done."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import yaml
from PIL import Image

from tagmask.errors import InputError, MissingFilesError
from tagmask.pipeline.execute import run
from tagmask.storage.records import read_json

Command = Callable[..., tuple[int, str, str]]


def test_a_file_of_a_late_stage_is_asked_for_before_the_first(tiny: dict[str, Any], tmp_path: Path) -> None:
    weights = tmp_path / "encoder.safetensors"
    tiny["segment"]["network"] |= {"weights": str(weights)}
    tiny["refine"] = [{"name": "irnet", "backbone": {"backbone": "resnet10t", "weights": str(weights)}}, "threshold"]
    tiny["evaluate"] |= {"full_run": str(tmp_path / "full")}
    with pytest.raises(MissingFilesError) as raised:
        run(tiny, output=tmp_path / "run")
    assert raised.value.lines == (
        f"refine[0].backbone.weights: {weights} does not exist. Put the weights there, or name others: "
        "refine[0].backbone.weights=FILE ('timm': published ones, null: none).",
        f"evaluate.full_run: {tmp_path / 'full'} does not exist. Name a run with full supervision, or leave it out: "
        "evaluate.full_run=null.",
    )
    assert not (tmp_path / "run" / "manifest.json").exists()
    assert run(tiny, output=tmp_path / "run", until="classify").path.is_dir()  # which needs none of them


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"refine": [{"name": "irnet", "backbone": {"backbone": "resnet18", "weights": "installed"}}, "threshold"]}, 0),
        ({"retrain": [{"backbone": "resnet18", "weights": "installed", "start": "weights"}]}, 1),
        ({"segment": {"network": {"name": "deeplabv3plus", "encoder": "resnet18", "weights": "installed"}}}, 2),
    ],
)
def test_weights_of_packages_are_asked_for_too(
    tiny: dict[str, Any], tmp_path: Path, changes: dict[str, Any], said: int
) -> None:
    keys = ("refine[0].backbone", "retrain[0].backbone", "segment.network.weights")
    with pytest.raises(InputError) as raised:
        run({**tiny, **changes}, output=tmp_path / "run")
    assert str(raised.value).startswith(f"{keys[said]}=installed: no package has weights of resnet18")
    assert not (tmp_path / "run" / "classify").exists()


def test_once_a_stage_is_done_its_files_may_go(copied: Path, tmp_path: Path) -> None:
    recipe = yaml.safe_load((copied / "recipe.yaml").read_text())
    full = tmp_path / "full"
    full.mkdir()
    (full / "metrics.json").write_text((copied / "metrics.json").read_text())
    recipe["evaluate"]["full_run"] = str(full)
    run(recipe, output=copied)
    (full / "metrics.json").unlink()
    full.rmdir()
    run(copied)  # nothing to do
    with pytest.raises(MissingFilesError, match="full_run"):
        run(copied, overrides=["evaluate.thresholds=10"])


def test_missing_data_is_told_with_all_other_missing_files(tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny["data"] = {"format": "folders", "root": str(tmp_path / "gone")}
    tiny["classify"]["weights"] = str(tmp_path / "w.safetensors")
    with pytest.raises(MissingFilesError) as raised:
        run(tiny, output=tmp_path / "run")
    assert [line.split(":")[0] for line in raised.value.lines] == ["data.root", "classify.weights"]


def voc(root: Path, lists: dict[str, list[str]]) -> Path:
    """VOC's layout with noise in 48 x 48 pixels, odd images with a cow and the others with a dog."""
    base = root / "VOC2012"
    for folder in ("JPEGImages", "Annotations", "ImageSets/Segmentation"):
        (base / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, name in enumerate(dict.fromkeys(name for names in lists.values() for name in names)):
        Image.fromarray(rng.integers(0, 255, (48, 48, 3), dtype=np.uint8)).save(base / "JPEGImages" / f"{name}.jpg")
        kind = "cow" if number % 2 else "dog"
        (base / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><object><name>{kind}</name></object></annotation>"
        )
    for split, names in lists.items():
        (base / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    return root


def test_lpcam_as_published_with_the_data_elsewhere(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command of the page, made small: it failed behind the classifier's training. Names may hold blanks."""
    few = [f"photo {number}" for number in range(4)]
    data = voc(tmp_path / "far", {"train": few, "train_aug": [*few, "more 1", "more 2"], "val": ["last one"]})
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    small = (
        "classify.backbone=resnet10t", "classify.weights=null", "classify.epochs=1", "classify.batch_size=2",
        "classify.augment.crop=48", "localize.clusters=2", "localize.scales=[1.0]", "localize.tau=0.0",
        "segment=null", "engine.device=cpu", "engine.threads=1",
    )  # fmt: skip
    code, _, err = command("run", "voc12/lpcam", "data.root=../far", *small, "--until", "localize", "--plain")
    assert code == 0, err
    made = tmp_path / "work" / "runs" / "voc12-lpcam" / "localize"
    assert {unquote(path.stem) for path in (made / "maps").iterdir()} == {*few, "more 1", "more 2", "last one"}
    shown = {patch["id"] for group in read_json(made / "lpcam.json")["groups"] for patch in group["patches"]}
    assert shown
    assert shown <= set(few)
    (data / "VOC2012/ImageSets/Segmentation/train.txt").unlink()
    code, _, err = command("run", "voc12/lpcam", "data.root=../far", *small, "--output", "again")
    assert code == 2
    train = data / "VOC2012/ImageSets/Segmentation/train.txt"
    assert err.startswith(f"error: localize.study_list: {train} does not exist. Names start from data.root")
    assert not Path("again/classify").exists()
    stages = json.loads((made.parent / "manifest.json").read_text())["stages"]
    assert [stages[name]["status"] for name in ("classify", "localize")] == ["done", "done"]
