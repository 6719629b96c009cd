"""A warm start: weights by name, rows by the names of classes; the file is told and part of the fingerprint."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from progress_recorder import ProgressRecorder
from tagmask import cli
from tagmask.errors import InputError, RecipeError
from tagmask.models.classifier import build_classifier
from tagmask.pipeline.execute import run
from tagmask.settings.loading import load_recipe
from tagmask.stages.classify.warm_start import start_from, take_over
from tagmask.storage.weights import load_tensors


def test_rows_by_name_by_hand() -> None:
    old, new = ["cow", "dog", "cat"], ["bird", "cat", "cow"]
    stored = {
        "backbone.w": torch.ones(3, 2),
        "head.classifier.weight": torch.tensor([[1.0, 1], [2, 2], [3, 3]]),
        "head.classifier.bias": torch.tensor([1.0, 2, 3]),
        "head.project": torch.full((5,), 7.0),
        "head.gone": torch.zeros(2),
    }
    state = {
        "backbone.w": torch.zeros(3, 2),
        "head.classifier.weight": torch.zeros(3, 2),
        "head.classifier.bias": torch.zeros(3),
        "head.project": torch.zeros(5),
        "head.other": torch.zeros(4),
    }
    values, taken = take_over(state, stored, old, new)
    assert values["head.classifier.weight"].tolist() == [[0, 0], [3, 3], [1, 1]]
    assert values["head.classifier.bias"].tolist() == [0, 3, 1]
    # A tensor of the backbone with as many rows as there are classes has no rows of classes.
    assert values["backbone.w"].tolist() == [[1, 1]] * 3
    assert values["head.project"].tolist() == [7] * 5
    assert values["head.other"].tolist() == [0] * 4
    assert taken.classes == ("cat", "cow")
    assert taken.tensors == {"backbone.w", "head.project"}
    assert not state["head.classifier.weight"].any(), "what is given stays as it is"


def test_other_numbers_of_classes_and_the_same_classes_in_another_order() -> None:
    stored = {"head.weight": torch.arange(6.0).reshape(3, 2)}
    values, taken = take_over({"head.weight": torch.zeros(2, 2)}, stored, ["a", "b", "c"], ["c", "a"])
    assert values["head.weight"].tolist() == [[4, 5], [0, 1]]
    assert taken.tensors == {"head.weight"}
    values, taken = take_over({"head.weight": torch.zeros(4, 2)}, stored, ["a", "b", "c"], ["x", "c", "y", "z"])
    assert values["head.weight"].tolist() == [[0, 0], [4, 5], [0, 0], [0, 0]]
    assert taken.tensors == frozenset()
    values, taken = take_over({"head.weight": torch.zeros(3, 2)}, stored, ["a", "b", "c"], ["a", "b", "c"])
    torch.testing.assert_close(values["head.weight"], stored["head.weight"])
    assert taken.classes == ("a", "b", "c")


def model_of(recipe: dict[str, Any], n_classes: int) -> Any:
    return build_classifier(load_recipe(recipe).classify, n_classes)


def test_a_file_of_the_same_backbone_is_put_into_the_model(finished: Path, tiny: dict[str, Any]) -> None:
    stored = load_tensors(finished / "classify" / "model.safetensors")
    n_classes = len(stored["head.classifier.weight"]) if "head.classifier.weight" in stored else 8
    names = load_recipe(tiny).data.open().classes.foreground
    assert len(names) == n_classes
    model = model_of(tiny, n_classes)
    taken, file = start_from(finished, model, names)
    assert file == finished / "classify" / "model.safetensors"
    assert taken.classes == names
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, stored[name])


def test_what_cannot_be_started_from(finished: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    model = model_of(tiny, 3)
    with pytest.raises(InputError, match=r"classify\.warm_start: .*nothing does not exist"):
        start_from(tmp_path / "nothing", model, "abc")
    with pytest.raises(InputError, match="not a run directory"):
        start_from(tmp_path, model, "abc")
    with pytest.raises(InputError, match="is a segmenter, no classifier"):
        start_from(finished / "segment" / "model.safetensors", model, "abc")
    untrained = Path(shutil.copytree(finished, tmp_path / "untrained"))
    (untrained / "classify" / "model.safetensors").unlink()
    with pytest.raises(InputError, match="has no trained classifier yet"):
        start_from(untrained, model, "abc")
    other = copy.deepcopy(tiny)
    other["classify"]["backbone_args"]["channels"] = [8, 16, 24, 40]
    with pytest.raises(InputError, match=r"its backbone is resnet10t, which is not this recipe's"):
        start_from(finished, model_of(other, 3), "abc")


def test_retrainings_start_from_the_training_before(tiny: dict[str, Any], finished: Path) -> None:
    tiny["classify"]["warm_start"] = str(finished)
    tiny["retrain"] = [{"epochs": 1}]
    recipe = load_recipe(tiny)
    assert recipe.classify.warm_start == finished
    assert recipe.retrain[0].warm_start is None
    assert load_recipe(recipe.dump()) == recipe
    tiny["retrain"] = [{"epochs": 1, "warm_start": str(finished)}]
    with pytest.raises(RecipeError, match=r"retrain\.0\.warm_start"):
        load_recipe(tiny)


def test_a_run_starts_warm_and_knows_its_start(
    finished: Path, tmp_path: Path, tiny: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = Path(shutil.copytree(finished, tmp_path / "earlier"))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(load_recipe(tiny, [f"classify.warm_start={earlier}", "classify.epochs=1"]).to_yaml())

    def walk(*overrides: str) -> ProgressRecorder:
        recorder = ProgressRecorder()
        run(recipe, output=tmp_path / "warm", progress=recorder, overrides=overrides, until="classify")
        return recorder

    with pytest.raises(SystemExit) as left:
        cli.main(["run", str(recipe), "--output", str(tmp_path / "warm"), "--until", "classify"])
    assert left.value.code == 0
    said = capsys.readouterr().err
    assert f"classify: starts from {earlier / 'classify' / 'model.safetensors'}" in said
    n_tensors = len(load_tensors(earlier / "classify" / "model.safetensors"))
    assert f"{n_tensors} of {n_tensors} tensors" in said
    assert walk().stages == {"classify": "up to date"}
    # Where it lies is not the point, and it may go once the training is done.
    moved = earlier.rename(tmp_path / "moved")
    assert walk(f"classify.warm_start={moved}").stages == {"classify": "up to date"}
    shutil.rmtree(moved)
    assert walk().stages == {"classify": "up to date"}
    cold = walk("classify.warm_start=null")
    assert cold.stages["classify"].startswith("changed: warm_start sha256")
    with pytest.raises(InputError, match="does not exist"):
        run(recipe, output=tmp_path / "new", until="classify")


def test_a_warm_start_is_not_a_cold_one(finished: Path, tmp_path: Path, tiny: dict[str, Any]) -> None:
    """With hardly any learning rate what is left is the start."""
    tiny["classify"].update(epochs=1, optimizer={"lr": 1e-12, "head_lr": 1e-12, "weight_decay": 0.0})
    tiny["classify"]["batch_norm"] = "eval"
    tiny["classify"]["warm_start"] = str(finished)
    run(tiny, output=tmp_path / "warm", until="classify")
    warm = load_tensors(tmp_path / "warm" / "classify" / "model.safetensors")
    start = load_tensors(finished / "classify" / "model.safetensors")
    assert warm.keys() == start.keys()
    for name, value in start.items():
        torch.testing.assert_close(warm[name], value, atol=1e-5, rtol=1e-5)
