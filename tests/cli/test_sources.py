"""A run from images and tags alone: as a folder, as a table, or by options; and what follows from the data."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tagmask import cli
from tagmask.cli.recipes import shipped
from tagmask.cli.sources import find_start
from tagmask.pipeline import time_budget
from tagmask.settings.loading import load_recipe

QUICK = ("engine.threads=1", "classify.epochs=1", "classify.batch_size=4", "classify.augment.crop=64")
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def tagmask(capsys: pytest.CaptureFixture[str]) -> Call:
    def call(*arguments: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            cli.main([str(argument) for argument in arguments])
        return (int(left.value.code or 0), *capsys.readouterr())

    return call


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Ten images of 48x40 pixels with a bright square, nine of them red; ``tags.csv`` beside the folder of images."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "my shop" / "images"
    folder.mkdir(parents=True)
    lines = ["image,tags"]
    for number in range(10):
        pixels = rng.integers(0, 90, (40, 48, 3), dtype=np.uint8)
        pixels[8:32, 10:34, number == 9] = 250
        Image.fromarray(pixels).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{'green' if number == 9 else 'red'}")
    (folder.parent / "tags.csv").write_text("\n".join(lines) + "\n")
    return folder.parent


def test_images_and_a_table_are_run_and_the_run_goes_on(tagmask: Call, shop: Path, tmp_path: Path) -> None:
    table = (shop / "tags.csv").rename(tmp_path / "elsewhere.csv")
    out = tmp_path / "run"
    code, _, said = tagmask(
        "run", "--images", shop / "images", "--tags", table, *QUICK, "--until", "classify", "--output", out
    )
    assert code == 0, said
    assert "recipe own: " in said
    assert "classify: new" in said
    recipe = load_recipe(out / "recipe.yaml")
    assert recipe.name == "images"
    assert recipe.classify.epochs == 1
    code, _, said = tagmask("run", out, "--until", "classify")
    assert code == 0, said
    assert "classify: up to date" in said
    assert "recipe own" not in said


def test_every_way_to_name_the_data_reads_the_same(shop: Path) -> None:
    ways = [
        find_start(str(shop)),
        find_start(str(shop / "tags.csv")),
        find_start(str(shop / "images"), tags=shop / "tags.csv"),
        find_start(str(shop / "tags.csv"), images=shop / "images"),
        find_start(None, images=shop / "images", tags=shop / "tags.csv"),
        find_start("classify.epochs=3", images=shop / "images", tags=shop / "tags.csv"),
    ]
    sources = [load_recipe(way.recipe, way.overrides).data.open() for way in ways]
    splits = [{split: [sample.id for sample in rows] for split, rows in source.splits.items()} for source in sources]
    ids = [{split: [name.removeprefix("images/") for name in rows] for split, rows in part.items()} for part in splits]
    assert ids == [ids[0]] * len(ways)
    assert {way.recipe for way in ways} == {shipped()["own"]}
    assert load_recipe(ways[0].recipe, ways[0].overrides).name == "my-shop"
    assert load_recipe(ways[-1].recipe, ways[-1].overrides).classify.epochs == 3


def test_a_recipe_takes_the_data_of_the_options(shop: Path) -> None:
    start = find_start("demo", ["seed=2"], images=shop / "images", tags=shop / "tags.csv")
    recipe = load_recipe(start.recipe, start.overrides)
    assert (recipe.name, recipe.seed, recipe.data.open().format) == ("demo", 2, "table")
    assert start.suggestions == ()


def test_a_suggestion_is_a_recipe_that_runs_the_same(tagmask: Call, shop: Path, tmp_path: Path) -> None:
    code, text, said = tagmask("suggest", shop, "engine.threads=1")
    assert code == 0, said
    mine = tmp_path / "mine.yaml"
    mine.write_text(text, encoding="utf-8")
    start = find_start(str(shop), ["engine.threads=1"])
    assert load_recipe(mine) == load_recipe(start.recipe, start.overrides)
    lines = dict(line.strip().split("  # ") for line in text.splitlines() if "  # " in line)
    for item in start.suggestions:
        assert item.reason in lines.values() or item.value is None
    (few,) = [item for item in start.suggestions if item.key == "classify.iterations"]
    assert f"iterations: auto  # {few.reason}" in text
    assert "8 images" in few.reason


def test_a_suggestion_fits_the_time_there_is(
    tagmask: Call, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = time_budget.Costs({"classify": 1.0, "segment": 1.0}, images=0.0)
    monkeypatch.setattr(time_budget, "measure_costs", lambda *_: costs)
    code, text, said = tagmask("suggest", shop, "classify.iterations=400", "--minutes", "5")
    assert code == 0, said
    mine = tmp_path / "mine.yaml"
    mine.write_text(text, encoding="utf-8")
    recipe = load_recipe(mine)
    assert recipe.segment is not None
    assert 68 < int(recipe.classify.iterations or 0) < 400
    assert recipe.segment.iterations == 220
    assert "shortened from 400; 1 s each on this machine" in text
    assert "iterations: 220  # not shortened" in text
    assert (
        "takes about 5.8 min although trainings are as short as is advised"
        in tagmask("suggest", shop, "--minutes", "0.1")[1]
    )


def test_what_the_user_sets_is_not_decided_by_a_rule(shop: Path) -> None:
    assert "classify.iterations" in {item.key for item in find_start(str(shop)).suggestions}
    for change in ("classify.iterations=3", "classify={backbone: resnet10t}"):
        start = find_start(str(shop), [change])
        assert "classify.iterations" not in {item.key for item in start.suggestions}
    assert load_recipe(start.recipe, start.overrides).classify.backbone == "resnet10t"
    change = "segment.preset=deeplabv2-voc"
    preset = find_start(str(shop), [change])
    assert not [item for item in preset.suggestions if item.key.startswith("segment.")]
    published = load_recipe(shipped()["own"], [f"data.root={shop}", change])
    assert load_recipe(preset.recipe, preset.overrides).segment == published.segment


def test_data_is_checked_as_it_would_be_run(tagmask: Call, shop: Path) -> None:
    folder, table = (
        tagmask("data", "check", shop),
        tagmask("data", "check", "--images", shop / "images", "--tags", shop / "tags.csv"),
    )
    assert folder[0] == table[0] == 0
    assert "8 train, 2 val" in folder[1]
    assert folder[1] == table[1]


def test_errors_are_one_line_with_the_command_that_helps(
    tagmask: Call, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / "bare"
    (shop / "images").rename(bare)
    (bare / "a").mkdir()
    runs = tmp_path / "runs"
    (runs / "first").mkdir(parents=True)
    (runs / "first" / "manifest.json").write_text("{}")
    table = shop / "tags.csv"
    cases: list[tuple[tuple[str | Path, ...], str]] = [
        (("run",), "tagmask run --images DIR --tags FILE"),
        (("run", "--tags", table), f"tagmask run --images DIR --tags {table}"),
        (("run", "--images", tmp_path / "none", "--tags", table), "does not exist"),
        (("run", "--images", bare, "--tags", tmp_path / "none.csv"), "does not exist"),
        (("run", bare, "--images", bare, "--tags", table), "Leave one of them out"),
        (("run", bare), f"tagmask run --images {bare} --tags FILE"),
        (("run", runs), f"tagmask run {runs / 'first'}"),
        (("run", tmp_path / "none.csv"), "does not exist"),
        (("suggest", "demo"), "tagmask recipe show demo"),
        (("run", "--images", bare, "--tags", table, "--output", bare / "run"), "--output"),
    ]
    for arguments, help_ in cases:
        code, _, said = tagmask(*arguments)
        assert code == 2, arguments
        assert help_ in said
        assert len(said.splitlines()) == 1, said
    monkeypatch.chdir(bare)
    code, _, said = tagmask("run", ".", "--tags", table)
    assert code == 2
    assert f"Add --output {os.path.join('..', 'runs', 'bare')}" in said
    assert not (bare / "runs").exists()
