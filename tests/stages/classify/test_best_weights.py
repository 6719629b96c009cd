"""``keep: best``: the weights of the best validation, in the same bits after a kill; off by default."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tagmask.errors import InputError
from tagmask.runs.context import Context
from tagmask.stages.classify import stage
from tagmask.stages.classify.best_weights import BestWeights
from tagmask.stages.classify.stage import TagTask
from tagmask.storage.records import read_jsonl
from tagmask.storage.weights import load_tensors
from tagmask.types import ClassList, DataSource, Sample

ContextOf = Callable[..., Context]
SCORES = {1: 0.5, 2: 0.9, 3: 0.7, 4: 0.9}  # the best twice: the first counts


@pytest.fixture
def noise(tmp_path: Path) -> DataSource:
    rng = np.random.default_rng(0)

    def sample(name: str) -> Sample:
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
        return Sample(name, tmp_path / f"{name}.png", (int(rng.integers(1, 3)),))

    splits = {split: tuple(sample(f"{split}{n}") for n in range(8)) for split in ("train", "val")}
    return DataSource("test", ClassList(("background", "x", "y")), splits, "f")


@pytest.fixture
def quick(tiny: dict[str, Any]) -> dict[str, Any]:
    tiny["classify"].update(
        epochs=4, batch_size=4, validations=4, keep="best", augment={"crop": 32}, optimizer={"lr": 1e-2}
    )
    tiny["engine"]["checkpoint_overhead"] = 1.0  # after every step
    return tiny


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> dict[int, dict[str, torch.Tensor]]:
    """The weights at each validation, whose scores are those of SCORES."""
    weights: dict[int, dict[str, torch.Tensor]] = {}
    epochs: list[int] = []
    validate = TagTask.validate

    def at(task: TagTask, epoch: int) -> Any:
        epochs.append(epoch)
        weights[epoch] = {key: value.clone() for key, value in task.model.state_dict().items()}
        return validate(task, epoch)

    def score(task: TagTask, split: str = "val") -> Any:
        return {f"{split}_map": SCORES[epochs[-1]], f"{split}_ap": {"x": SCORES[epochs[-1]]}}

    monkeypatch.setattr(TagTask, "validate", at)
    monkeypatch.setattr(TagTask, "average_precision", score)
    return weights


def trained(context: Context) -> dict[str, torch.Tensor]:
    stage.run(context)
    assert not (context.workspace.stage("classify") / "best.safetensors").exists()
    return load_tensors(context.workspace.model_path("classify"))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def test_the_first_best_is_kept_and_told(
    context_of: ContextOf, quick: dict[str, Any], noise: DataSource, weights: dict[int, dict[str, torch.Tensor]]
) -> None:
    context = context_of(quick, noise)
    result = trained(context)
    assert same(result, weights[2])
    assert not same(weights[2], weights[4])
    lines = [line for line in read_jsonl(context.workspace.stage("classify") / "history.jsonl") if "val_map" in line]
    assert [line.get("best_epoch") for line in lines] == [None, None, None, 2]


def test_the_last_is_kept_by_default(
    context_of: ContextOf, quick: dict[str, Any], noise: DataSource, weights: dict[int, dict[str, torch.Tensor]]
) -> None:
    del quick["classify"]["keep"]
    assert same(trained(context_of(quick, noise)), weights[4])


@pytest.mark.parametrize("step", [3, 4, 5, 7])
def test_a_killed_training_ends_in_the_same_bits(
    context_of: ContextOf,
    quick: dict[str, Any],
    noise: DataSource,
    weights: dict[int, dict[str, torch.Tensor]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    step: int,
) -> None:
    """Two updates an epoch, four epochs; the training is killed at a step of the second, third or last."""
    whole = trained(context_of(quick, noise, tmp_path / "whole"))
    losses, steps = TagTask.losses, iter(range(step))

    def killed(task: TagTask, model: nn.Module, batch: Any) -> Any:
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return losses(task, model, batch)

    with monkeypatch.context() as patch:
        patch.setattr(TagTask, "losses", killed)
        with pytest.raises(KeyboardInterrupt):
            stage.run(context_of(quick, noise, tmp_path / "killed"))
    assert (tmp_path / "killed" / "classify" / "state.ckpt").exists()
    assert same(trained(context_of(quick, noise, tmp_path / "killed")), whole)


def test_a_file_ahead_of_the_checkpoint_changes_nothing(
    context_of: ContextOf, quick: dict[str, Any], noise: DataSource, tmp_path: Path
) -> None:
    """Killed between the two files: the training comes by the same validation again."""
    engine = context_of(quick, noise).engine
    best, model = BestWeights(tmp_path / "best.safetensors", engine), nn.Linear(2, 1)
    assert best.restore(model) is None
    best.offer(model, 0.9, 3)
    first = model.weight.detach().clone()
    for score, epoch in ((0.5, 2), (0.9, 3), (0.9, 4)):
        nn.init.constant_(model.weight, epoch)
        best.offer(model, score, epoch)
    assert best.restore(model) == 3
    assert torch.equal(model.weight, first)
    best.drop()
    best.drop()
    assert best.restore(model) is None


def test_images_must_be_held_out(context_of: ContextOf, quick: dict[str, Any], noise: DataSource) -> None:
    alone = replace(noise, splits={"train": noise.split("train")})
    with pytest.raises(
        InputError, match=r"classify: keep: best needs images that are held out; set data\.val_fraction"
    ):
        stage.run(context_of(quick, alone))
