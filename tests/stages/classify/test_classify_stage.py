"""The classify stage: it learns, it measures, it says early what is not learnt, its seed decides everything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from progress_recorder import ProgressRecorder
from tagmask.models.classifier import build_classifier
from tagmask.ops.tags import multi_hot
from tagmask.runs.context import Context
from tagmask.stages.classify import stage
from tagmask.stages.classify.stage import TagTask, trained_classifier
from tagmask.stages.classify.tag_precision import tag_precision
from tagmask.storage.records import read_jsonl
from tagmask.storage.weights import read_description
from tagmask.types import IMAGENET, ClassList, DataSource, Problem, Sample

ContextOf = Callable[..., Context]
COLOURS = {1: (220, 40, 40), 2: (40, 220, 40), 3: (40, 40, 220)}


@pytest.fixture
def colours(tmp_path: Path) -> DataSource:
    """Images of one or two coloured halves; the colour is the tag."""
    rng = np.random.default_rng(0)

    def sample(split: str, number: int) -> Sample:
        tags = tuple(sorted({int(tag) for tag in rng.integers(1, 4, 2)}))
        pixels = np.zeros((32, 32, 3), np.uint8)
        pixels[:, :16], pixels[:, 16:] = COLOURS[tags[0]], COLOURS[tags[-1]]
        path = tmp_path / f"{split}{number}.png"
        Image.fromarray(pixels + rng.integers(0, 30, pixels.shape, dtype=np.uint8)).save(path)
        return Sample(f"{split}{number}", path, tags)

    splits = {"train": tuple(sample("t", n) for n in range(16)), "val": tuple(sample("v", n) for n in range(8))}
    return DataSource("test", ClassList(("background", "red", "green", "blue")), splits, "f")


@pytest.fixture
def quick(tiny: dict[str, Any]) -> dict[str, Any]:
    tiny["classify"].update(
        epochs=8,
        batch_size=8,
        augment={"crop": 32, "scale": [0.9, 1.0], "colour_jitter": 0.0},
        optimizer={"lr": 5e-3, "head_lr": 2e-2, "warmup_steps": 0},
    )
    return tiny


def test_tags_as_a_vector() -> None:
    assert multi_hot((1, 3), 4).tolist() == [1, 0, 1, 0]
    assert multi_hot((), 2).tolist() == [0, 0]


def test_it_learns_colours_and_tells_how_well(
    context_of: ContextOf, quick: dict[str, Any], colours: DataSource
) -> None:
    recorder = ProgressRecorder()
    context = context_of(quick, colours, progress=recorder)
    assert stage.run(context) == []
    history = read_jsonl(context.workspace.stage("classify") / "history.jsonl")
    last = [line for line in history if "val_ap" in line][-1]
    assert last["epoch"] == 8
    assert last["val_map"] > 0.95
    assert list(last["val_ap"]) == ["red", "green", "blue"]
    assert last["val_map"] == pytest.approx(sum(last["val_ap"].values()) / 3, abs=1e-5)
    assert last["train_map"] > 0.95
    assert list(last["train_ap"]) == ["red", "green", "blue"]
    assert [line["epoch"] for line in history if "train_map" in line] == [8]  # once: it tells of the whole training
    losses = [line["loss"] for line in history if "loss" in line]
    assert losses[-1] < 0.75 * losses[0]
    model = trained_classifier(context)
    assert not model.training
    description = read_description(context.workspace.stage("classify") / "model.safetensors")
    assert description["classes"] == ["background", "red", "green", "blue"]
    assert description["kind"] == "classifier"


def test_a_class_that_is_not_learnt_is_spoken_of_once(
    context_of: ContextOf, quick: dict[str, Any], colours: DataSource
) -> None:
    """Tags that have nothing to do with the images."""
    rng = np.random.default_rng(1)
    samples = tuple(replace(s, tags=(int(rng.integers(1, 4)),)) for s in colours.split("train"))
    recorder = ProgressRecorder()
    quick["classify"]["optimizer"] = {"lr": 1e-9, "head_lr": 1e-9}
    stage.run(context_of(quick, replace(colours, splits={**colours.splits, "train": samples}), progress=recorder))
    warnings = [text for text in recorder.warnings if "updates are few" not in text]
    assert warnings
    assert all("is not learnt half way (average precision" in text for text in warnings)
    assert len(set(warnings)) == len(warnings) <= 3


@pytest.mark.parametrize(
    ("epochs", "validations", "expected"), [(8, 4, [2, 4, 6, 8]), (3, 5, [1, 2, 3]), (5, 2, [2, 4, 5])]
)
def test_validations_are_spread_and_the_last_epoch_has_one(
    context_of: ContextOf,
    quick: dict[str, Any],
    colours: DataSource,
    epochs: int,
    validations: int,
    expected: list[int],
) -> None:
    quick["classify"].update(epochs=epochs, validations=validations)
    task = TagTask(context_of(quick, colours), build_classifier(context_of(quick, colours).recipe.classify, 3))
    assert [epoch for epoch in range(1, epochs + 1) if task.validate(epoch) is not None] == expected
    assert task.model.training


def test_average_precision_by_hand(context_of: ContextOf, quick: dict[str, Any], colours: DataSource) -> None:
    """Scores 4, 3, 2, 1 with the tag on the second and fourth: (1/2 + 2/4) / 2."""
    samples = tuple(
        replace(s, tags=tags) for s, tags in zip(colours.split("val"), [(1,), (2,), (1,), (2,)], strict=False)
    )
    context = context_of(quick, replace(colours, splits={"train": samples, "val": samples}))
    task = TagTask(context, build_classifier(context.recipe.classify, 3))
    order = iter([4.0, 3.0, 2.0, 1.0])

    class Fake(torch.nn.Module):
        input_statistics = IMAGENET

        def forward(self, view: torch.Tensor) -> Any:
            value = next(order)
            return type("Output", (), {"logits": torch.tensor([[value, value, value]])})

    task.model = Fake()  # type: ignore[assignment]
    figures = task.average_precision()
    assert figures is not None
    assert figures["val_ap"] == pytest.approx({"red": (1 + 2 / 3) / 2, "green": 0.5, "blue": None}, abs=1e-5)
    assert figures["val_map"] == pytest.approx(((1 + 2 / 3) / 2 + 0.5) / 2, abs=1e-5)
    assert figures["val_auc"] == {"red": 0.75, "green": 0.25, "blue": None}
    assert "val_auc_any" not in figures, "no image without a tag"


def test_tagged_images_are_told_from_the_others() -> None:
    scores = torch.tensor([[3.0, -2.0], [0.0, 1.0], [-1.0, 2.0], [-3.0, -1.0]])
    tags = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    figures = tag_precision(scores, tags, ("x", "y"), "val")
    assert figures is not None
    assert figures["val_auc"] == {"x": 1.0, "y": pytest.approx(2 / 3, abs=1e-6)}
    assert figures["val_auc_any"] == 0.75  # the highest scores 3 and 1 against 2 and -1


def test_no_validation_without_images_or_tags(
    context_of: ContextOf, quick: dict[str, Any], colours: DataSource, tmp_path: Path
) -> None:
    def figures(val: tuple[Sample, ...]) -> Any:
        context = context_of(quick, replace(colours, splits={**colours.splits, "val": val}))
        return TagTask(context, build_classifier(context.recipe.classify, 3)).average_precision()

    assert figures(()) is None
    assert figures(tuple(replace(s, tags=()) for s in colours.split("val"))) is None
    assert figures(tuple(replace(s, image_path=tmp_path / "none.png") for s in colours.split("val"))) is None


def test_training_images_are_ranked_in_their_own_right(
    context_of: ContextOf, quick: dict[str, Any], colours: DataSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without images held out, too; of many a fixed number is drawn, the same ones each time."""
    context = context_of(quick, replace(colours, splits={"train": colours.split("train")}))
    task = TagTask(context, build_classifier(context.recipe.classify, 3))
    assert task.validate(4) is None
    last = task.validate(8)
    assert last is not None
    assert set(last) == {"train_map", "train_ap", "train_auc"}
    assert task.model.training
    reads: list[str] = []
    load = task.loader.load
    monkeypatch.setattr(task.loader, "load", lambda sample: reads.append(sample.id) or load(sample))  # type: ignore[func-returns-value]
    monkeypatch.setattr(stage, "TRAIN_IMAGES", 5)
    assert task.average_precision("train") == task.average_precision("train")
    assert len(reads) == 10
    assert reads[:5] == reads[5:]
    assert len(set(reads)) == 5


def test_validation_leaves_the_training_as_it_was(
    context_of: ContextOf, quick: dict[str, Any], colours: DataSource, tmp_path: Path
) -> None:
    quick["classify"].update(epochs=2, validations=1)
    files = []
    for name, data in (("with", colours), ("without", replace(colours, splits={"train": colours.split("train")}))):
        context = context_of(quick, data, tmp_path / name)
        stage.run(context)
        files.append((context.workspace.stage("classify") / "model.safetensors").read_bytes())
    assert files[0] == files[1]


def test_items_are_views_and_tags_or_problems(
    context_of: ContextOf, quick: dict[str, Any], colours: DataSource
) -> None:
    context = context_of(quick, colours)
    data = TagTask(context, build_classifier(context.recipe.classify, 3)).dataset
    item = data.item(0, np.random.default_rng(0))
    assert isinstance(item, dict)
    assert item["image"].shape == (3, 32, 32)
    assert item["tags"].tolist() == multi_hot(colours.split("train")[0].tags, 3).tolist()
    colours.split("train")[1].image_path.write_bytes(b"")
    assert isinstance(data.item(1, np.random.default_rng(0)), Problem)
