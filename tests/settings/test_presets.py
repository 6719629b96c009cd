"""Published settings by name: what is in them, what wins over them, and how they scale with the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tagmask.contracts.optimizer import rate_factor
from tagmask.errors import UnknownNameError
from tagmask.settings.loading import load_recipe
from tagmask.settings.presets import PRESETS, VOC, with_preset
from tagmask.settings.segment import SegmentSettings
from tagmask.stages.segment.schedule import options, scaled


def segment(**values: Any) -> SegmentSettings:
    found = load_recipe({"segment": values}).segment
    assert found is not None
    return found


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_is_a_recipe_and_comes_back_from_its_dump(name: str) -> None:
    recipe = load_recipe({"segment": {"preset": name}})
    assert recipe.segment is not None
    assert recipe.segment.network.name == PRESETS[name]["network"]["name"]
    assert load_recipe(recipe.dump()) == recipe


def test_deeplabv2_as_published() -> None:
    found = segment(preset="deeplabv2-voc")
    assert (found.batch_size, found.accumulate, found.iterations) == (5, 2, 20_000)
    assert (found.augment.crop, found.augment.kind, found.augment.flip) == (321, "scale_crop", True)
    assert found.augment.scale_choices == (0.5, 0.75, 1.0, 1.25, 1.5)
    rates = (found.optimizer.lr, found.optimizer.head_lr, found.optimizer.bias_rate, found.hold)
    assert rates == (2.5e-4, 2.5e-3, 2.0, 10)
    assert (found.optimizer.kind, found.optimizer.momentum, found.optimizer.power) == ("sgd", 0.9, 0.9)
    assert not found.optimizer.decay_norms


def test_upernet_as_published() -> None:
    found = segment(preset="upernet-voc")
    assert found.optimizer.kind == "adamw"
    assert (found.optimizer.lr, found.optimizer.weight_decay, found.optimizer.warmup_steps) == (6e-5, 0.01, 1500)
    assert (found.augment.short_side, found.augment.scale, found.augment.most_of_one) == (512, (0.5, 2.0), 0.75)
    assert (found.scales, found.short_side) == ((1.0,), 512)
    assert rate_factor(found.optimizer, 20_000, 40_000) == pytest.approx(0.5)


@pytest.mark.parametrize(("name", "iterations", "images"), [("voc", 20_000, VOC), ("coco", 100_000, 82_783)])
def test_deeplabv3plus_trains_as_deeplabv2(name: str, iterations: int, images: int) -> None:
    found = segment(preset=f"deeplabv3plus-{name}")
    assert (found.iterations, found.per_images, found.batch_size) == (iterations, images, 10)
    assert (found.augment.crop, found.augment.scale_choices) == (321, (0.5, 0.75, 1.0, 1.25, 1.5))
    assert (found.optimizer.lr, found.optimizer.head_lr, found.optimizer.weight_decay) == (2.5e-4, 2.5e-3, 5e-4)
    network = found.network.dump()
    assert (network["encoder"], network["atrous_rates"]) == ("resnet101.tv_in1k", [6, 12, 18])
    assert (network["decoder_channels"], network["output_stride"]) == (256, 16)


def test_what_is_written_wins() -> None:
    found = segment(preset="deeplabv2-voc", batch_size=3, augment={"crop": 97}, network={"depth": 50})
    assert (found.batch_size, found.augment.crop, found.augment.scale_choices) == (3, 97, (0.5, 0.75, 1.0, 1.25, 1.5))
    assert (found.network.name, found.network.depth, found.network.weights) == ("deeplabv2", 50, "timm")


def test_a_scale_takes_the_place_of_all_that_a_preset_says_of_sizes() -> None:
    found = segment(preset="upernet-voc", augment={"scale": [0.9, 1.1]}, scales=[1.37])
    assert (found.augment.scale, found.augment.short_side, found.augment.most_of_one) == ((0.9, 1.1), None, None)
    assert (found.scales, found.short_side) == ((1.37,), None)
    kept = segment(preset="upernet-voc", augment={"scale": [0.9, 1.1], "short_side": 256}, scales=[1.0], short_side=99)
    assert (kept.augment.short_side, kept.short_side) == (256, 99)
    assert segment(preset="deeplabv2-voc", augment={"scale": [0.5, 1.5]}).augment.scale_choices is None


@pytest.mark.parametrize("network", ["segformer", {"name": "segformer", "encoder": "mit_b1"}])
def test_another_network_inherits_nothing_of_the_presets(network: Any) -> None:
    found = segment(preset="deeplabv2-voc", network=network)
    assert (found.network.name, found.network.weights) == ("segformer", None)
    assert found.augment.crop == 321


def test_settings_know_their_preset_without_a_recipe() -> None:
    assert SegmentSettings(preset="deeplabv2-coco").batch_size == 10


def test_a_typo_gets_the_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'deeplabv2-voc'"):
        with_preset({"preset": "deeplabv2-vo"})


def test_a_preset_starts_the_block_afresh(tmp_path: Path) -> None:
    below = {"segment": {"network": "segformer", "epochs": 3, "batch_size": 7, "supervision": "both"}}
    (tmp_path / "below.yaml").write_text(yaml.safe_dump(below))
    above = {"extends": "below.yaml", "segment": {"preset": "deeplabv2-voc", "ema": 0.9}}
    (tmp_path / "above.yaml").write_text(yaml.safe_dump(above))
    for recipe in (
        load_recipe(tmp_path / "above.yaml"),
        load_recipe(tmp_path / "below.yaml", ["segment.ema=0.9", "segment.preset=deeplabv2-voc"]),
    ):
        assert recipe.segment is not None
        assert recipe.segment.network.name == "deeplabv2"
        assert (recipe.segment.batch_size, recipe.segment.iterations) == (5, 20_000)
        assert (recipe.segment.supervision, recipe.segment.ema) == ("both", 0.9)
    later = load_recipe(tmp_path / "above.yaml", ["segment.batch_size=2"]).segment
    assert later is not None
    assert (later.batch_size, later.network.name) == (2, "deeplabv2")


# -- scaling ---------------------------------------------------------------------------------------------


def test_every_image_is_seen_as_often_as_in_the_paper() -> None:
    whole = scaled(segment(preset="upernet-voc"), VOC)
    assert (whole.iterations, whole.optimizer.warmup_steps) == (40_000, 1500)
    tenth = scaled(segment(preset="upernet-voc"), VOC // 10)
    assert tenth.iterations == pytest.approx(4000, abs=5)
    assert tenth.optimizer.warmup_steps == pytest.approx(150, abs=1)
    assert scaled(segment(preset="upernet-voc"), 1).iterations == 4


def test_numbers_of_ones_own_are_taken_as_they_are() -> None:
    epochs = scaled(segment(preset="upernet-voc", epochs=3, batch_size=4), 40)
    assert epochs.iterations is None
    assert options(epochs).steps(40, 4, 3) == (10, 30)
    assert epochs.optimizer.warmup_steps == 1
    assert scaled(segment(preset="deeplabv2-voc", iterations=50), 40).iterations == 50
    assert scaled(segment(epochs=3), 40).optimizer == segment().optimizer


def test_scaling_twice_is_scaling_once() -> None:
    once = scaled(segment(preset="upernet-voc"), 500)
    assert scaled(once, 500) == once
