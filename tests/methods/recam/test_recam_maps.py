"""ReCAM's four weight options against the published maps, inside other heads and localizers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tagmask.functional import cam, normalize_maps
from tagmask.methods.recam.localizer import Recam, reactivation_weights
from tagmask.models.classifier import Classifier, build_classifier
from tagmask.ops.views import merge_flips
from tagmask.settings.classify import ClassifySettings
from tagmask.settings.localize import LocalizeSettings
from tagmask.stages.localize.stage import activation_maps

Stored = Mapping[str, np.ndarray[Any, Any]]
OPTIONS = {"w": "fc1", "w2": "fc2", "sum": "sum", "product": "product"}


@pytest.fixture(scope="module")
def published(golden: Callable[[str], Stored]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in golden("recam").items()}


@pytest.mark.parametrize(("option", "name"), OPTIONS.items())
def test_maps_are_the_published_ones(published: Mapping[str, Tensor], option: Any, name: str) -> None:
    first, second = (published[f"{layer}_weight"].flatten(1) for layer in ("fc1", "fc2"))
    maps = cam(published["features"], reactivation_weights(first, second, option))
    merged = merge_flips(maps)
    torch.testing.assert_close(merged, published[f"expected_recam_{name}_pair_sum"], rtol=1e-5, atol=1e-6)
    expected = published[f"expected_recam_{name}_normalised"]
    torch.testing.assert_close(normalize_maps(merged), expected, rtol=1e-5, atol=1e-6)
    paper = published[f"paper_recam_{name}_single_image"]
    found = normalize_maps(maps[0], eps=0.0).nan_to_num()  # Eq. 9 divides 0 by 0 where no place responds
    torch.testing.assert_close(found, paper.nan_to_num(), rtol=1e-5, atol=1e-6)


def test_two_negative_weights_multiply_to_a_response() -> None:
    """The trap of the product: neither classifier sees the class here, the map does."""
    first, second = torch.tensor([[-2.0]]), torch.tensor([[-3.0]])
    features = torch.ones(1, 1, 1, 1)
    seen = {option: float(cam(features, reactivation_weights(first, second, option))) for option in OPTIONS}  # type: ignore[arg-type]
    assert seen == {"w": 0.0, "w2": 0.0, "sum": 0.0, "product": 6.0}
    assert float(cam(features, reactivation_weights(first, second, "agreement"))) == 0


def test_where_both_classifiers_agree_is_where_both_weights_are_positive() -> None:
    first, second = torch.tensor([[-2.0, 2.0, 2.0, 0.0]]), torch.tensor([[-3.0, 3.0, -3.0, 3.0]])
    assert reactivation_weights(first, second, "agreement").tolist() == [[0.0, 6.0, 0.0, 0.0]]


def test_an_unknown_option() -> None:
    with pytest.raises(ValueError, match="expected one of w, w2, sum, product, agreement"):
        reactivation_weights(torch.ones(1, 1), torch.ones(1, 1), "w3")  # type: ignore[arg-type]


def classifier(head: Any) -> Classifier:
    torch.manual_seed(0)
    arguments = {"channels": [8, 16, 24, 32], "stem_width": 8}
    return build_classifier(ClassifySettings(backbone_args=arguments, head=head), 3).eval()


def test_the_published_default_is_the_product() -> None:
    model = classifier("recam")
    assert torch.equal(Recam().weights(model), model.class_weights * model.head.second_weights)


def test_it_finds_the_second_classifier_inside_another_head() -> None:
    model = classifier({"name": "visual_words", "words": 4, "inner": {"name": "recam", "inner": "hspp"}})
    second = model.head.inner.second_weights
    assert torch.equal(Recam(class_weights="w2").weights(model), second)
    with pytest.raises(AttributeError, match="no part of the head GapClassifier has second_weights"):
        classifier("gap").head.part_with("second_weights")


def test_w_is_plain_cam_and_others_nest() -> None:
    model = classifier("recam")
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)

    def maps(method: Any) -> Any:
        return activation_maps(model, image, (1, 3), LocalizeSettings(method=method, scales=(1.0, 0.5))).maps

    plain = maps("cam")
    np.testing.assert_array_equal(maps({"name": "recam", "class_weights": "w"}), plain)
    nested = {"name": "advcam", "inner": {"name": "recam", "class_weights": "w2"}}
    climbed, before = maps(nested), maps({"name": "advcam"})
    assert np.isfinite(climbed).all()
    assert np.abs(climbed - before).max() > 0.01
