"""Hybrid spatial pyramid pooling against the published code, by hand, and its properties."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional

from tagmask.functional import hspp
from tagmask.methods.hspp.head import HsppHead, maxima_of_bins

Golden = Callable[[str], Mapping[str, np.ndarray[Any, Any]]]
TOLERANCE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(scope="module")
def published(golden: Golden) -> dict[str, Tensor]:
    return {key: torch.from_numpy(np.asarray(value)) for key, value in golden("vwe").items()}


def random_features(size: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(seed)).relu()


def test_pooling_is_the_published_one(published: Mapping[str, Tensor]) -> None:
    options: dict[str, Any] = {"gamma": float(published["gamma"]), "splits": published["pool_levels"].tolist()}
    features = published["features"].clone().requires_grad_()
    pooled = hspp(features, **options)
    torch.testing.assert_close(pooled, published["expected_hspp"], **TOLERANCE)
    pooled.backward(published["hspp_upstream_gradient"])
    torch.testing.assert_close(features.grad, published["expected_hspp_grad_features"], **TOLERANCE)
    torch.testing.assert_close(hspp(features, reference_bins=True, **options), pooled, rtol=0, atol=0)


@pytest.mark.parametrize("shape", ["odd", "wide"])
def test_reference_bins_drop_what_the_published_code_drops(published: Mapping[str, Tensor], shape: str) -> None:
    features, expected = published[f"pool_{shape}_features"], published[f"expected_pool_{shape}"]
    torch.testing.assert_close(hspp(features, reference_bins=True), expected, **TOLERANCE)
    assert float((hspp(features) - expected).abs().max()) > 1e-2


def test_by_hand() -> None:
    """Means of the grids' maxima 15, 10 and 7.5, mean 7.5: (15 + 10 + 7.5 + 2 * 7.5) / 5."""
    assert hspp(torch.arange(16.0).reshape(1, 1, 4, 4)).tolist() == [[9.5]]


def test_bins_by_hand_where_the_split_does_not_divide() -> None:
    """Five columns in two bins: adaptive ones share the middle, the reference's drop the last."""
    features = torch.tensor([1.0, 2.0, 3.0, 4.0, 9.0]).reshape(1, 1, 1, 5).expand(1, 1, 2, 5)
    assert hspp(features, gamma=0, splits=(2,)).tolist() == [[(3 + 9) / 2]]
    assert hspp(features, gamma=0, splits=(2,), reference_bins=True).tolist() == [[(2 + 4) / 2]]


sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))
grids = st.lists(st.integers(1, 5), min_size=1, max_size=3)


@given(sizes, grids, st.floats(0, 4), st.booleans(), st.integers(0, 99))
def test_never_above_the_maximum(
    size: tuple[int, int], splits: list[int], gamma: float, reference: bool, seed: int
) -> None:
    features = random_features(size, seed)
    pooled = hspp(features, gamma=gamma, splits=splits, reference_bins=reference)
    assert pooled.shape == (2, 3)
    assert bool((pooled <= features.amax((2, 3)) + 1e-5).all())


@given(sizes, st.integers(1, 5), st.integers(0, 99))
def test_the_steps_of_an_export_are_adaptive_pooling(size: tuple[int, int], split: int, seed: int) -> None:
    features = random_features(size, seed)
    torch.testing.assert_close(maxima_of_bins(features, split), functional.adaptive_max_pool2d(features, split))


@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), st.integers(0, 99))
def test_equal_bins_are_never_below_the_mean_and_finer_ones_nearer_to_it(
    split: int, rows: int, columns: int, seed: int
) -> None:
    features = random_features((split * rows, split * columns), seed)
    fine, coarse = (hspp(features, gamma=0, splits=(bins,)) for bins in (split, 1))
    assert bool((features.mean((2, 3)) <= fine + 1e-5).all())
    assert bool((fine <= coarse + 1e-5).all())


@given(sizes, grids, st.floats(0, 4), st.booleans())
def test_a_constant_stays_what_it_is(size: tuple[int, int], splits: list[int], gamma: float, reference: bool) -> None:
    pooled = hspp(torch.full((1, 2, *size), 3.25), gamma=gamma, splits=splits, reference_bins=reference)
    torch.testing.assert_close(pooled, torch.full((1, 2), 3.25))


@given(sizes, st.integers(0, 99))
def test_extremes_of_the_settings(size: tuple[int, int], seed: int) -> None:
    features = random_features(size, seed)
    torch.testing.assert_close(hspp(features, gamma=0, splits=(1,)), features.amax((2, 3)))
    torch.testing.assert_close(hspp(features, gamma=1, splits=()), features.mean((2, 3)))


@given(sizes, st.floats(0.1, 10), st.integers(0, 99))
def test_it_scales_with_the_features_and_does_not_mind_the_mirror(
    size: tuple[int, int], factor: float, seed: int
) -> None:
    features = random_features(size, seed)
    torch.testing.assert_close(hspp(factor * features), factor * hspp(features), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(hspp(features.flip(-1)), hspp(features))


@pytest.mark.parametrize("options", [{"gamma": -1.0}, {"splits": (2, 0)}, {"gamma": 0.0, "splits": ()}])
def test_nothing_to_pool_with_is_an_error(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="gamma"):
        hspp(torch.ones(1, 1, 2, 2), **options)


def test_the_head_pools_and_classifies() -> None:
    torch.manual_seed(0)
    head = HsppHead(gamma=1.0, splits=(1, 3), reference_bins=True).build(3, 5)
    features = random_features((7, 8))
    pooled = hspp(features, gamma=1.0, splits=(1, 3), reference_bins=True)
    logits, extras = head(features)
    torch.testing.assert_close(logits, pooled @ head.class_weights.T)
    assert extras == {}
    tags = torch.eye(5)[:2]
    expected = functional.multilabel_soft_margin_loss(logits, tags)
    torch.testing.assert_close(head.losses(logits, tags, extras), {"loss": expected})


def test_dropout_leaves_the_expected_logits_as_they_are() -> None:
    """It comes after the maxima; before, they would be larger in training than in maps."""
    torch.manual_seed(0)
    head = HsppHead(dropout=0.5).build(400, 3)
    features = torch.rand(1, 400, 4, 4)
    drawn = torch.stack([head.train()(features)[0] for _ in range(200)])
    torch.testing.assert_close(drawn.mean(0), head.eval()(features)[0], rtol=0, atol=0.1)
    assert not torch.equal(drawn[0], drawn[1])


def test_wrong_settings_are_refused() -> None:
    for wrong in ({"splits": ()}, {"splits": (0,)}, {"gamma": -0.1}):
        with pytest.raises(ValidationError):
            HsppHead(**wrong)
