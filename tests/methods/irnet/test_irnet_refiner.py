"""IRNet as a refiner: what its settings allow, what it learns from, and its inference by hand."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from requests_of import refine_request
from tagmask.backbones.build import BackboneSettings
from tagmask.functional import dense_crf_labels, random_walk, upsample_maps
from tagmask.methods.irnet.labels import ir_labels
from tagmask.methods.irnet.losses import labels_on_grid
from tagmask.methods.irnet.model import IRNetwork
from tagmask.methods.irnet.refiner import IRNet, TrainedIRNet
from tagmask.ops.transforms import normalise
from tagmask.types import IMAGENET

#: Of an image, multi-hot.
TAGS = torch.tensor([0.0, 0.0, 1.0])
SMALL = {"channels": [8, 16, 24, 32], "stem_width": 8}


def network(settings: IRNet, seed: int = 0) -> IRNetwork:
    torch.manual_seed(seed)
    return settings.build(BackboneSettings(backbone="resnet10t", backbone_args=SMALL).build(), 8).eval()


def scene(height: int = 47, width: int = 61, k: int = 2) -> tuple[Any, torch.Tensor]:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return image, torch.from_numpy(rng.random((k, -(-height // 4), -(-width // 4)), dtype=np.float32))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"conf_fg": 0.1, "conf_bg": 0.2}, "conf_fg 0.1 must not be below conf_bg 0.2"),
        ({"scale": (1.5, 0.5)}, "smallest <= largest"),
        ({"crop": 64}, "crop 64 has no pixel with all its pairs of pair_radius 10: 73 has"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(ValidationError, match=match):
        IRNet(**settings)
    assert IRNet(crop=73).crop == 73


def test_one_key_of_the_optimizer_leaves_the_others() -> None:
    changed = IRNet(optimizer={"lr": 0.5})  # type: ignore[arg-type]
    assert changed.optimizer == IRNet().optimizer.model_copy(update={"lr": 0.5})


def test_it_learns_from_ir_labels_of_the_stretched_maps() -> None:
    image, maps = scene()
    settings = IRNet(conf_fg=0.7, conf_bg=0.5)
    expected = ir_labels(
        upsample_maps(maps, (47, 61)), [3, 7], partial(dense_crf_labels, image), foreground=0.7, background=0.5
    )
    assert np.array_equal(settings.targets(refine_request(image, maps, torch.tensor([3, 7]))), expected)
    small = settings.model_copy(update={"crf_max_pixels": 700}).targets(
        refine_request(image, maps, torch.tensor([3, 7]))
    )
    assert small.shape == (47, 61)
    assert set(np.unique(small).tolist()) <= {0, 3, 7, 255}


def test_items_hold_the_labels_of_their_pixels() -> None:
    """The image is its own label, so that both must have moved alike."""
    labels = np.repeat(np.repeat(np.arange(1, 13, dtype=np.uint8).reshape(3, 4), 16, 0), 16, 1)
    image = np.repeat(labels[..., None] * 20, 3, axis=2)
    settings = IRNet(crop=96, scale=(1.0, 1.0))
    item = settings.item(image, labels, TAGS, np.random.default_rng(3), IMAGENET)
    assert item["image"].shape == (3, 96, 96)
    assert item["labels"].shape == (24, 24)
    assert item["labels"].dtype == torch.uint8
    assert (item["labels"] == 255).any()
    mean, std = 0.485, 0.229
    seen = labels_on_grid(((item["image"][0] * std + mean) * 255 / 20).round().to(torch.int64), (24, 24))
    inside = item["labels"] != 255
    assert torch.equal(seen[inside], item["labels"][inside].long())
    assert set(item["labels"][inside].tolist()) == set(range(1, 13))


@pytest.mark.parametrize("pad_to", [None, 32, 96])
def test_inference_by_hand(pad_to: int | None) -> None:
    settings = IRNet(pad_to=pad_to, power=1.5, beta=4.0, steps=20, radius=4)
    net, (image, maps) = network(settings), scene()
    x = normalise(image, IMAGENET)
    if pad_to == 96:
        x = functional.pad(x, (0, 35, 0, 49))
    # The mirror image is padded on its right, as the image is.
    mirrored = normalise(image, IMAGENET).flip(-1)
    mirrored = functional.pad(mirrored, (0, 35, 0, 49)) if pad_to == 96 else mirrored
    with torch.no_grad():
        logits = [net(view[None])[0][0, 0, :12, :16] for view in (x, mirrored)]
    edge = torch.sigmoid((logits[0] + logits[1].flip(-1)) / 2)
    walked = random_walk(maps**1.5, edge, beta=4.0, steps=20, radius=4)
    refined = TrainedIRNet(settings, net).refine(refine_request(image, maps))
    torch.testing.assert_close(refined, walked / walked.max())
    assert float(refined.max()) == 1
    assert float(refined[int(refined.flatten(1).amax(1).argmin())].max()) < 1  # one maximum for all maps


def test_maps_of_another_grid_get_their_boundaries_stretched() -> None:
    image, _ = scene(64, 64)
    refined = TrainedIRNet(IRNet(), network(IRNet())).refine(refine_request(image, torch.rand(2, 8, 8)))
    assert refined.shape == (2, 8, 8)
    assert float(refined.max()) == 1


def test_the_mean_displacement_is_measured_on_top_left_crops() -> None:
    settings = IRNet(displacement=True, crop=73)
    net, images = network(settings), [scene(100, 90)[0], scene(40, 50)[0]]
    assert net.displacement is not None
    fields = []
    for image in images:
        with torch.no_grad():
            fields.append(net.train()(normalise(image[:73, :73], IMAGENET)[None])[1].mean(dim=(0, 2, 3)))
    settings.finish(net, iter(images), torch.device("cpu"))
    torch.testing.assert_close(net.displacement.shift.running_mean, torch.stack(fields).mean(0))
    IRNet().finish(network(IRNet()), iter(()), torch.device("cpu"))  # nothing to measure


def test_instances_need_the_displacement_branch() -> None:
    image, maps = scene()
    with pytest.raises(ValueError, match="displacement branch"):
        TrainedIRNet(IRNet(), network(IRNet())).instances(refine_request(image, maps, torch.tensor([3, 7])))
    settings = IRNet(instances=True, instance_min_area=0.0)
    found = TrainedIRNet(settings, network(settings)).instances(refine_request(image, maps, torch.tensor([3, 7])))
    assert found.ids.shape == (47, 61)
    assert {one.label for one in found.instances} <= {3, 7}
    nothing = TrainedIRNet(settings, network(settings)).instances(
        refine_request(image, maps[:0], torch.zeros(0, dtype=torch.int64))
    )
    assert not nothing.ids.any()
