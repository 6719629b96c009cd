"""The segment stage: trained on pseudo masks (or real ones), it learns them, and predicts val."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tagmask.data.loading import ImageLoader
from tagmask.errors import RunError, UnreadableMaskError
from tagmask.runs.context import Context
from tagmask.stages.segment.stage import FULL, WEAK, MaskSet, SegmentationTask, run
from tagmask.storage.pictures import load_mask, save_mask
from tagmask.storage.records import read_jsonl
from tagmask.storage.weights import read_description
from tagmask.types import IMAGENET, ClassList, DataSource, Problem, Sample, UInt8Array

ContextOf = Callable[..., Context]

LOADER = ImageLoader(FULL, max_pixels=10**6, cache_bytes=0)


@pytest.fixture
def halves(tmp_path: Path) -> DataSource:
    """A bright rectangle on dark ground; the rectangle is class 1."""

    def sample(split: str, number: int) -> Sample:
        rng = np.random.default_rng([number, len(split)])
        mask = np.zeros((32, 40), np.uint8)
        y, x = rng.integers(0, 16, 2)
        mask[y : y + 16, x : x + 20] = 1
        pixels = np.where(mask[..., None] == 1, 220, 30).astype(np.uint8).repeat(3, 2)
        Image.fromarray(pixels + rng.integers(0, 30, pixels.shape, dtype=np.uint8)).save(
            tmp_path / f"{split}{number}.png"
        )
        np.save(tmp_path / f"{split}{number}.npy", mask)
        return Sample(f"{split}{number}", tmp_path / f"{split}{number}.png", (1,), tmp_path / f"{split}{number}.npy")

    def read_mask(sample: Sample) -> Any:
        try:
            return np.load(sample.mask_path)
        except (OSError, ValueError) as error:
            msg = f"{sample.mask_path}: broken"
            raise UnreadableMaskError(msg) from error

    splits = {"train": tuple(sample("t", n) for n in range(12)), "val": tuple(sample("v", n) for n in range(4))}
    return DataSource("test", ClassList(("background", "box")), splits, "f", mask_reader=read_mask)


@pytest.fixture
def quick(tiny: dict[str, Any]) -> dict[str, Any]:
    tiny["segment"].update(
        epochs=10,
        augment={"crop": 32, "colour_jitter": 0.0},
        optimizer={"lr": 5e-3, "head_lr": 5e-3, "warmup_steps": 0},
    )
    tiny["segment"]["network"]["weights"] = None
    return tiny


def accuracy(context: Context, stage: str) -> float:
    right = [
        (load_mask(context.workspace.prediction_path(s.id, stage)) == np.load(s.mask_path)).mean()
        for s in context.source.split("val")
        if s.mask_path
    ]
    return float(np.mean(right))


def test_it_learns_real_masks(context_of: ContextOf, quick: dict[str, Any], halves: DataSource) -> None:
    context = context_of(quick, halves)
    assert run(context, FULL) == []
    assert accuracy(context, FULL) > 0.9
    losses = [line["loss"] for line in read_jsonl(context.workspace.stage(FULL) / "history.jsonl")]
    assert losses[-1] < 0.6 * losses[0]
    assert not list(context.workspace.stage(WEAK).glob("predictions/*"))
    description = read_description(context.workspace.stage(FULL) / "model.safetensors")
    assert description["classes"] == ["background", "box"]
    assert description["network"]["name"] == "deeplabv3plus"


def test_it_learns_pseudo_masks_whatever_they_say(
    context_of: ContextOf, quick: dict[str, Any], halves: DataSource
) -> None:
    """Pseudo masks that call the ground a box and the box ground: the network must say so too."""
    context = context_of(quick, halves.weak())
    for sample in halves.split("train"):
        save_mask(context.workspace.mask_path(sample.id), 1 - halves.read_mask(sample))
    assert run(context, WEAK) == []
    truth = context_of(quick, halves)
    assert accuracy(truth, WEAK) < 0.1


def test_images_without_pseudo_mask_are_not_trained_on(
    context_of: ContextOf, quick: dict[str, Any], halves: DataSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = context_of(quick, halves.weak())
    with pytest.raises(RunError, match="no pseudo masks to train on"):
        run(context, WEAK)
    chosen = {sample.id for sample in halves.split("train")[:5]}
    for sample in halves.split("train")[:5]:
        save_mask(context.workspace.mask_path(sample.id), halves.read_mask(sample))
    seen: set[str] = set()
    really = MaskSet.item

    def item(self: MaskSet, index: int, rng: np.random.Generator) -> Any:
        seen.add(self.samples[index].id)
        return really(self, index, rng)

    monkeypatch.setattr(MaskSet, "item", item)
    run(context, WEAK)
    assert seen == chosen


def test_crops_over_objects(context_of: ContextOf, quick: dict[str, Any], halves: DataSource) -> None:
    """A small crop of an image four times as large mostly misses the box, unless it is aimed at it."""

    def held(share: float) -> float:
        quick["segment"].update(foreground_crops=share, augment={"crop": 16, "scale": [4.0, 4.0]})
        settings = context_of(quick, halves).recipe.segment
        assert settings is not None
        samples = list(halves.split("train"))
        items = MaskSet(LOADER, samples, settings, halves.read_mask, statistics=IMAGENET)
        drawn = [items.item(index, np.random.default_rng([index, turn])) for index in range(12) for turn in range(4)]
        return float(np.mean([bool((item["labels"] == 1).any()) for item in drawn if not isinstance(item, Problem)]))

    assert held(1.0) == 1
    assert held(0.0) < held(0.5) < 1


def test_broken_masks_are_left_out(context_of: ContextOf, quick: dict[str, Any], halves: DataSource) -> None:
    context = context_of(quick, halves)
    for number in (2, 7):
        path = halves.split("train")[number].mask_path
        assert path is not None
        path.write_bytes(b"broken")
    quick["segment"]["epochs"] = 2
    problems = run(context_of(quick, halves), FULL)
    assert {(problem.stage, problem.id) for problem in problems} == {
        ("segment/full (training)", "t2"), ("segment/full (training)", "t7")
    }  # fmt: skip
    assert context.workspace.problems() == problems


def test_a_trained_network_is_not_trained_again(
    context_of: ContextOf, quick: dict[str, Any], halves: DataSource
) -> None:
    context = context_of(quick, halves)
    run(context, FULL)
    path = context.workspace.stage(FULL) / "model.safetensors"
    before = path.stat().st_mtime_ns
    (context.workspace.prediction_path("v1", FULL)).unlink()
    run(context, FULL)
    assert path.stat().st_mtime_ns == before
    assert context.workspace.prediction_path("v1", FULL).exists()


def test_items_keep_image_and_mask_together(context_of: ContextOf, quick: dict[str, Any], halves: DataSource) -> None:
    settings = context_of(quick, halves).recipe.segment
    assert settings is not None
    data = MaskSet(LOADER, list(halves.split("train")), settings, halves.read_mask, statistics=IMAGENET)
    item = data.item(0, np.random.default_rng(0))
    assert isinstance(item, dict)
    assert item["image"].shape == (3, 32, 32)
    inside = item["labels"] != 255
    assert ((item["image"][0] > 0) == (item["labels"] == 1))[inside].float().mean() > 0.9
    broken = MaskSet(
        LOADER, [replace(halves.split("train")[0], mask_path=Path("none"))], settings, halves.read_mask,
        statistics=IMAGENET,
    )  # fmt: skip
    assert isinstance(broken.item(0, np.random.default_rng(0)), Problem)


def test_masks_that_are_reduced_are_read_once(context_of: ContextOf, quick: dict[str, Any], halves: DataSource) -> None:
    settings = context_of(quick, halves).recipe.segment
    assert settings is not None
    samples, read = list(halves.split("train")), []

    def read_mask(sample: Sample) -> UInt8Array:
        read.append(sample.id)
        return halves.read_mask(sample)

    def items(max_side: int | None) -> list[Any]:
        read.clear()
        loader = ImageLoader(FULL, max_pixels=10**6, max_side=max_side)
        data = MaskSet(loader, samples, settings, read_mask, statistics=IMAGENET)
        return [data.item(0, np.random.default_rng(seed))["labels"] for seed in (0, 1, 0)]  # type: ignore[index]

    first, _, again = items(16)
    assert read == [samples[0].id]
    assert torch.equal(first, again)
    items(None)
    assert len(read) == 3


def test_parameters_of_the_encoder_have_its_rate(
    context_of: ContextOf, quick: dict[str, Any], halves: DataSource
) -> None:
    quick["segment"]["optimizer"] = {"lr": 1e-4, "head_lr": 1e-2}
    settings = context_of(quick, halves).recipe.segment
    assert settings is not None
    model = settings.network.build(2)
    groups = SegmentationTask(settings, model, None).parameter_groups()  # type: ignore[arg-type]
    encoder = {id(p) for p in model.encoder.parameters()}
    for group in groups:
        assert {id(p) in encoder for p in group["params"]} == {group["peak_lr"] == 1e-4}
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_a_batch_of_one_image_trains(context_of: ContextOf, quick: dict[str, Any], halves: DataSource) -> None:
    settings = context_of(quick, halves).recipe.segment
    assert settings is not None
    task = SegmentationTask(settings, settings.network.build(2).train(), None)  # type: ignore[arg-type]
    batch = {"image": torch.randn(1, 3, 32, 32), "labels": torch.ones(1, 32, 32, dtype=torch.int64)}
    assert torch.isfinite(task.losses(task.model, batch)["loss"])
