"""Self-correlation against the published code, and at its edges."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tagmask.contracts.localizer import Trained, ViewLocalizer
from tagmask.methods.spa.localizer import Scg
from tagmask.methods.spa.self_correlation import combined_correlation, correlated_map, self_correlation
from tagmask.types import ClassifierOutput

Golden = Callable[[str], Mapping[str, np.ndarray[Any, Any]]]


@pytest.fixture(scope="module")
def published(golden: Golden) -> Mapping[str, np.ndarray[Any, Any]]:
    return golden("scg")


def matrices(stored: Mapping[str, Any], setting: str, block: int, order: int = 2) -> tuple[Tensor, Tensor]:
    return self_correlation(
        torch.from_numpy(stored[f"features_block{block}"][0]),
        order=order,
        first_threshold=float(stored[f"fo_th_{setting}"]),
        second_threshold=float(stored[f"so_th_{setting}"]),
    )


def close(found: Tensor, stored: Any, rtol: float = 1e-5) -> None:
    expected = torch.from_numpy(stored)
    torch.testing.assert_close(found, expected, rtol=rtol, atol=rtol * float(expected.abs().max()))


@pytest.mark.parametrize("setting", ["cub", "ilsvrc"])
@pytest.mark.parametrize("block", [4, 5])
def test_matrices_are_the_published_ones(published: Mapping[str, Any], setting: str, block: int) -> None:
    first, second = matrices(published, setting, block)
    close(first, published[f"expected_first_order_feat{block}_{setting}"])
    close(second, published[f"expected_second_order_feat{block}_{setting}"])


def test_signed_features_have_no_negative_correlation() -> None:
    """The published form sets negative cosines to 0 by itself: opposite features are not alike."""
    features = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 3, 5)))
    cosines = functional.normalize(features.flatten(1), dim=0)
    cosines = cosines.T @ cosines
    first, second = self_correlation(features, first_threshold=0.0, second_threshold=0.0)
    assert (first[cosines < 0] == 0).all()
    assert (first[cosines > 0] > 0).all()
    assert (second >= 0).all()


def test_the_third_order_is_the_published_one(published: Mapping[str, Any]) -> None:
    close(matrices(published, "cub", 4, order=3)[1], published["expected_third_order_feat4_cub"])


@pytest.mark.parametrize("setting", ["cub", "ilsvrc"])
def test_refined_maps_are_the_published_ones(published: Mapping[str, Any], setting: str) -> None:
    weight = float(published[f"so_weight_{setting}"])
    combined = combined_correlation([matrices(published, setting, b) for b in (4, 5)], second_weight=weight)
    close(combined, published[f"expected_combined_{setting}"])
    height, width = (int(side) for side in published["image_size_hw"])
    for plain, expected in zip(
        torch.from_numpy(published["expected_cam_top5_maps"]),
        published[f"expected_refined_top5_maps_{setting}"],
        strict=True,
    ):
        seed = functional.interpolate(plain[None, None], size=(9, 9), mode="bilinear")[0, 0]
        fg, bg = float(published["fg_threshold"]), float(published["bg_threshold"])
        found = correlated_map(seed, combined, foreground=fg, background=bg)
        full = functional.interpolate(found[None, None], size=(height, width), mode="bilinear")[0, 0]
        close(full, expected, rtol=1e-4)


@pytest.mark.parametrize("setting", ["cub", "ilsvrc"])
def test_the_map_of_the_true_class_is_the_published_one(published: Mapping[str, Any], setting: str) -> None:
    """The localizer from features and class maps alone: stages, seeds and settings as a recipe gives them."""
    localizer = Scg(
        inner=cast(Any, Given()),
        first_threshold=float(published[f"fo_th_{setting}"]),
        second_threshold=float(published[f"so_th_{setting}"]),
        second_weight=float(published[f"so_weight_{setting}"]),
        foreground=float(published["fg_threshold"]),
        background=float(published["bg_threshold"]),
    )
    taps = {block: torch.from_numpy(published[f"features_block{block}"]) for block in (4, 5)}
    logits = torch.from_numpy(published["logits"])
    output = ClassifierOutput(taps[5], taps, logits, {"maps": torch.from_numpy(published["class_maps"])})
    best = torch.cat([torch.from_numpy(published["gt_label"]), logits[0].argsort(descending=True)[:5]])
    found = localizer.view_maps(Trained(None), output, best)
    height, width = (int(side) for side in published["image_size_hw"])
    full = functional.interpolate(found, size=(height, width), mode="bilinear")[0]
    close(full[:1], published[f"expected_refined_gtknown_map_{setting}"], rtol=1e-4)
    close(full[1:], published[f"expected_refined_top5_maps_{setting}"], rtol=1e-4)
    truth = published[f"expected_refined_gtknown_box_{setting}"].tolist()
    ys, xs = torch.nonzero(full[0] >= float(published["box_threshold"]), as_tuple=True)
    box = [int(value) for value in (xs.min(), ys.min(), xs.max(), ys.max())]
    assert truth[0] == int(published["gt_label"][0])
    assert max(abs(own - other) for own, other in zip(box, truth[1:], strict=True)) <= 1


class Given(ViewLocalizer):
    """Seed maps that come with the classifier's output."""

    name = "given"

    def view_maps(self, trained: Trained, output: ClassifierOutput, channels: Tensor) -> Tensor:
        return output.extras["maps"][:, channels]


def test_two_kinds_of_positions() -> None:
    """Like positions correlate, others do not; a map of one of a kind becomes the map of the kind."""
    features = torch.zeros(2, 1, 5)
    features[0, 0, :3] = features[1, 0, 3:] = 1
    first, second = self_correlation(features)
    which = torch.tensor([0, 0, 0, 1, 1])
    kind = (which[:, None] == which).float()
    assert torch.equal((first > 0).float(), kind)
    torch.testing.assert_close(first.sum(0), torch.ones(5), rtol=0, atol=1e-4)
    assert not second[:3, 3:].any()
    combined = combined_correlation([(first, second)])
    found = correlated_map(torch.tensor([[1.0, 0.07, 0.07, 0.0, 0.07]]), combined)
    assert found[0, :3].min() > 0.3
    assert not found[0, 3:].any()


@pytest.mark.parametrize("size", [(1, 1), (2, 3)])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_nothing_to_tell_apart_is_not_nan(size: tuple[int, int], value: float) -> None:
    features = torch.full((3, *size), value)
    combined = combined_correlation([self_correlation(features)])
    for seed in (torch.zeros(size), torch.ones(size), torch.full(size, 0.07)):
        assert torch.isfinite(correlated_map(seed, combined)).all()


def test_an_order_below_two_is_refused() -> None:
    with pytest.raises(ValueError, match="order 1"):
        self_correlation(torch.ones(2, 2, 2), order=1)
