"""tagmask data doubts: wrong tags of a small folder come first, in every form; features are made once."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tagmask
from progress_recorder import ProgressRecorder
from tagmask.backbones.build import BackboneSettings
from tagmask.errors import InputError
from tagmask.experiments.doubts import doubts

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stripes and noise, 12 images each; the tags of s03 are those of noise, and n05 has none."""
    root = tmp_path_factory.mktemp("shop")
    (root / "images").mkdir()
    rows = ["image,tags"]
    for number in range(12):
        rng = np.random.default_rng(number)
        stripes = (np.arange(64) // 8 % 2 * 200 + rng.integers(0, 40))[:, None, None] * np.ones((1, 64, 3))
        noise = rng.integers(0, 256, (64, 64, 3))
        for name, pixels in (("s", stripes), ("n", noise)):
            Image.fromarray(pixels.astype(np.uint8)).save(root / "images" / f"{name}{number:02}.png")
        rows += [f"s{number:02}.png,{'noise' if number == 3 else 'stripes'}"]
        rows += [f"n{number:02}.png,{'' if number == 5 else 'noise'}"]
    (root / "labels.csv").write_text("\n".join(rows))
    return root


def test_wrong_tags_come_first(command: Command, shop: Path) -> None:
    code, out, err = command("data", "doubts", shop, "--csv", "engine.threads=1")
    assert code == 0, err
    rows = list(csv.DictReader(io.StringIO(out)))
    assert list(rows[0]) == ["rank", "image", "split", "tag", "state", "doubt"]
    assert {row["image"] for row in rows if int(row["rank"]) <= 2} == {"s03", "n05"}
    of_swapped = {(row["tag"], row["state"]) for row in rows if row["image"] == "s03"}
    assert of_swapped == {("noise", "given"), ("stripes", "missing")}
    assert {(row["tag"], row["state"]) for row in rows if row["image"] == "n05"} == {("noise", "missing")}
    assert len({row["image"] for row in rows}) == 24, "every image has its place"
    firsts = [float(row["doubt"]) for n, row in enumerate(rows) if not n or rows[n - 1]["rank"] != row["rank"]]
    assert firsts == sorted(firsts, reverse=True)
    # The same in the other forms.
    code, out, _ = command("data", "doubts", shop, "--json", "engine.threads=1")
    assert [(r["image"], r["tag"], r["given"]) for r in json.loads(out)] == [
        (row["image"], row["tag"], row["state"] == "given") for row in rows
    ]
    code, out, _ = command("data", "doubts", "--images", shop / "images", "--tags", shop / "labels.csv", "--first", "2")
    assert code == 0
    assert "2 of 24 images" in out
    assert "s03" in out
    assert "n05" in out
    assert "s04" not in out


def test_a_run_keeps_its_features(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    recorder = ProgressRecorder()
    first = doubts(run, progress=recorder)
    assert (run / "doubts" / "features.npz").is_file()
    assert any("resnet10t starts from random weights" in line for line in recorder.lines)
    assert len(first.images) == 16
    assert {row.split for row in first.rows} == {"train", "val"}

    def not_again(self: BackboneSettings, **options: Any) -> Any:
        raise AssertionError

    with monkeypatch.context() as patch:
        patch.setattr(BackboneSettings, "build", not_again)
        assert doubts(run).rows == first.rows
    # A folder that cannot be written costs the features' time again, nothing else.
    sealed = Path(shutil.copytree(finished, tmp_path / "sealed"))
    (sealed / "doubts").write_text("no folder")
    assert doubts(sealed).rows == first.rows
    # Features of another backbone, or a broken file, are made anew.
    (run / "doubts" / "features.npz").write_bytes(b"torn")
    assert doubts(run).rows == first.rows
    assert tagmask.run(run).path == run, "the run does not mind the folder"


def test_an_unreadable_image_is_told_and_left_out(command: Command, shop: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(shop, tmp_path / "copy"))
    (copy / "images" / "s00.png").write_bytes(b"no image")
    code, out, err = command("data", "doubts", copy, "--csv", "engine.threads=1")
    assert code == 0
    assert "skipped" in err
    assert "s00.png" in err
    images = {row["image"] for row in csv.DictReader(io.StringIO(out))}
    assert "s00" not in images
    assert len(images) == 23


def test_what_is_no_run_or_has_no_images(tmp_path: Path, shop: Path) -> None:
    with pytest.raises(InputError, match="not a run directory"):
        doubts(tmp_path)
    copy = Path(shutil.copytree(shop, tmp_path / "copy"))
    for path in (copy / "images").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(InputError, match="at least two"):
        doubts({"data": {"format": "table", "root": str(copy)}})
