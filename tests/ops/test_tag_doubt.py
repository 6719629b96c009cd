"""Doubts about tags: the probe never sees what it judges, and a wrong tag stands out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tagmask.ops.tag_doubt import fit_probe, out_of_fold_probabilities, tag_doubts


def clusters(n_images: int = 60, n_classes: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features that say the classes plainly, and the right tags."""
    draw = torch.Generator().manual_seed(seed)
    tags = torch.rand(n_images, n_classes, generator=draw) < 0.4
    features = torch.randn(n_images, 16, generator=draw)
    features[:, :n_classes] += 6 * tags.float()
    return features, tags


def test_a_probe_by_its_optimality_condition() -> None:
    """At the minimum the gradient is zero: penalty * W = X^T (Y - P) / N, and the residuals of each class sum to 0."""
    features, tags = clusters()
    weights, bias = fit_probe(features, tags, penalty=0.1)
    residual = tags.float() - (features @ weights + bias).sigmoid()
    torch.testing.assert_close(0.1 * weights, features.T @ residual / len(features), atol=2e-3, rtol=0)
    torch.testing.assert_close(residual.sum(0) / len(features), torch.zeros(3), atol=2e-3, rtol=0)


@given(st.integers(0, 29))
def test_an_image_is_judged_without_its_own_tags(index: int) -> None:
    features, tags = clusters(30)
    before = out_of_fold_probabilities(features, tags, folds=4)
    changed = tags.clone()
    changed[index] = ~changed[index]
    torch.testing.assert_close(out_of_fold_probabilities(features, changed, folds=4)[index], before[index])


def test_wrong_tags_are_doubted_most() -> None:
    features, tags = clusters()
    wrong = tags.clone()
    places = [(3, 0), (17, 1), (40, 2), (41, 0)]
    for place in places:
        wrong[place] = ~wrong[place]
    doubts = tag_doubts(out_of_fold_probabilities(features, wrong), wrong)
    assert doubts.shape == (60, 3)
    greatest = doubts.flatten().topk(len(places)).indices.tolist()
    assert {(place // 3, place % 3) for place in greatest} == set(places)


def test_doubts_by_hand() -> None:
    probabilities = torch.tensor([[0.9], [0.5], [0.1], [0.3]])
    tags = torch.tensor([[True], [True], [False], [False]])
    # The mean of those with the tag is 0.7, of those without 0.2.
    torch.testing.assert_close(tag_doubts(probabilities, tags), torch.tensor([[-0.2], [0.2], [-0.1], [0.1]]))


def test_a_class_that_no_image_has_is_doubted_nowhere_by_being_absent() -> None:
    features, tags = clusters()
    tags[:, 1] = False
    probabilities = out_of_fold_probabilities(features, tags)
    assert torch.isfinite(probabilities).all()
    assert tag_doubts(probabilities, tags)[:, 1].abs().max() < 0.05


def test_more_folds_than_images_and_shapes_that_do_not_fit() -> None:
    features, tags = clusters(3)
    assert out_of_fold_probabilities(features, tags, folds=10).shape == (3, 3)
    for wrong in ((features[:1], tags[:1]), (features, tags[:2]), (features[0], tags)):
        with pytest.raises(ValueError, match=r"must be \[N, D\] and \[N, C\]"):
            out_of_fold_probabilities(*wrong)
