"""The gate of the tag classifier: who may be predicted, not where there is foreground."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from tagmask.models.tag_gate import TagGated, gated_logits
from tagmask.pipeline.execute import run
from tagmask.predict.predictor import Predictor
from tagmask.storage.pictures import load_mask


def test_by_hand() -> None:
    logits = torch.tensor([0.0, 2.0, 3.0, 1.0]).reshape(1, 4, 1, 1)
    found = gated_logits(logits, torch.tensor([[4.0, -4.0, 4.0]]), 0.1).softmax(1)[0, :, 0, 0]
    plain = logits.softmax(1)[0, :, 0, 0]
    assert found[0].item() == pytest.approx(plain[0].item(), abs=1e-6)  # the background keeps its share
    assert found[2].item() < 1e-9
    assert (found[1] / found[3]).item() == pytest.approx((plain[1] / plain[3]).item(), rel=1e-4)


def test_the_most_probable_class_is_never_shut_out() -> None:
    found = gated_logits(torch.zeros(1, 3, 2, 2), torch.tensor([[-9.0, -8.0]]), 0.5).softmax(1)
    torch.testing.assert_close(found[0, :, 0, 0], torch.tensor([1 / 3, 0.0, 2 / 3]), rtol=1e-4, atol=1e-6)


def test_images_in_which_the_classifier_sees_nothing_are_background() -> None:
    logits, tags = torch.randn(3, 3, 2, 2) + torch.tensor([0.0, 5.0, 5.0])[:, None, None], torch.tensor([0.0, 0.0])
    seen = torch.stack([tags - 3, tags, torch.tensor([-9.0, 2.0])])
    gated = gated_logits(logits, seen, 0.3, clean=0.4)
    assert (gated[0].argmax(0) == 0).all()
    assert float(gated[0].softmax(0)[0].min()) > 1 - 1e-9
    torch.testing.assert_close(gated[1:], gated_logits(logits, seen, 0.3)[1:])
    assert (gated[1:].argmax(1) > 0).any()


@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_the_background_inherits_where_it_is_the_heir(seed: int, threshold: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits, tags = torch.randn(2, 5, 3, 4, generator=generator), 3 * torch.randn(2, 4, generator=generator)
    found = gated_logits(logits, tags, threshold, heir="background").softmax(1)
    plain = logits.softmax(1)
    is_open = (tags.sigmoid() >= threshold) | (tags == tags.amax(1, keepdim=True))
    expected = plain[:, 1:] * is_open[:, :, None, None]
    torch.testing.assert_close(found[:, 1:], expected, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(found[:, 0], 1 - expected.sum(1), rtol=1e-3, atol=1e-6)


@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_the_background_keeps_its_probability(seed: int, threshold: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits, tags = torch.randn(2, 5, 3, 4, generator=generator), 3 * torch.randn(2, 4, generator=generator)
    found = gated_logits(logits, tags, threshold).softmax(1)
    torch.testing.assert_close(found[:, 0], logits.softmax(1)[:, 0], rtol=1e-3, atol=1e-5)
    if threshold == 0:
        torch.testing.assert_close(found, logits.softmax(1), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("heir", ["classes", "background"])
def test_a_run_with_a_gate_predicts_through_it(tiny: dict[str, Any], finished: Path, tmp_path: Path, heir: str) -> None:
    tiny["segment"] |= {"tag_gate": 0.9, "gate_heir": heir}
    done = run(tiny, output=tmp_path / "run", reuse=finished)
    predictor = Predictor(done.path / "segment" / "model.safetensors", device="cpu")
    assert isinstance(predictor.model, TagGated)
    sample = done.recipe.data.open().split("val")[0]
    gated = predictor(sample.image_path)
    np.testing.assert_array_equal(gated.mask, load_mask(done.workspace.prediction_path(sample.id)))
    predictor.model = predictor.model.model
    plain = predictor(sample.image_path)
    if heir == "classes":
        np.testing.assert_allclose(gated.probabilities[0], plain.probabilities[0], atol=1e-2)  # the same background
    else:
        assert (gated.probabilities[0] >= plain.probabilities[0] - 1e-3).all()
    assert not np.allclose(gated.probabilities, plain.probabilities, atol=1e-2)


def test_a_run_with_a_gate_for_clean_images(tiny: dict[str, Any], finished: Path, tmp_path: Path) -> None:
    """The stored network of a run is as strict as its recipe: at 1 nothing is sure enough, at 0 everything is."""
    tiny["segment"] |= {"clean_gate": 1.0, "epochs": 1, "supervision": "weak"}
    done = run(tiny, output=tmp_path / "run", reuse=finished)
    predictor = Predictor(done.path / "segment" / "model.safetensors", device="cpu")
    samples = done.recipe.data.open().split("val")
    for sample in samples:
        assert not load_mask(done.workspace.prediction_path(sample.id)).any()
        assert not predictor(sample.image_path).mask.any()
    assert isinstance(predictor.model, TagGated)
    assert (predictor.model.threshold, predictor.model.clean) == (0.0, 1.0)
    predictor.model.clean = 0.0
    assert any(predictor(sample.image_path).mask.any() for sample in samples)


def test_the_gate_may_be_a_classifier_that_was_trained_again(
    tiny: dict[str, Any], finished: Path, tmp_path: Path
) -> None:
    tiny["retrain"] = [{"epochs": 1}]
    tiny["segment"] |= {"tag_gate": 0.9, "epochs": 1, "supervision": "weak"}
    done = run(tiny, output=tmp_path / "run", reuse=finished)
    gate = Predictor(done.path / "segment" / "model.safetensors", device="cpu").model.classifier
    again = load_file(done.path / "classify" / "2" / "model.safetensors")
    assert torch.equal(gate.head.class_weights, again["head.weight.weight"].flatten(1))
