"""The lengths that a recipe will have are those that its trainings settle on."""

from __future__ import annotations

from typing import Any

import pytest

from tagmask.pipeline.recipe_lengths import recipe_lengths
from tagmask.settings.loading import load_recipe
from tagmask.settings.training_length import TRAINING_LENGTH, TrainingLength, settle, too_short


def lengths(**blocks: Any) -> dict[str, TrainingLength]:
    recipe = load_recipe({"data": {"format": "partsworld", "train": 40, "val": 4}, **blocks})
    return {length.key: length for length in recipe_lengths(recipe, recipe.data.open())}


def test_every_training_in_the_order_of_a_run() -> None:
    planned = lengths(
        classify={"epochs": 3, "batch_size": 8},
        retrain=[{"iterations": 9}],
        refine=[{"name": "affinitynet", "iterations": "auto", "batch_size": 8}, "threshold"],
        segment={"epochs": 4, "batch_size": 5, "accumulate": 2},
    )
    assert [(key, length.origin, length.updates) for key, length in planned.items()] == [
        ("classify.iterations", "epochs", 15),
        ("retrain.0.iterations", "iterations", 9),
        ("refine.affinitynet.iterations", "auto", TRAINING_LENGTH["refine"].least(8)),
        ("segment.iterations", "epochs", 16),
    ]
    assert {length.images for length in planned.values()} == {40}
    assert {length.classes for length in planned.values()} == {8}


def test_a_published_number_is_for_the_images_it_was_published_for() -> None:
    (segment,) = [length for length in lengths(segment={"preset": "deeplabv2-voc"}).values() if "segment" in length.key]
    recipe = load_recipe({"segment": {"preset": "deeplabv2-voc"}}).segment
    assert recipe is not None
    assert isinstance(recipe.iterations, int)
    assert recipe.per_images == 10582
    assert segment.updates == round(recipe.iterations * 40 / 10582)


def test_without_a_network_there_is_no_training_of_it() -> None:
    assert list(lengths(segment=None)) == ["classify.iterations"]


@pytest.mark.parametrize(
    ("iterations", "updates", "epochs"), [(None, 10, 2), (7, 7, 2), (5, 5, 1), ("auto", 92, 19)]
)  # fmt: skip
def test_passes_that_are_begun(iterations: Any, updates: int, epochs: int) -> None:
    length = settle(
        "classify.iterations", iterations=iterations, epochs=2, batch_size=8, tagged=30, untagged=10, n_classes=8
    )
    assert (length.updates, length.epochs) == (updates, epochs)
    assert length.iterations == (None if iterations is None else updates)
    assert bool(too_short(length.record())) == (updates < 92)


def test_an_entry_of_an_older_version_is_judged_by_what_it_says() -> None:
    record = {"updates": 3, "least": 92, "classes": 8}
    assert too_short(record) == "3 updates are few for 8 classes, 92 or more are advised"
    assert too_short({**record, "key": "classify.iterations"}).endswith("advised; set classify.iterations=auto")
    assert too_short({"updates": 3}) == too_short({}) == too_short({**record, "updates": 92}) == ""
