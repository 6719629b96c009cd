"""AdvCAM against the published code step by step, its closed form against autograd, and what it must not do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from golden_net import GoldenNet
from tagmask.contracts.localizer import Trained
from tagmask.errors import RecipeError
from tagmask.functional import merge_scales
from tagmask.methods.advcam.localizer import AdvCam, Climbing, climb, climb_step, grad_cam_regions, steps_and_factors
from tagmask.ops.views import Views
from tagmask.settings.loading import load_recipe
from tagmask.settings.localize import LocalizeSettings
from tagmask.stages.localize.stage import activation_maps

Stored = Mapping[str, np.ndarray[Any, Any]]
SUFFIX = {0.5: "0p5", 1.0: "1p0", 1.5: "1p5", 2.0: "2p0"}
SCALES = tuple(SUFFIX)


@pytest.fixture(scope="module")
def published(golden: Callable[[str], Stored]) -> Stored:
    return golden("advcam")


def climbed(stored: Stored, scale: float) -> list[Any]:
    """Every step from the published inputs of one scale, both classes at once."""
    net = GoldenNet(stored)
    channels = torch.from_numpy(stored["expected_class_indices"])
    pair = torch.from_numpy(stored[f"input_scale_{SUFFIX[scale]}"])
    images, clean, found = pair.expand(len(channels), *pair.shape), None, []
    for _ in range(int(stored["adv_iter"])):
        found.append(
            climb_step(images, lambda views: net(views).features, net.class_weights, channels, clean, Climbing())
        )
        clean = found[0].regions
        images = found[-1].images
    return found


def close(found: Tensor, expected: np.ndarray[Any, Any]) -> None:
    """1e-4 of the largest value, as the goldens ask."""
    wanted = torch.from_numpy(expected)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


def test_default_settings_are_the_published_ones(published: Stored) -> None:
    settings = AdvCam()
    assert settings.step_size == float(published["adversarial_step"])
    assert settings.regulariser == float(published["regulariser_weight"])
    assert settings.score_threshold == float(published["score_threshold"])


@pytest.mark.parametrize("scale", SCALES)
def test_every_step_is_the_published_one(published: Stored, scale: float) -> None:
    steps = climbed(published, scale)
    for number in range(2):
        tail = f"scale_{SUFFIX[scale]}_class{number}"
        regions = torch.stack([step.regions[number] for step in steps])
        close(regions, published[f"expected_region_steps_{tail}"])
        strong = regions / regions.amax((-2, -1), keepdim=True) > 0.5
        assert np.array_equal(strong.numpy(), published[f"expected_discriminative_mask_{tail}"].astype(bool))
        close(torch.stack([step.loss[number] for step in steps]), published[f"expected_loss_{tail}"])
        images = torch.stack([step.images[number] for step in steps])
        after = f"expected_image_after_steps_{tail}"
        if after in published:
            close(images, published[after])
            gradients = torch.stack([step.gradient[number] for step in steps])
            close(gradients, published[f"expected_image_gradient_steps_{tail}"])
        else:
            close(images[-1], published[f"expected_image_after_step3_{tail}"])


@pytest.mark.parametrize("scale", SCALES)
def test_the_score_that_grad_cam_explains_is_the_published_one(published: Stored, scale: float) -> None:
    net = GoldenNet(published)
    pair = torch.from_numpy(published[f"input_scale_{SUFFIX[scale]}"])
    pairs = [pair.expand(2, *pair.shape), *(step.images for step in climbed(published, scale)[:-1])]
    for number, channel in enumerate(published["expected_class_indices"]):
        sums = [
            torch.einsum("bdhw,d->bhw", net(images[number]).features, net.class_weights[channel]).relu().sum()
            for images in pairs
        ]
        close(torch.stack(sums), published[f"expected_class_logit_sum_scale_{SUFFIX[scale]}_class{number}"])


@pytest.mark.parametrize(("steps", "tail"), [(3, ""), (12, "_iter12")])
def test_final_maps_are_the_published_ones(published: Stored, steps: int, tail: str) -> None:
    image = published["image_uint8"]
    labels = tuple(int(index) + 1 for index in published["expected_class_indices"])
    settings = LocalizeSettings(method=AdvCam(steps=steps), scales=(1.0, 0.5, 1.5, 2.0))
    found = activation_maps(GoldenNet(published), image, labels, settings)
    np.testing.assert_allclose(found.maps, published[f"expected_strided_cam{tail}"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("steps", "tail"), [(3, ""), (12, "_iter12")])
def test_highres_maps_are_the_published_ones(published: Stored, steps: int, tail: str) -> None:
    net = GoldenNet(published)
    channels = torch.from_numpy(published["expected_class_indices"])
    per_scale = []
    for scale, (count, factor) in zip(SCALES, steps_and_factors(SCALES, steps, compensate=False), strict=True):
        pair = torch.from_numpy(published[f"input_scale_{SUFFIX[scale]}"])
        sums = climb(pair, lambda views: net(views).features, net.class_weights, channels, count, Climbing())
        per_scale.append(factor * sums)
    strided, full = merge_scales(per_scale, tuple(int(side) for side in published["image_size"]))
    close(strided, published[f"expected_strided_cam{tail}"])
    close(full, published[f"expected_highres_cam{tail}"])


@pytest.mark.parametrize(
    ("steps", "half", "others"),
    [(1, (1, 1), (1, 1)), (5, (5, 1), (5, 1)), (6, (5, 1), (6, 1)), (10, (5, 1), (10, 1)), (11, (5, 2), (11, 2)),
     (27, (13, 2), (27, 2))],
)  # fmt: skip
def test_fewer_steps_at_the_smallest_scale_and_a_factor_that_stays(steps: int, half: Any, others: Any) -> None:
    assert steps_and_factors((0.5, 1.0, 2.0), steps, compensate=False) == [half, others, others]
    intended = (others[0], 1)
    assert steps_and_factors((0.5, 1.0, 2.0), steps, compensate=True) == [half, intended, intended]
    assert steps_and_factors((1.0, 1.5), steps, compensate=False) == [(steps, 1)] * 2


@given(st.integers(1, 2), st.integers(1, 4), st.integers(0, 99))
def test_grad_cam_without_a_backward_pass_is_grad_cam(views: int, classes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(views, 6, 3, 4, generator=generator)
    weights = torch.randn(classes, 6, generator=generator)
    for channel in range(classes):
        leaf = features.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(torch.einsum("bdhw,d->bhw", leaf, weights[channel]).relu().sum(), leaf)
        per_channel = gradient.sum((-2, -1)) / ((gradient > 0).sum() + 1e-12)
        expected = (per_channel[..., None, None] * features).sum(1).relu()
        own = torch.einsum("bdhw,d->bhw", features, weights[channel]).relu()[None]
        found = grad_cam_regions(own, (weights[channel] > 0).sum()[None])
        merged = expected[0] + (expected[1].flip(-1) if views == 2 else 0)
        torch.testing.assert_close(found[0], merged, rtol=1e-5, atol=1e-6)


class Net(nn.Module):
    """A smooth little classifier with parameters of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.weight = nn.Parameter(torch.randn(4, 6))
        self.seen: list[int] = []

    @property
    def class_weights(self) -> Tensor:
        return self.weight

    def forward(self, views: Tensor) -> Any:
        self.seen.append(len(views))
        return type("Output", (), {"features": torch.tanh(self.conv(views))})


def picture(seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)


def maps_of(net: Net, localizer: AdvCam, channels: tuple[int, ...], scales: tuple[float, ...] = (1.0,)) -> Tensor:
    return localizer.image_maps(Trained(net), picture(), torch.tensor(channels), Views(scales)).maps


def test_one_step_is_grad_cam_of_the_image_itself() -> None:
    net = Net()
    found = maps_of(net, AdvCam(steps=1), (0, 3))
    pair = Views((1.0,)).of(picture())[0]
    with torch.no_grad():
        features = net(pair).features
        own = torch.einsum("bdhw,kd->kbhw", features, net.weight[[0, 3]]).relu()
    expected = grad_cam_regions(own, (net.weight[[0, 3]] > 0).sum(1))
    expected = nn.functional.interpolate(expected[None], size=(3, 4), mode="bilinear")[0]
    torch.testing.assert_close(found, expected)


def test_climbing_raises_the_class_and_stays_in_range() -> None:
    net = Net()
    pair = Views((1.0,)).of(picture())[0]
    images, clean, favours = pair.expand(2, *pair.shape), None, []
    free = Climbing(regulariser=0)
    for _ in range(5):
        step = climb_step(images, lambda v: net(v).features, net.weight, torch.tensor([1, 2]), clean, free)
        clean, images = step.regions if clean is None else clean, step.images
        favours.append(step.loss)
        assert images.min() >= pair.min()
        assert images.max() <= pair.max()
    assert (torch.stack(favours).diff(dim=0) > 0).all()


def test_a_step_is_as_long_as_its_largest_change() -> None:
    net = Net()
    pair = Views((1.0,)).of(picture())[0]
    step = climb_step(
        pair[None], lambda v: net(v).features, net.weight, torch.tensor([1]), None, Climbing(step_size=1e-3)
    )
    moved = (step.images - pair[None]).abs()
    assert float(moved.max()) == pytest.approx(1e-3, rel=1e-3)


def test_the_regulariser_holds_the_strong_region_back() -> None:
    net = Net()
    pair = Views((1.0,)).of(picture())[0]

    def strayed(regulariser: float) -> float:
        images, clean = pair[None], None
        for _ in range(8):
            settings = Climbing(regulariser=regulariser)
            step = climb_step(images, lambda v: net(v).features, net.weight, torch.tensor([1]), clean, settings)
            clean, images = step.regions if clean is None else clean, step.images
        strong = clean / clean.amax() > 0.5
        return float(((step.regions - clean).abs() * strong).sum())

    assert strayed(1000.0) < 0.5 * strayed(0.0)


def test_classes_climb_each_for_itself() -> None:
    together = maps_of(Net(), AdvCam(steps=4), (0, 1, 3))
    for row, channel in enumerate((0, 1, 3)):
        torch.testing.assert_close(maps_of(Net(), AdvCam(steps=4), (channel,))[0], together[row], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("at_once", "expected"), [(1, [2, 2, 2] * 2), (2, [4, 4, 2, 2]), (4, [6, 6])])
def test_no_more_classes_than_asked_for_at_once(at_once: int, expected: list[int]) -> None:
    net = Net()
    found = maps_of(net, AdvCam(steps=2, classes_at_once=at_once), (0, 1, 3))
    assert net.seen == expected
    torch.testing.assert_close(found, maps_of(Net(), AdvCam(steps=2), (0, 1, 3)), rtol=1e-4, atol=1e-5)


def test_a_class_that_responds_nowhere_stays_zero() -> None:
    net = Net()
    nn.init.zeros_(net.weight)
    found = maps_of(net, AdvCam(steps=3), (0, 1))
    assert not found.any()


def test_nothing_is_left_of_the_gradients() -> None:
    """Also for parameters that could have one, and inside inference mode."""
    net = Net()
    for mode in (torch.inference_mode(), torch.no_grad(), torch.enable_grad()):
        with mode:
            found = maps_of(net, AdvCam(steps=3), (0, 1))
        assert not found.requires_grad
        assert found.grad_fn is None
    assert all(parameter.grad is None for parameter in net.parameters())


def test_the_intended_factor_gives_the_smallest_scale_its_weight_back() -> None:
    scales = (0.5, 1.0)
    small, large = (maps_of(Net(), AdvCam(steps=steps), (1,), (s,)) for steps, s in ((12, 0.5), (12, 1.0)))
    leaked = maps_of(Net(), AdvCam(steps=12), (1,), scales)
    intended = maps_of(Net(), AdvCam(steps=12, compensate=True), (1,), scales)
    torch.testing.assert_close(leaked, small + 2 * large)  # alone, the small one has its factor 2 already
    torch.testing.assert_close(intended, small + large)


def test_only_linear_seeds(tiny: dict[str, Any]) -> None:
    tiny["localize"] = {"name": "advcam", "inner": {"name": "advcam"}}
    with pytest.raises(RecipeError, match="advcam climbs the response of a linear view method, such as cam"):
        load_recipe(tiny)
    tiny["localize"] = {"name": "advcam", "inner": "cam", "steps": 0}
    with pytest.raises(RecipeError, match="steps"):
        load_recipe(tiny)
