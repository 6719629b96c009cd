"""Trainings that fit into a time."""

from __future__ import annotations

import pytest

from tagmask.data.source import TRAIN
from tagmask.pipeline import time_budget
from tagmask.pipeline.time_budget import OVERHEAD, Costs, fit, lengths, measure_costs
from tagmask.settings.recipe import Recipe
from tagmask.settings.training_length import TrainingLength, settle
from tagmask.types import ClassList, DataSource, Sample

COSTS = Costs({"classify": 1.0, "segment": 2.0}, images=30.0)


def training(name: str, images: int) -> TrainingLength:
    return settle(
        f"{name}.iterations", iterations="auto", epochs=1, batch_size=8, tagged=images, untagged=0, n_classes=5
    )


LONG = {name: training(name, 8000) for name in ("classify", "segment")}


def test_what_fits_is_left_as_it_is() -> None:
    updates = {name: length.updates for name, length in LONG.items()}
    assert (updates["classify"], updates["segment"]) == (12_000, 30_000)
    needed = OVERHEAD * (12_000 + 60_000 + 30)
    assert COSTS.seconds(updates) == pytest.approx(needed)
    budget = fit(needed + 1, COSTS, LONG)
    assert (budget.updates, budget.seconds) == (updates, pytest.approx(needed))


def test_what_does_not_fit_is_shortened_alike() -> None:
    seconds = OVERHEAD * (30 + 0.5 * 72_000)
    budget = fit(seconds, COSTS, LONG)
    assert budget.updates == {"classify": 6_000, "segment": 15_000}
    assert budget.seconds == pytest.approx(seconds)


def test_no_training_gets_shorter_than_is_advised() -> None:
    budget = fit(1.0, COSTS, LONG)
    assert budget.updates == {name: length.least for name, length in LONG.items()} == {"classify": 80, "segment": 250}
    assert budget.seconds > 1.0
    few = settle("classify.iterations", iterations=7, epochs=1, batch_size=8, tagged=9, untagged=0, n_classes=5)
    assert fit(1.0, COSTS, {"classify": few}).updates == {"classify": 7}


@pytest.mark.parametrize(("max_side", "side"), [("auto", 512), (640, 640), (None, 4000)])
def test_images_are_timed_at_their_working_size(
    monkeypatch: pytest.MonkeyPatch, max_side: int | str | None, side: int
) -> None:
    sides = []
    monkeypatch.setattr(time_budget, "_update_seconds", lambda *_: 1.0)
    monkeypatch.setattr(time_budget, "_forward_seconds", lambda engine, model, side: sides.append(side) or 1.0)
    recipe = Recipe.model_validate(
        {"name": "tiny", "data": {"name": "partsworld"}, "max_side": max_side, "segment": None}
    )
    source = DataSource("table", ClassList(("background", "a")), {TRAIN: ()}, fingerprint="")
    measure_costs(recipe, source, 4000)
    assert sides == [side]


def test_costs_are_those_of_the_networks_of_the_recipe() -> None:
    recipe = Recipe.model_validate(
        {
            "name": "tiny",
            "data": {"name": "partsworld"},
            "classify": {"batch_size": 2, "augment": {"crop": 32}},
            "localize": {"scales": [1.0]},
            "segment": {
                "batch_size": 2,
                "augment": {"crop": 32},
                "network": {"name": "deeplabv3plus", "encoder": "resnet10t"},
            },
            "engine": {"threads": 1, "device": "cpu", "precision": "float32"},
        }
    )
    sample = Sample(id="a", image_path="a.png", tags=(1,))  # type: ignore[arg-type]
    source = DataSource("table", ClassList(("background", "a")), {TRAIN: (sample,) * 4}, fingerprint="")
    assert {name: length.images for name, length in lengths(recipe, source).items()} == {"classify": 4, "segment": 4}
    costs = measure_costs(recipe, source, 64)
    assert costs.updates.keys() == {"classify", "segment"}
    assert min(*costs.updates.values(), costs.images) > 0
    without = measure_costs(recipe.model_copy(update={"segment": None}), source, 64)
    assert without.updates.keys() == {"classify"}
