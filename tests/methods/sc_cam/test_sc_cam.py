"""SC-CAM: the head's losses by hand, the clusters of a training, resumed and over several classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from tagmask.errors import RecipeError
from tagmask.methods.sc_cam import preparation
from tagmask.methods.sc_cam.head import SubcategoryHead
from tagmask.methods.sc_cam.preparation import Subcategories
from tagmask.runs.context import Context
from tagmask.runs.trained import trained_classifier
from tagmask.settings.loading import load_recipe
from tagmask.stages.classify import stage
from tagmask.stages.classify.preparations import prepare
from tagmask.storage.records import read_json, read_jsonl, write_json
from tagmask.types import ClassList, DataSource, Problem, Sample

ContextOf = Callable[..., Context]


def subcategories(context: Context, stage: str, clusters: int, previous: Any) -> tuple[Any, list[Problem]]:
    """Sub-labels of every training image by id, and what fell short."""
    prepared = prepare(context, stage, [Subcategories(clusters)], previous)
    return prepared.extras["subcategories"], prepared.problems


def test_loss_is_the_classes_and_five_times_the_sub_categories() -> None:
    torch.manual_seed(0)
    head = SubcategoryHead(clusters=3).build(8, 4).train()
    features = torch.rand(2, 8, 3, 5)
    tags = torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 0]])
    fine = torch.zeros(2, 12)
    fine[0, [2, 9]] = 1
    logits, extras = head(features, tags)
    assert extras["subcategory_logits"].shape == (2, 12)
    terms = head.losses(logits, tags, {**extras, "subcategories": fine})
    pooled = features.mean((2, 3))
    parent = functional.multilabel_soft_margin_loss(pooled @ head.class_weights.T, tags)
    sub = functional.multilabel_soft_margin_loss(pooled @ head.subcategory_weights.T, fine)
    torch.testing.assert_close(terms["parent"], parent)
    torch.testing.assert_close(terms["subcategory"], sub)
    torch.testing.assert_close(terms["loss"], parent + 5 * sub)


def test_class_maps_and_logits_are_the_inner_head_s() -> None:
    head = SubcategoryHead().build(8, 4).eval()
    assert head.class_weights is not None
    torch.testing.assert_close(head.class_weights, head.inner.class_weights)
    logits, extras = head(torch.rand(1, 8, 2, 2))
    assert logits.shape == (1, 4)
    assert not extras
    assert head.subcategory_weights.shape == (40, 8)


def test_first_weights() -> None:
    def spread(init_std: Any) -> float:
        head = SubcategoryHead(init_std=init_std, inner={"name": "gap", "init_std": init_std})  # type: ignore[arg-type]
        module = head.build(512, 20)
        limits = [float(own.detach().abs().max()) for own in (module.subcategory_weights, module.class_weights)]
        return limits[0] / limits[1]

    assert spread("xavier") == pytest.approx(((512 + 20) / (512 + 200)) ** 0.5, rel=0.01)  # sqrt(6 / (in + out)) each
    assert spread(None) == pytest.approx(1, rel=0.01)


def test_without_sub_labels_the_error_says_where_to_name_it() -> None:
    head = SubcategoryHead().build(8, 4).train()
    logits, extras = head(torch.rand(1, 8, 2, 2))
    with pytest.raises(RecipeError, match="name this head in 'retrain'"):
        head.losses(logits, torch.zeros(1, 4), extras)


@pytest.mark.parametrize("head", ["subcategory", {"name": "visual_words", "inner": {"name": "subcategory"}}])
def test_not_in_the_first_training(tiny: dict[str, Any], head: Any) -> None:
    tiny["classify"]["head"] = head
    with pytest.raises(RecipeError, match=r"subcategory learns from subcategories.*'retrain'"):
        load_recipe(tiny)


def test_not_around_itself(tiny: dict[str, Any]) -> None:
    tiny["retrain"] = [{"head": {"name": "subcategory", "inner": "subcategory"}}]
    with pytest.raises(RecipeError, match="cannot go around another"):
        load_recipe(tiny)


@pytest.fixture
def shades(tmp_path: Path) -> DataSource:
    """Two classes in two shades each, class 3 in two images only, class 4 in none; one image has two tags."""
    rng = np.random.default_rng(0)
    kinds = {(1,): [(250, 0, 0), (90, 0, 0)], (2,): [(0, 250, 0), (0, 90, 0)], (3,): [(0, 0, 250)]}

    def sample(name: str, tags: tuple[int, ...], colour: tuple[int, int, int]) -> Sample:
        pixels = np.clip(np.array(colour) + rng.integers(0, 6, (32, 32, 3)), 0, 255).astype(np.uint8)
        path = tmp_path / f"{name}.png"
        Image.fromarray(pixels).save(path)
        return Sample(name, path, tags)

    train = [
        sample(f"c{tags[0]}s{shade}n{number}", tags, colour)
        for tags, colours in kinds.items()
        for shade, colour in enumerate(colours)
        for number in range(2 if tags == (3,) else 4)
    ]
    train.append(sample("both", (1, 2), (250, 250, 0)))
    names = ClassList(("background", "red", "green", "blue", "none"))
    return DataSource("test", names, {"train": tuple(train), "val": ()}, "f")


@pytest.fixture
def rounds(tiny: dict[str, Any]) -> dict[str, Any]:
    tiny["classify"].update(epochs=1, batch_size=6, augment={"crop": 32})
    tiny["retrain"] = [{"start": "weights", "head": {"name": "subcategory", "clusters": 3}}] * 2
    return tiny


def test_rounds_train_on_clusters_of_the_round_before(
    context_of: ContextOf, rounds: dict[str, Any], shades: DataSource
) -> None:
    context = context_of(rounds, shades)
    for name in ("classify", "classify/2", "classify/3"):
        problems = stage.run(context, name)
        folder = context.workspace.stage(name)
        assert (folder / "model.safetensors").exists()
        if name == "classify":
            assert not (folder / "subcategories.json").exists()
            continue
        assert {(problem.id, problem.stage, problem.left_out) for problem in problems} == {
            ("blue", name, False),
            ("none", name, False),
        }
        stored = read_json(folder / "subcategories.json")
        assert stored["clusters"] == 3
        assert set(stored["images"]) == {sample.id for sample in shades.split("train")}
        for sample in shades.split("train"):
            found = stored["images"][sample.id]
            assert [label // 3 for label in found] == [tag - 1 for tag in sample.tags]  # one of each of its classes
        assert "subcategory" in read_jsonl(folder / "history.jsonl")[0]
    model = trained_classifier(context)
    assert model.class_weights.shape[0] == 4
    assert model.head.subcategory_weights.shape[0] == 12


def test_shades_become_sub_categories(context_of: ContextOf, rounds: dict[str, Any], shades: DataSource) -> None:
    rounds["retrain"][0]["head"]["clusters"] = 2
    samples = tuple(sample for sample in shades.split("train") if sample.id != "both")
    context = context_of(rounds, replace(shades, splits={"train": samples, "val": ()}))
    stage.run(context)
    found, notes = subcategories(context, "classify/2", 2, trained_classifier(context, "classify"))
    assert [problem.id for problem in notes] == ["none"]
    for channel in (0, 1):
        shade = [{int(found[f"c{channel + 1}s{s}n{n}"].argmax()) for n in range(4)} for s in (0, 1)]
        assert [len(one) for one in shade] == [1, 1]
        assert shade[0] != shade[1]
        assert shade[0] | shade[1] == {2 * channel, 2 * channel + 1}
    assert {int(vector.sum()) for vector in found.values()} == {1}


def test_notes_name_class_and_counts(context_of: ContextOf, rounds: dict[str, Any], shades: DataSource) -> None:
    context = context_of(rounds, shades)
    stage.run(context)
    _, notes = subcategories(context, "classify/2", 3, trained_classifier(context, "classify"))
    reasons = {problem.id: problem.reason for problem in notes}
    assert reasons["blue"] == "training images: 2; sub-categories: 2 instead of 3"
    assert reasons["none"] == "no training image shows it, so it has no sub-categories"


def test_a_resumed_training_keeps_its_clusters_and_notes(
    context_of: ContextOf, rounds: dict[str, Any], shades: DataSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = context_of(rounds, shades)
    stage.run(context)
    first = stage.run(context, "classify/2")
    path = context.workspace.stage("classify/2") / "subcategories.json"
    stored = read_json(path)
    stored["images"]["both"] = [1, 5]
    write_json(path, stored)
    monkeypatch.setattr(preparation, "clusters_of", None)
    assert stage.run(context, "classify/2") == first
    found, _ = subcategories(context, "classify/2", 3, None)
    assert found["both"].tolist() == [0, 1, 0, 0, 0, 1] + [0] * 6


def test_an_image_that_cannot_be_read_has_no_sub_categories_and_is_listed_once(
    context_of: ContextOf, rounds: dict[str, Any], shades: DataSource
) -> None:
    shades.split("train")[0].image_path.write_bytes(b"")
    context = context_of(rounds, shades)
    stage.run(context)
    problems = stage.run(context, "classify/2")
    assert len([problem for problem in problems if problem.id == shades.split("train")[0].id]) <= 1
    found, _ = subcategories(context, "classify/2", 3, None)
    assert not found[shades.split("train")[0].id].any()
