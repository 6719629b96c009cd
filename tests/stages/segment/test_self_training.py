"""Rounds of self-training: labels kept to the tags, stages of their own, resumed to the same result."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tagmask
from tagmask.errors import InputError, RecipeError
from tagmask.functional import constrain_to_tags
from tagmask.models.labels_within_tags import labels_within_tags
from tagmask.pipeline.execute import run, status
from tagmask.runs.stage_names import is_stage
from tagmask.runs.workspace import Workspace
from tagmask.settings.loading import load_recipe
from tagmask.stages.segment.guides import weights_reader
from tagmask.storage.pictures import load_mask, save_grey


def probabilities(seed: int, c: int = 5, h: int = 6, w: int = 7) -> torch.Tensor:
    return torch.randn(c, h, w, generator=torch.Generator().manual_seed(seed)).softmax(0)


def picture(h: int = 6, w: int = 7) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (h, w, 3), dtype=np.uint8)


# -- tags --------------------------------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.sets(st.integers(1, 4)))
def test_other_classes_get_nothing(seed: int, tags: set[int]) -> None:
    given_to = probabilities(seed)
    kept = constrain_to_tags(given_to, sorted(tags))
    torch.testing.assert_close(kept.sum(0), torch.ones(6, 7))
    allowed = [0, *sorted(tags)]
    assert not kept[[label for label in range(5) if label not in allowed]].any()
    torch.testing.assert_close(kept[allowed], given_to[allowed] / given_to[allowed].sum(0))


def test_where_no_allowed_class_is_likely_it_is_background() -> None:
    only = torch.zeros(3, 1, 2)
    only[2] = 1
    assert constrain_to_tags(only, [1]).tolist() == [[[1, 1]], [[0, 0]], [[0, 0]]]


@pytest.mark.parametrize("crf", [None, "deeplab"])
@given(st.integers(0, 100), st.sets(st.integers(1, 4)))
def test_labels_are_those_of_the_tags(crf: str | None, seed: int, tags: set[int]) -> None:
    labels, margin = labels_within_tags(picture(), probabilities(seed), sorted(tags), crf=crf)
    assert set(np.unique(labels)) <= {0, *tags}
    assert labels.dtype == np.uint8
    assert margin.shape == (6, 7)
    sure, _ = labels_within_tags(picture(), probabilities(seed), sorted(tags), crf=crf, ignore=0.5)
    assert ((sure == 255) == (margin < 0.5).numpy()).all()
    assert (sure[sure != 255] == labels[sure != 255]).all()


def test_the_crf_moves_outlines_to_edges() -> None:
    """A step in the image at column 8; the network's step stands at 6."""
    image = np.full((16, 16, 3), 30, np.uint8)
    image[:, 8:] = 220
    soft = torch.full((2, 16, 16), 0.45)
    soft[1, :, 6:] = 0.55
    soft[0, :, :6] = 0.55
    soft[1, :, 9:] = 0.95
    soft[0, :, 9:] = 0.05
    soft[0, :, :5], soft[1, :, :5] = 0.95, 0.05
    labels, _ = labels_within_tags(image, soft, [1], crf="psa")
    assert (labels[:, 8:] == 1).all()
    assert (labels[:, :8] == 0).all()


# -- rounds ------------------------------------------------------------------------------------------------


@pytest.fixture
def rounds(tiny: dict[str, Any]) -> dict[str, Any]:
    tiny["segment"].update(supervision="weak", rounds=2, epochs=1)
    return tiny


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, finished: Path) -> Path:
    overrides = ["segment.supervision=weak", "segment.rounds=2", "segment.epochs=1"]
    recipe = load_recipe(finished / "recipe.yaml", overrides)
    return run(recipe, output=tmp_path_factory.mktemp("rounds") / "run", reuse=finished).path


def test_every_round_is_a_stage_with_its_labels(done: Path) -> None:
    rows = [row["stage"] for row in status(done)]
    assert rows == ["classify", "localize", "refine", "segment", "segment/2", "evaluate"]
    workspace = Workspace(done)
    for kind in ("masks", "margins", "predictions"):
        names = {path.stem for path in (done / "segment" / "2" / kind).iterdir()}
        assert names == {f"val_{n:05}" for n in range(4)} if kind == "predictions" else len(names) == 12
    assert not (done / "segment" / "masks").exists()
    tags = {sample.id: sample.tags for sample in load_recipe(done / "recipe.yaml").data.open().split("train")}
    for name, allowed in tags.items():
        assert set(np.unique(load_mask(workspace.mask_path(name, "segment/2")))) <= {0, *allowed}
    splits = json.loads((done / "metrics.json").read_text())["splits"]
    assert {"pseudo_masks", "pseudo_masks_2"} <= splits["train"].keys()
    assert {"segmentation", "segmentation_1"} <= splits["val"].keys()


def test_the_last_round_is_what_predicts(done: Path, tmp_path: Path) -> None:
    assert Workspace(done).result_stage() == "segment/2"
    image = picture(48, 48)
    last = tagmask.load(done / "segment" / "2" / "model.safetensors", device="cpu")(image).probabilities
    np.testing.assert_array_equal(tagmask.load(done, device="cpu")(image).probabilities, last)
    copy = Path(shutil.copytree(done, tmp_path / "run"))
    again = run(copy, overrides=["segment.rounds=1"])
    first = tagmask.load(done / "segment" / "model.safetensors", device="cpu")(image).probabilities
    np.testing.assert_array_equal(tagmask.load(copy, device="cpu")(image).probabilities, first)
    assert "pseudo_masks_2" not in again.metrics["splits"]["train"]
    reasons = {row["stage"]: row["reason"] for row in status(copy)}
    assert "changed" not in str(reasons["segment"])


def test_a_round_more_keeps_those_before(done: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(done, tmp_path / "run"))
    before = (copy / "segment" / "2" / "model.safetensors").stat().st_mtime_ns
    run(copy, overrides=["segment.rounds=3"], until="segment/3")
    assert (copy / "segment" / "2" / "model.safetensors").stat().st_mtime_ns == before
    assert (copy / "segment" / "3" / "model.safetensors").exists()
    run(copy, overrides=["segment.relabel.crf=null"], until="segment/2")
    reasons = {row["stage"]: row["reason"] for row in status(copy)}
    assert reasons["segment/2"] == "changed: relabel.crf deeplab -> None"


def test_a_round_goes_on_after_a_loss_of_files(done: Path, tmp_path: Path) -> None:
    """Labels that are gone are made again, the same; a network that is there is not trained again."""
    copy = Path(shutil.copytree(done, tmp_path / "run"))
    lost = [next((copy / "segment" / "2" / kind).iterdir()) for kind in ("masks", "margins")]
    model = (copy / "segment" / "2" / "model.safetensors").stat().st_mtime_ns
    for path in lost:
        path.unlink()
    run(copy)
    for path in lost:
        assert path.read_bytes() == (done / path.relative_to(copy)).read_bytes()
    assert (copy / "segment" / "2" / "model.safetensors").stat().st_mtime_ns == model
    assert {row["status"] for row in status(copy)} == {"done"}


def test_confidence_weighs_every_round(
    rounds: dict[str, Any], done: Path, tmp_path: Path, context_of: Callable[..., Any]
) -> None:
    rounds["segment"]["confidence"] = {"width": 0.5, "floor": 0.1}
    weighted = run(rounds, output=tmp_path / "run", reuse=done, until="segment")
    name = "segment/model.safetensors"
    assert (weighted.path / name).read_bytes() != (done / name).read_bytes()
    context = context_of(rounds, root=tmp_path / "other")
    sample, workspace = context.samples("train")[0], context.workspace
    save_grey(workspace.grey_path(sample.id, "segment/2", "margins"), np.asarray([[0, 0.2, 0.6]]))
    weights = weights_reader(context, context.recipe.segment.confidence, "segment/2")(sample)
    np.testing.assert_allclose(weights, [[0.1, 0.46, 1.0]], atol=1e-6)


def test_round_folders_are_stages() -> None:
    assert is_stage("segment", "2")
    assert not is_stage("segment", "predictions")
    assert not is_stage("refine", "2")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("segment.rounds=0", "rounds"),
        ("segment.relabel.crff=psa", "Did you mean 'crf'"),
        ("segment.confidence.width=0", "width"),
    ],
)
def test_wrong_settings_are_one_line(rounds: dict[str, Any], override: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said) as raised:
        load_recipe(rounds, [override])
    assert "\n" not in str(raised.value)


def test_a_round_that_is_not_there_is_said(rounds: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such stage, only classify"):
        run(rounds, output=tmp_path / "run", until="segment/3")
