"""Further trainings of the classifier: what a recipe says, what is carried over, what a change redoes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tagmask.errors import InputError, RunError
from tagmask.models.classifier import build_classifier
from tagmask.pipeline.execute import run, status
from tagmask.runs.workspace import Workspace
from tagmask.settings.classify import ClassifySettings
from tagmask.settings.loading import load_recipe
from tagmask.stages.classify.stage import TagTask, _carry_over, trained_classifier
from tagmask.storage.weights import load_tensors, save_tensors, save_weights


@pytest.fixture
def twice(tiny: dict[str, Any]) -> dict[str, Any]:
    """The tiny recipe up to pseudo masks, with a second training at another rate."""
    return {**tiny, "segment": None, "retrain": [{"epochs": 1, "optimizer": {"lr": 5e-3}}]}


def small(**changes: Any) -> ClassifySettings:
    arguments = {"channels": [8, 16, 24, 32], "stem_width": 8}
    return ClassifySettings.model_validate({"backbone_args": arguments, **changes})


def weights(folder: Path) -> Mapping[str, torch.Tensor]:
    return load_tensors(folder / "model.safetensors")


def test_what_a_retraining_leaves_open_is_as_in_classify(twice: dict[str, Any]) -> None:
    recipe = load_recipe(twice)
    first, (again,) = recipe.classify, recipe.retrain
    assert (again.epochs, again.optimizer.lr, again.start) == (1, 5e-3, "previous")
    assert (again.backbone_args, again.batch_size, again.augment) == (
        first.backbone_args,
        first.batch_size,
        first.augment,
    )
    assert list(recipe.trainings) == ["classify", "classify/2"]
    assert load_recipe(recipe.dump()) == recipe


def test_an_override_reaches_one_retraining(twice: dict[str, Any]) -> None:
    recipe = load_recipe(twice, ["retrain.0.epochs=7", "classify.batch_size=3"])
    assert recipe.retrain[0].epochs == 7
    assert recipe.classify.epochs == 2
    assert recipe.retrain[0].batch_size == 3


@pytest.mark.parametrize(
    ("retrain", "said"),
    [
        ([{"epoch": 3}], r"unknown key 'retrain.0.epoch'. Did you mean 'epochs'"),
        ({"epochs": 3}, "expected a list of mappings"),
        ([{"epochs": 0}], r"retrain.0.epochs: .*\(got 0\)"),
        ([{"head": "gapp"}], "unknown head 'gapp'. Did you mean 'gap'"),
    ],
)
def test_a_wrong_retraining_is_one_line(tiny: dict[str, Any], retrain: Any, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        load_recipe({**tiny, "retrain": retrain})
    assert "\n" not in str(caught.value)


def test_every_training_is_a_stage_of_its_own(twice: dict[str, Any], tmp_path: Path) -> None:
    first = run(twice, output=tmp_path / "run")
    folder = first.path / "classify"
    assert [row["stage"] for row in status(first.path)][:3] == ["classify", "classify/2", "localize"]
    before, after = weights(folder), weights(folder / "2")
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[key], after[key]) for key in before)
    description = json.loads((first.path / "manifest.json").read_text())["stages"]
    assert description["localize"]["upstream"].keys() == {"classify/2"}

    untouched = (folder / "model.safetensors").stat()
    run(first.path, overrides=["retrain.0.epochs=2"])
    reasons = {row["stage"]: row["reason"] for row in status(first.path)}
    assert reasons["classify/2"] == "changed: epochs 1 -> 2"
    assert reasons["localize"] == "changed: classify/2 was redone"
    assert (folder / "model.safetensors").stat().st_mtime_ns == untouched.st_mtime_ns

    reused = run(
        twice, output=tmp_path / "other", reuse=first.path, until="classify/2", overrides=["retrain.0.epochs=2"]
    )
    assert (reused.path / "classify" / "2" / "model.safetensors").samefile(folder / "2" / "model.safetensors")


def test_clearing_the_first_training_leaves_the_second(twice: dict[str, Any], tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    for stage in ("classify", "classify/2", "classify/10"):
        workspace.stage(stage).mkdir(parents=True, exist_ok=True)
        (workspace.stage(stage) / "model.safetensors").write_bytes(b"x")
    assert [workspace.count_files(stage) for stage in ("classify", "classify/2")] == [1, 1]
    workspace.clear("classify")
    assert [workspace.count_files(stage) for stage in ("classify", "classify/2", "classify/10")] == [0, 1, 1]


def test_carried_weights_learn_slowly_and_new_ones_fast(context_of: Any, twice: dict[str, Any], tmp_path: Path) -> None:
    context = context_of(twice)
    model = build_classifier(context.recipe.classify, 8)
    carried = {name for name, _ in model.named_parameters() if name != "head.weight.weight"}
    rates = {
        id(parameter): group["lr"]
        for group in TagTask(context, model, "classify/2", carried).parameter_groups()
        for parameter in group["params"]
    }
    assert rates[id(model.head.weight.weight)] == context.recipe.retrain[0].optimizer.head_lr
    others = {rate for name, p in model.named_parameters() if name in carried for rate in [rates[id(p)]]}
    assert others == {5e-3}


def test_a_schedule_may_be_longer_than_the_training(context_of: Any, twice: dict[str, Any]) -> None:
    """SC-CAM's rounds stop on the way of a schedule over 61 epochs."""
    twice["retrain"][0] |= {"epochs": 30, "schedule_epochs": 61}
    context = context_of(twice)
    model = build_classifier(context.recipe.classify, 8)
    first, second = (TagTask(context, model, stage) for stage in ("classify", "classify/2"))
    warm = context.recipe.retrain[0].optimizer.warmup_steps
    for epoch in (10, 29):
        assert second.rate(epoch * 100 + warm, 3000) == pytest.approx((1 - (epoch * 100 + warm) / 6100) ** 0.9)
    assert first.rate(3000, 3000) == 0 < second.rate(3000, 3000)


def test_a_head_of_another_size_starts_anew(tmp_path: Path) -> None:
    save_weights(tmp_path / "model.safetensors", build_classifier(small(), 4), {})
    model = build_classifier(small(), 5)
    first = model.head.weight.weight.clone()
    carried = _carry_over(tmp_path / "model.safetensors", model)
    assert "head.weight.weight" not in carried
    assert torch.equal(model.head.weight.weight, first)


def test_another_backbone_cannot_be_carried_over(tmp_path: Path) -> None:
    save_weights(tmp_path / "model.safetensors", build_classifier(small(), 4), {})
    other = build_classifier(small(backbone_args={"channels": [8, 16, 24, 40], "stem_width": 8}), 4)
    with pytest.raises(InputError, match="set start: weights"):
        _carry_over(tmp_path / "model.safetensors", other)


def test_weights_that_are_not_finite_are_named(context_of: Any, tiny: dict[str, Any], finished: Path) -> None:
    context = context_of(tiny)
    tensors = dict(weights(finished / "classify"))
    tensors["head.weight.weight"] = torch.full_like(tensors["head.weight.weight"], float("nan"))
    save_tensors(context.workspace.stage("classify") / "model.safetensors", tensors, {})
    with pytest.raises(RunError, match=r"head.weight.weight is not finite. Lower classify.optimizer.lr"):
        trained_classifier(context)
