"""AffinityNet as a refiner: what it learns from, what it is shown, and how background and maps come out of the walk."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from requests_of import refine_request
from tagmask.backbones.build import build_backbone
from tagmask.functional import dense_crf, upsample_maps
from tagmask.methods.affinitynet import losses as affinitynet
from tagmask.methods.affinitynet.refiner import AffinityNet, TrainedAffinityNet
from tagmask.ops.maps import maps_to_labels
from tagmask.ops.transforms import resize_image
from tagmask.types import IMAGENET

#: Of an image, multi-hot.
TAGS = torch.tensor([0.0, 0.0, 1.0])
SMALL = {"channels": [8, 16, 24, 32], "stem_width": 8}


@pytest.fixture(scope="module")
def image() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Two halves of different colours, with some noise."""
    rng = np.random.default_rng(0)
    left = np.where(np.arange(120)[None, :, None] < 60, (200, 60, 40), (40, 90, 160)) + rng.normal(0, 6, (96, 120, 3))
    return left.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def maps() -> torch.Tensor:
    """A blob of each of two classes, one on each half."""
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(30.0), indexing="ij")
    blobs = [torch.exp(-((y - 12) ** 2 + (x - centre) ** 2) / 20) for centre in (7, 22)]
    return torch.stack(blobs)


def trained(**settings: Any) -> TrainedAffinityNet:
    method = AffinityNet(**settings)
    torch.manual_seed(0)
    network = method.build(build_backbone("resnet10t", args=SMALL), 3).eval()
    return method.trained(network)


def test_targets_are_two_crfs(image: Any, maps: torch.Tensor) -> None:
    found = AffinityNet(power=2.0, alpha_low=2, alpha_high=8).targets(refine_request(image, maps, torch.tensor([3, 7])))
    full = upsample_maps(maps, (96, 120)) ** 2
    behind = 1 - full.amax(0, keepdim=True)
    for place, alpha in enumerate((2, 8)):
        expected = dense_crf(image, torch.cat([behind**alpha, full])) * 255
        assert np.abs(found[3 * place : 3 * place + 3] - expected.numpy()).max() <= 0.5
    without = AffinityNet().targets(refine_request(image, maps[:0], torch.tensor([])))
    assert without.shape == (2, 96, 120)
    assert (without == 255).all()


def test_a_photograph_is_reduced(maps: torch.Tensor) -> None:
    method = AffinityNet(max_pixels=4096, crop=80)
    large = np.zeros((96, 120, 3), np.uint8)
    targets = method.targets(refine_request(large, maps, torch.tensor([3, 7])))
    assert targets.shape == (6, 57, 72)
    item = method.item(large, targets, TAGS, np.random.default_rng(0), IMAGENET)
    assert item["image"].shape == (3, 80, 80)
    assert (item["labels"] == 255).any()


def test_an_item_is_the_published_one(image: Any) -> None:
    """A window of image and planes, each cell's label by its mean probabilities; black and 255 outside the image."""
    method = AffinityNet(crop=160, colour_jitter=0.0)
    half = torch.zeros(2, 24, 30)
    half[1, :, :15] = 1
    targets = method.targets(refine_request(image, half, torch.tensor([3, 7])))
    black = (-torch.tensor(IMAGENET.mean) / torch.tensor(IMAGENET.std))[:, None, None]
    mirrored = set()
    for seed in range(6):
        item = method.item(image, targets, TAGS, np.random.default_rng(seed), IMAGENET)
        there = (item["image"] - black).abs().amax(0) > 1e-4
        assert int(there.sum()) <= 96 * 120
        (top, *_), (left, *_) = (torch.nonzero(there.any(d)).flatten().tolist() for d in (1, 0))
        canvas = torch.zeros(6, 160, 160)
        planes, pixels = torch.from_numpy(targets) / 255, torch.from_numpy(image)
        red = float(item["image"][0, top + 48, left + 10] * IMAGENET.std[0] + IMAGENET.mean[0]) > 0.5
        mirrored.add(red)
        if not red:
            planes, pixels = planes.flip(-1), pixels.flip(1)
        canvas[:, top : top + 96, left : left + 120] = planes
        low, high = functional.avg_pool2d(canvas[None], 8)[0].chunk(2)
        assert torch.equal(item["labels"], affinitynet.affinity_labels(low, high))
        shown = item["image"][:, top : top + 96, left : left + 120].permute(1, 2, 0) * torch.tensor(IMAGENET.std)
        torch.testing.assert_close(shown + torch.tensor(IMAGENET.mean), pixels / 255, atol=1e-5, rtol=0)
    assert mirrored == {True, False}
    assert {0, 2, 255} == set(item["labels"].unique().tolist())


def test_the_walk_by_hand(image: Any, maps: torch.Tensor) -> None:
    """Start, affinities of the padded image's features and the walk, at the image's size (a multiple of 8)."""
    refiner = trained(steps=64)
    with torch.no_grad():
        affinity = affinitynet.feature_affinity(refiner.network(refiner_input(image)))[0]
    start = affinitynet.walk_start(upsample_maps(maps, (96, 120)), alpha=16)
    walked = affinitynet.affinity_random_walk(start, affinity, steps=64)
    full = functional.interpolate(walked[None], scale_factor=8, mode="bilinear")
    expected = functional.avg_pool2d(full, 4)[0]
    torch.testing.assert_close(refiner.walked(image, maps), expected)
    shares = refiner.refine(refine_request(image, maps))
    torch.testing.assert_close(shares, expected[1:] / (expected[1:] + expected[:1]))


def refiner_input(image: Any) -> torch.Tensor:
    pixels = (torch.from_numpy(image).float() / 255 - torch.tensor(IMAGENET.mean)) / torch.tensor(IMAGENET.std)
    return pixels.permute(2, 0, 1)[None]


def test_a_threshold_of_one_half_is_the_argmax_with_the_background(image: Any, maps: torch.Tensor) -> None:
    refiner = trained(alpha=4.0, steps=2, power=0.3)
    best = refiner.walked(image, maps).argmax(0).numpy()
    labels = maps_to_labels(refiner.refine(refine_request(image, maps)), [1, 2], 0.5)
    assert {0, 1, 2} == set(np.unique(best))
    assert np.array_equal(labels, best)


def test_without_the_background_each_map_has_its_own_maximum(image: Any, maps: torch.Tensor) -> None:
    refiner = trained(background="none")
    found = refiner.refine(refine_request(image, maps))
    walked = refiner.walked(image, maps)[1:]
    torch.testing.assert_close(found, walked / walked.amax((1, 2), keepdim=True))
    np.testing.assert_allclose(found.amax((1, 2)), 1)


def test_more_steps_spread_further(image: Any, maps: torch.Tensor) -> None:
    spreads = [
        float(trained(background="none", beta=1.0, steps=steps).walked(image, maps)[1].std()) for steps in (0, 8, 128)
    ]
    assert spreads[0] > spreads[1] > spreads[2]


def test_scale_makes_the_grid_finer(image: Any, maps: torch.Tensor) -> None:
    refiner = trained(scale=2.0)
    pairs = len(affinitynet.stencil_offsets(5))
    assert refiner.affinity(resize_image(image, (192, 240))).shape == (pairs, (24 - 4) * (30 - 8))
    assert refiner.refine(refine_request(image, maps)).shape == maps.shape


def test_a_grid_without_pairs_leaves_the_walk_out() -> None:
    refiner, tiny = trained(), np.zeros((20, 30, 3), np.uint8)
    assert refiner.affinity(tiny).shape == (34, 0)
    assert torch.isfinite(refiner.refine(refine_request(tiny, torch.rand(1, 5, 8)))).all()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"crop": 64}, "no pixel with all its pairs"),
        ({"crop": 450}, "multiple of 8"),
        ({"alpha_low": 40}, "must not be above"),
        ({"alpha": 0}, "greater than 0"),
        ({"background": "all"}, "compete"),
    ],
)
def test_refusals(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        AffinityNet(**settings)


def test_it_learns_the_two_halves(image: Any, maps: torch.Tensor) -> None:
    """Pairs across the border become unlike, pairs within a half stay alike."""
    method = AffinityNet(crop=96, colour_jitter=0.0)
    torch.manual_seed(0)
    network = method.build(build_backbone("resnet10t", args=SMALL), 3).train()
    targets = method.targets(refine_request(image, maps, torch.tensor([3, 7])))
    rng = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    losses = []
    for _ in range(25):
        items = [method.item(image, targets, TAGS, rng, IMAGENET) for _ in range(2)]
        terms = method.losses(network, {key: torch.stack([item[key] for item in items]) for key in items[0]})
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        losses.append(float(terms["loss"].detach()))
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])
