"""The visual word encoder against the published code, by hand; which loss trains what; how it goes around heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tagmask.errors import RecipeError
from tagmask.functional import visual_words
from tagmask.methods.cam.head import GapHead
from tagmask.methods.visual_words.head import VisualWordsHead, word_similarity
from tagmask.registry.validation import build_method

Golden = Callable[[str], Mapping[str, np.ndarray[Any, Any]]]
TOLERANCE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(scope="module")
def published(golden: Golden) -> dict[str, Tensor]:
    return {key: torch.from_numpy(np.asarray(value)) for key, value in golden("vwe").items()}


def published_head(stored: Mapping[str, Tensor], **settings: Any) -> Any:
    """The head with the golden's weights, in training."""
    words, channels = stored["codebook"].shape
    inner = {"name": "hspp", "gamma": float(stored["gamma"]), "splits": stored["pool_levels"].tolist()}
    head = VisualWordsHead(inner=inner, words=words, **settings).build(channels, stored["labels"].shape[1])
    with torch.no_grad():
        head.codebook.copy_(stored["codebook"])
        head.inner.weight.weight.copy_(stored["image_classifier_weight"])
        head.word.weight.copy_(stored["word_classifier_weight"])
        head.word_to_image.weight.copy_(stored["word_to_image_weight"])
    return head


def random_features(seed: int = 0, channels: int = 6, size: tuple[int, int] = (4, 5)) -> Tensor:
    return torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(seed)).relu()


def test_words_are_the_published_ones(published: Mapping[str, Tensor]) -> None:
    features, codebook = published["features"], published["codebook"]
    similarity = word_similarity(features, codebook)
    torch.testing.assert_close(similarity, published["expected_similarity"], **TOLERANCE)
    assignment, labels, frequency = visual_words(features, codebook)
    torch.testing.assert_close(assignment, published["expected_word_probability"], **TOLERANCE)
    assert torch.equal(assignment.argmax(1).int(), published["expected_word_label_map"])
    assert torch.equal(labels, published["expected_word_label"].float())
    torch.testing.assert_close(frequency, published["paper_word_frequency_mean"], **TOLERANCE)
    places = features.shape[2] * features.shape[3]
    torch.testing.assert_close(frequency * places, published["expected_word_frequency_sum"], rtol=1e-5, atol=1e-4)


def test_logits_and_losses_are_the_published_ones(published: Mapping[str, Tensor]) -> None:
    head = published_head(published)
    logits, extras = head(published["features"])
    torch.testing.assert_close(logits, published["expected_image_logits"], **TOLERANCE)
    torch.testing.assert_close(extras["word_logits"], published["expected_word_logits"], **TOLERANCE)
    torch.testing.assert_close(extras["word_to_image_logits"], published["expected_word_to_image_logits"], **TOLERANCE)
    terms = head.losses(logits, published["labels"], extras)
    names = {"loss": "total", "image": "image", "word": "word", "word_to_image": "word_to_image"}
    assert set(terms) == set(names)
    for name, stored in names.items():
        torch.testing.assert_close(terms[name], published[f"expected_loss_{stored}"], **TOLERANCE)


def test_gradients_are_the_published_ones(published: Mapping[str, Tensor]) -> None:
    head = published_head(published)
    features = published["features"].clone().requires_grad_()
    logits, extras = head(features)
    head.losses(logits, published["labels"], extras)["loss"].backward()
    found = {
        "features": features,
        "image_classifier_weight": head.inner.weight.weight,
        "word_to_image_weight": head.word_to_image.weight,
        "word_classifier_weight": head.word.weight,
        "codebook": head.codebook,
    }
    for name, tensor in found.items():
        torch.testing.assert_close(tensor.grad, published[f"expected_grad_{name}"], **TOLERANCE)


def test_mean_frequencies_are_the_paper_s(published: Mapping[str, Tensor]) -> None:
    extras = published_head(published, frequency="mean")(published["features"])[1]
    torch.testing.assert_close(extras["word_to_image_logits"], published["paper_word_to_image_logits"], **TOLERANCE)


@pytest.mark.parametrize(
    ("term", "trained"),
    [
        ("image", {"features", "inner.weight.weight"}),
        ("word", {"features", "word.weight"}),
        ("word_to_image", {"codebook", "word_to_image.weight"}),
    ],
)
@pytest.mark.parametrize("detach", [True, False])
def test_who_trains_what(term: str, trained: set[str], detach: bool) -> None:
    torch.manual_seed(0)
    head = VisualWordsHead(words=5, detach=detach).build(6, 3)
    features = random_features().requires_grad_()
    logits, extras = head(features)
    head.losses(logits, torch.eye(3)[:2], extras)[term].backward()
    reached = {name for name, value in head.named_parameters() if value.grad is not None and value.grad.any()}
    if features.grad is not None and features.grad.any():
        reached.add("features")
    assert reached == trained | ({"features"} if term == "word_to_image" and not detach else set())


def test_the_weights_of_the_losses() -> None:
    torch.manual_seed(0)
    head = VisualWordsHead(words=5, word_loss=0.5, word_to_image_loss=3.0).build(6, 3)
    logits, extras = head(random_features())
    terms = head.losses(logits, torch.eye(3)[:2], extras)
    torch.testing.assert_close(terms["loss"], terms["image"] + 0.5 * terms["word"] + 3 * terms["word_to_image"])


def test_words_by_hand() -> None:
    """Words along both axes; features along the first, between them, and along the second, at any length."""
    features = torch.tensor([[3.0, 1.0, 0.0], [0.0, 1.0, 7.0]])[None, :, None]
    assignment, labels, frequency = visual_words(features, torch.tensor([[2.0, 0.0], [0.0, 5.0], [-1.0, -1.0]]))
    near, far = np.e, 1.0
    edge = near + far + np.exp(-(0.5**0.5))
    torch.testing.assert_close(assignment[0, :2, 0, 0], torch.tensor([near / edge, far / edge]).float())
    torch.testing.assert_close(assignment[0, 0, 0, 1], assignment[0, 1, 0, 1])
    assert labels.tolist() == [[1.0, 1.0, 0.0]]
    torch.testing.assert_close(frequency[0], assignment[0, :, 0].mean(1))


def test_a_low_temperature_decides() -> None:
    features = torch.tensor([[3.0, 0.0], [1.0, 7.0]])[None, :, None]
    assignment = visual_words(features, torch.eye(2), temperature=0.01)[0]
    torch.testing.assert_close(assignment[0, :, 0], torch.eye(2), rtol=0, atol=1e-6)


@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 4), st.floats(0.05, 5), st.integers(0, 99))
def test_properties(words: int, h: int, w: int, temperature: float, seed: int) -> None:
    features = random_features(seed, size=(h, w))
    codebook = torch.randn(words, 6, generator=torch.Generator().manual_seed(seed + 1))
    assignment, labels, frequency = visual_words(features, codebook, temperature=temperature)
    assert assignment.shape == (2, words, h, w)
    torch.testing.assert_close(assignment.sum(1), torch.ones(2, h, w))
    torch.testing.assert_close(frequency.sum(1), torch.ones(2))
    assert set(labels.unique().tolist()) <= {0.0, 1.0}
    assert bool((labels.sum(1) >= 1).all())
    assert bool((labels.sum(1) <= min(words, h * w)).all())
    longer = visual_words(5 * features, 0.1 * codebook, temperature=temperature)
    torch.testing.assert_close(longer[0], assignment, rtol=1e-4, atol=1e-6)


def test_no_label_has_a_gradient() -> None:
    codebook = torch.randn(4, 6, requires_grad=True)
    assignment, labels, frequency = visual_words(random_features().requires_grad_(), codebook)
    assert assignment.requires_grad
    assert frequency.requires_grad
    assert not labels.requires_grad


def test_features_of_nothing_are_finite() -> None:
    features = torch.zeros(1, 6, 2, 2, requires_grad=True)
    assignment, labels, _ = visual_words(features, torch.zeros(3, 6, requires_grad=True))
    assert torch.equal(assignment, torch.full((1, 3, 2, 2), 1 / 3))
    assert labels.sum() == 1
    assignment.sum().backward()
    assert torch.isfinite(features.grad).all()  # type: ignore[arg-type]


def test_autocast_does_not_blur_the_words() -> None:
    features, codebook = random_features(), torch.randn(50, 6)
    exact = visual_words(features, codebook)
    with torch.autocast("cpu", torch.bfloat16):
        half = visual_words(features, codebook)
    assert all(torch.equal(one, other) for one, other in zip(exact, half, strict=True))


def test_first_words() -> None:
    """N(0, sqrt(2 / 6) / sqrt(D)), Kaiming-normal with a = sqrt(5) as published: 0.01276 for D = 2048."""
    torch.manual_seed(0)
    assert float(VisualWordsHead().build(2048, 20).codebook.detach().std()) == pytest.approx(0.01276, rel=0.02)


def test_only_training_pays_for_the_words() -> None:
    torch.manual_seed(0)
    head = VisualWordsHead(words=5).build(6, 3)
    inner = GapHead().build(6, 3)
    inner.load_state_dict(head.inner.state_dict())
    logits, extras = head.eval()(random_features())
    assert torch.equal(logits, inner.eval()(random_features())[0])
    assert extras == {}
    assert torch.equal(head.class_weights, inner.class_weights)
    assert set(head.train()(random_features())[1]) == {"word_labels", "word_logits", "word_to_image_logits"}


@pytest.mark.parametrize(("frequency", "scale"), [("sum", 20.0), ("mean", 1.0)])
def test_the_scale_of_the_words_is_that_of_training(frequency: Any, scale: float) -> None:
    """The mean over the positions of the scaled word response is the logit of the words."""
    torch.manual_seed(0)
    head = VisualWordsHead(words=5, frequency=frequency).build(6, 3)
    features = random_features(size=(4, 5))
    logits = head(features)[1]["word_to_image_logits"]
    assert head.word_scale == scale
    response = torch.einsum("bkhw,ck->bchw", head.assignment(features), head.word_weights)
    torch.testing.assert_close(head.word_scale * response.mean((2, 3)), logits)
    stored = head.state_dict()
    other = VisualWordsHead(words=5, frequency=frequency).build(6, 3)
    other.load_state_dict(stored)
    assert other.word_scale == scale


def test_it_goes_around_heads_and_heads_go_around_it() -> None:
    head = build_method("head", {"name": "visual_words", "inner": {"name": "hspp", "gamma": 1.0}}, where="", base=None)  # type: ignore[arg-type]
    assert [part.name for part in head.parts()] == ["visual_words", "hspp"]
    assert head.offers() >= {"codebook", "word_weights"}
    assert head.build(6, 3).part_with("codebook").codebook.shape == (256, 6)


def test_words_of_words_are_refused() -> None:
    with pytest.raises(RecipeError, match="has visual words already"):
        build_method("head", {"name": "visual_words", "inner": "visual_words"}, where="recipe", base=None)  # type: ignore[arg-type]
