"""Split & unite as training augmentation: where images are cut, what the training sees of it, how it resumes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tagmask.contracts.localizer import Trained
from tagmask.data.loading import ImageLoader
from tagmask.errors import InputError
from tagmask.methods.cam.localizer import Cam
from tagmask.methods.class_conditional.localizer import full_size_maps
from tagmask.methods.class_conditional.preparation import SplitUnite
from tagmask.methods.class_conditional.split_unite import Rectangle, centres_of_mass, split_rectangles, whole_or_cut
from tagmask.ops.transforms import normalise
from tagmask.ops.views import Views
from tagmask.runs.context import Context
from tagmask.runs.trained import trained_classifier
from tagmask.settings.classify import ClassifySettings
from tagmask.settings.loading import load_recipe
from tagmask.stages.classify.preparations import Prepared, prepare
from tagmask.stages.classify.stage import TagSet, run
from tagmask.storage.images import read_image
from tagmask.storage.records import read_json
from tagmask.types import IMAGENET, Problem, Sample

MakeContext = Callable[..., Context]


@pytest.fixture
def recut(tiny: dict[str, Any]) -> dict[str, Any]:
    """The tiny recipe with a second training on cuts."""
    return {**tiny, "segment": None, "retrain": [{"epochs": 1, "split_unite": True}]}


def training_cuts(context: Context, stage: str, previous: Any) -> tuple[dict[str, list[Rectangle]], list[Problem]]:
    """Cuts by image id, and what was amiss."""
    prepared = prepare(context, stage, [SplitUnite()], previous)
    ((_, record),) = prepared.records
    return {name: [Rectangle(*cut) for cut in cuts] for name, cuts in record["images"].items()}, prepared.problems


def test_the_image_and_each_cut_are_equally_likely() -> None:
    image = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    cuts = [Rectangle(0, 0, 2 + row, 3 + row) for row in range(4)]
    drawn = [whole_or_cut(image, cuts, np.random.default_rng(seed)) for seed in range(2000)]
    counts = Counter(picture.shape for picture in drawn)
    assert set(counts) == {(6, 8, 3), *((*cut.size, 3) for cut in cuts)}
    assert all(320 < count < 480 for count in counts.values())  # 400 +- 4.5 standard deviations
    for picture in drawn[:20]:
        assert np.array_equal(picture, image[: picture.shape[0], : picture.shape[1]])
    assert whole_or_cut(image, [], np.random.default_rng(0)) is image


def test_cuts_lie_where_the_earlier_classifier_sees_the_objects(context_of: MakeContext, recut: dict[str, Any]) -> None:
    context = context_of(recut)
    run(context)
    previous = trained_classifier(context, "classify")
    cuts, _ = training_cuts(context, "classify/2", previous)
    tagged = [sample for sample in context.samples("train") if sample.tags]
    assert list(cuts) == [sample.id for sample in tagged]
    for sample in tagged[:4]:
        image = read_image(sample.image_path, max_pixels=10**6)
        channels = torch.tensor(sample.tags) - 1
        with torch.inference_mode():
            maps = full_size_maps(Trained(previous), Cam(), Views((1.0,)).of(image), channels, (48, 48))
        assert cuts[sample.id] == split_rectangles(centres_of_mass(maps), (48, 48))


def test_a_training_on_cuts_reads_them_again_when_it_goes_on(context_of: MakeContext, recut: dict[str, Any]) -> None:
    context = context_of(recut)
    run(context)
    run(context, "classify/2")
    folder = context.workspace.stage("classify/2")
    path = folder / "rectangles.json"
    stored = read_json(path)
    assert {len(four) for four in stored["images"].values()} == {4}
    first = (folder / "model.safetensors").read_bytes()

    stored["images"] = {name: [[0, 0, 9, 9]] * 4 for name in stored["images"]}
    path.write_text(json.dumps(stored))
    for name in ("model.safetensors", "state.ckpt", "history.jsonl"):
        (folder / name).unlink()
    run(context, "classify/2")
    assert (folder / "model.safetensors").read_bytes() != first
    assert read_json(path)["images"] == stored["images"]


def test_a_training_item_shows_one_cut(tmp_path: Path) -> None:
    """An image of four colours, cut into its colours: an item shows one, or all."""
    image = np.zeros((40, 40, 3), np.uint8)
    image[:20, :20, 0] = image[:20, 20:, 1] = image[20:, :20, 2] = 200
    path = tmp_path / "a.png"
    Image.fromarray(image).save(path)
    settings = ClassifySettings.model_validate({"augment": {"crop": 16, "scale": [1, 1], "colour_jitter": 0}})
    samples = [Sample("a", path, (1,))]
    dataset = TagSet(settings, 2, samples, ImageLoader("classify", max_pixels=10**6), statistics=IMAGENET)
    corners = [Rectangle(y, x, y + 20, x + 20) for y in (0, 20) for x in (0, 20)]
    whole = dataset.item(0, np.random.default_rng(0))
    assert isinstance(whole, dict)
    assert float(whole["image"].std((1, 2)).max()) > 0.5
    dataset.prepared = Prepared(records=[(SplitUnite(), {"images": {"a": corners}})])
    plain = 0
    for seed in range(20):
        item = dataset.item(0, np.random.default_rng(seed))
        assert isinstance(item, dict)
        assert item["tags"].tolist() == [1, 0]
        plain += float(item["image"].std((1, 2)).max()) < 0.01
    assert 8 < plain < 20
    dataset.prepared = Prepared(records=[(SplitUnite(), {"images": {}})])  # an image without cuts stays whole
    item = dataset.item(0, np.random.default_rng(1))
    assert isinstance(item, dict)
    assert item["image"].shape == normalise(image[:16, :16], IMAGENET).shape
    assert float(item["image"].std((1, 2)).max()) > 0.5


def test_unreadable_images_have_no_cuts_and_a_class_without_response_is_noted(
    context_of: MakeContext, recut: dict[str, Any], tmp_path: Path
) -> None:
    context = context_of(recut)
    run(context)
    train = context.source.splits["train"]
    broken, other = [sample for sample in train if sample.tags][:2]
    nothing = tmp_path / "nothing.jpg"
    nothing.write_bytes(b"not an image")
    without = tuple(replace(sample, image_path=nothing) if sample is broken else sample for sample in train)
    context = replace(context, source=replace(context.source, splits={"train": without}))
    previous = trained_classifier(context, "classify")
    with torch.no_grad():
        previous.class_weights[other.tags[0] - 1] = 0
    cuts, notes = training_cuts(context, "classify/2", previous)
    assert broken.id not in cuts
    name = context.source.classes.names[other.tags[0]]
    assert other.id in cuts
    (note,) = [note for note in notes if note.id == other.id]
    assert name in note.reason
    assert "zero everywhere" in note.reason
    assert not note.left_out
    assert training_cuts(context, "classify/2", previous) == (cuts, notes)


def test_only_a_retraining_can_have_cuts(tiny: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"unknown key 'classify\.split_unite'"):
        load_recipe({**tiny, "classify": {**tiny["classify"], "split_unite": True}})
