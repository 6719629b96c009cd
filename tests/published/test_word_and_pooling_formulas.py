"""VWE and HSPP (Ru, Du, Wu, IJCAI 2021): equations of words and pooling, with their gradients by differences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from formulas import close, drawn, gradient, numeric_gradient, soft_margin, softmax
from tagmask.functional import hspp, visual_words
from tagmask.methods.hspp.head import maxima_of_bins
from tagmask.methods.visual_words.head import VisualWordsHead, word_similarity
from tagmask.methods.visual_words.localizer import word_branch


def bins(length: int, split: int, published: bool) -> list[range]:
    """Places of each bin along one axis."""
    if published or length % split == 0:
        width = max(1, length // split)
        return [range(start, start + width) for start in range(0, length - width + 1, width)]
    return [range(i * length // split, -(-(i + 1) * length // split)) for i in range(split)]


def pooled(features: np.ndarray, gamma: float, splits: tuple[int, ...], published: bool = False) -> np.ndarray:
    """(sum over r of the mean of the maxima of r x r bins + gamma GAP) / (number of splits + gamma)."""
    batch, depth, height, width = features.shape
    result = np.zeros((batch, depth))
    for b in range(batch):
        for d in range(depth):
            plane = features[b, d]
            total = gamma * plane.mean()
            for r in splits:
                exact = published or (height % r == 0 and width % r == 0)
                rows = bins(height, r, exact)
                columns = bins(width, r, exact)
                total += np.mean([max(plane[y, x] for y in ys for x in xs) for ys in rows for xs in columns])
            result[b, d] = total / (gamma + len(splits))
    return result


@pytest.mark.parametrize("size", [(4, 4), (8, 4), (7, 5), (6, 9), (1, 3), (2, 2)])
@pytest.mark.parametrize("published", [False, True])
def test_hspp_by_its_bins(size: tuple[int, int], published: bool) -> None:
    features = drawn(sum(size), 2, 3, *size, low=-1)
    for gamma, splits in ((2.0, (1, 2, 4)), (0.5, (3,)), (0.0, (1, 2))):
        result = hspp(torch.from_numpy(features), gamma=gamma, splits=splits, reference_bins=published)
        close(result, pooled(features, gamma, splits, published))


@given(st.tuples(st.integers(1, 9), st.integers(1, 9)), st.integers(1, 6), st.integers(0, 99))
def test_bins_for_export_are_those_of_adaptive_pooling(size: tuple[int, int], split: int, seed: int) -> None:
    plane = drawn(seed, 1, 1, *size)
    rows = [range(i * size[0] // split, -(-(i + 1) * size[0] // split)) for i in range(split)]
    columns = [range(i * size[1] // split, -(-(i + 1) * size[1] // split)) for i in range(split)]
    expected = [[max(plane[0, 0, y, x] for y in ys for x in xs) for xs in columns] for ys in rows]
    close(maxima_of_bins(torch.from_numpy(plane), split)[0, 0], expected)


@settings(max_examples=30)
@given(st.integers(0, 2000), st.floats(0.1, 50), st.permutations(range(3)))
def test_hspp_scales_permutes_and_does_not_see_a_mirror(seed: int, factor: float, order: list[int]) -> None:
    features = torch.from_numpy(drawn(seed, 2, 3, 4, 8))
    plain = hspp(features)
    close(hspp(factor * features), (factor * plain).numpy())
    close(hspp(features[:, order]), plain[:, order].numpy())
    close(hspp(features.flip(-1)), plain.numpy())
    close(hspp(features.flip(-2)), plain.numpy())
    close(hspp(features[1:]), plain[1:].numpy())
    close(hspp(features + 3), plain.numpy() + 3)


@pytest.mark.parametrize("size", [(4, 4), (5, 3)])
def test_gradients_of_hspp_are_those_of_its_maxima_and_its_mean(size: tuple[int, int]) -> None:
    features = torch.from_numpy(np.random.default_rng(4).permutation(2 * size[0] * size[1]).reshape(1, 2, *size) / 7.0)
    weights = torch.tensor([[1.0, -2.0]], dtype=torch.float64)

    def total(values: torch.Tensor) -> torch.Tensor:
        return (hspp(values) * weights).sum()

    close(gradient(total, features), numeric_gradient(total, features), 1e-7)


def cosines(features: np.ndarray, book: np.ndarray) -> np.ndarray:
    batch, _, height, width = features.shape
    result = np.zeros((batch, len(book), height, width))
    for b in range(batch):
        for j, word in enumerate(book):
            for y in range(height):
                for x in range(width):
                    at = features[b, :, y, x]
                    result[b, j, y, x] = at @ word / (math.sqrt(at @ at) * math.sqrt(word @ word))
    return result


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_words_are_assigned_by_softmax_of_cosines(temperature: float) -> None:
    features, book = drawn(1, 2, 5, 3, 2, low=-1), drawn(2, 7, 5, low=-1)
    assignment, labels, frequency = visual_words(*map(torch.from_numpy, (features, book)), temperature=temperature)
    expected = softmax(cosines(features, book) / temperature, 1)
    close(assignment, expected, 1e-6)
    close(frequency, expected.mean((2, 3)), 1e-6)
    hard = np.zeros((2, 7))
    for b in range(2):
        for y in range(3):
            for x in range(2):
                hard[b, expected[b, :, y, x].argmax()] = 1
    close(labels, hard)
    assert not labels.requires_grad


@given(st.integers(0, 2000), st.floats(0.01, 50))
def test_words_do_not_see_lengths(seed: int, factor: float) -> None:
    features, book = drawn(seed, 1, 3, 2, 3, low=-1), drawn(seed + 1, 4, 3, low=-1)
    plain = word_similarity(*map(torch.from_numpy, (features, book)))
    close(word_similarity(*map(torch.from_numpy, (factor * features, book / factor))), plain.numpy(), 1e-5)
    close(word_similarity(*map(torch.from_numpy, (features[..., ::-1].copy(), book))), plain.flip(-1).numpy(), 1e-6)


def test_the_word_branch_is_the_rectified_sum_over_words() -> None:
    assignment, weights = drawn(3, 1, 6, 2, 2), drawn(4, 3, 6, low=-1)
    expected = np.maximum(np.einsum("ck,bkyx->bcyx", weights, assignment), 0)
    close(word_branch(*map(torch.from_numpy, (assignment, weights))), expected, 1e-6)


def head_and_case(**settings_: Any) -> tuple[Any, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    head = VisualWordsHead(inner={"name": "hspp"}, words=5, **settings_).build(4, 3)  # type: ignore[arg-type]
    return head.train(), torch.rand(2, 4, 4, 4), torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])


@pytest.mark.parametrize("frequency", ["sum", "mean"])
def test_the_loss_is_three_soft_margins(frequency: Any) -> None:
    head, features, tags = head_and_case(frequency=frequency)
    logits, extras = head(features, tags)
    terms = head.losses(logits, tags, extras)
    x, weights = features.double().numpy(), {name: p.detach().double().numpy() for name, p in head.named_parameters()}
    assigned = softmax(cosines(x, weights["codebook"]), 1)
    often = assigned.sum((2, 3)) if frequency == "sum" else assigned.mean((2, 3))
    present = np.zeros((2, 5))
    for b in range(2):
        present[b, np.unique(assigned[b].argmax(0))] = 1
    word = x.mean((2, 3)) @ weights["word.weight"][:, :, 0, 0].T
    image = pooled(x, 2.0, (1, 2, 4)) @ head.class_weights.detach().double().numpy().T
    expected = {
        "image": soft_margin(image, tags.numpy()),
        "word": soft_margin(word, present),
        "word_to_image": soft_margin(often @ weights["word_to_image.weight"][:, :, 0, 0].T, tags.numpy()),
    }
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value, abs=1e-5), name
    assert terms["loss"].item() == pytest.approx(sum(expected.values()), abs=1e-5)


@pytest.mark.parametrize("detach", [True, False])
def test_the_codebook_is_trained_without_the_backbone_unless_asked(detach: bool) -> None:
    head, features, tags = head_and_case(detach=detach)
    features.requires_grad_(True)
    logits, extras = head(features, tags)
    loss = head.losses(logits, tags, extras)["word_to_image"]
    to_features, to_book = torch.autograd.grad(loss, [features, head.codebook], allow_unused=True)
    assert bool(to_book.abs().sum() > 0)
    assert (to_features is None) == detach
