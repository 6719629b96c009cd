"""Which classes come first, and maps of images squeezed to a square."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tagmask.contracts.localizer import Trained
from tagmask.settings.localize import LocalizeSettings
from tagmask.stages.localize.ranking import at_size, class_ranking, crops_of
from tagmask.stages.localize.stage import activation_maps, classifier_image
from tagmask.types import IMAGENET, ClassifierOutput


class Brightness:
    """Class 0 likes bright images, class 1 dark ones; features are the image itself."""

    class_weights = torch.tensor([[1.0, 0, 0], [-1.0, 0, 0], [0.0, 0, 0]])
    class_bias = None
    input_statistics = IMAGENET

    def __init__(self) -> None:
        self.sizes: list[tuple[int, ...]] = []

    def __call__(self, views: Tensor) -> ClassifierOutput:
        self.sizes.append(tuple(views.shape))
        logits = views[:, 0].mean(dim=(1, 2))[:, None] * torch.tensor([1.0, -1.0, 0.0])
        return ClassifierOutput(views, {1: views}, logits)


def picture(height: int, width: int, value: int = 255) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.full((height, width, 3), value, np.uint8)


@pytest.mark.parametrize("ten", [False, True])
def test_the_best_class_comes_first(ten: bool) -> None:
    model = Brightness()
    assert class_ranking(Trained(model), picture(20, 30), ten_crops=ten, size=16) == (1, 3, 2)
    assert class_ranking(Trained(model), picture(20, 30, 0), ten_crops=ten) == (2, 3, 1)
    assert model.sizes[0] == ((10, 3, 16, 16) if ten else (1, 3, 16, 16))


def test_ten_crops_are_corners_centre_and_mirrors() -> None:
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    crops = crops_of(image, IMAGENET, 224)
    assert crops.shape == (10, 3, 224, 224)
    assert torch.equal(crops[:5].flip(-1), crops[5:])
    assert torch.equal(crops[0][:, 32:, 32:], crops[3][:, :192, :192])
    assert torch.equal(crops[4][:, :208, :208], crops[0][:, 16:, 16:])
    assert crops_of(image[:128, :64], IMAGENET).shape == (10, 3, 112, 56)


def test_maps_are_made_of_the_square_and_stretched_back() -> None:
    model = Brightness()
    settings = LocalizeSettings(method="cam", scales=(1.0,), flip=False, size=16, ranking="whole")
    image = picture(40, 24)
    image[:, :12] = 0
    found = activation_maps(model, image, (1,), settings)  # type: ignore[arg-type]
    assert all(size[2:] == (16, 16) for size in model.sizes)
    assert found.maps.shape == (1, 10, 6)
    assert found.image_size == (40, 24)
    assert found.maps[0, :, 4:].min() > 0.5 > found.maps[0, :, :2].max()
    assert len(found.ranking) == 3
    assert activation_maps(model, image, (), settings).ranking == found.ranking  # type: ignore[arg-type]


def test_without_a_size_the_image_is_as_it_is() -> None:
    image = picture(5, 7)
    assert at_size(image, None) is image
    assert classifier_image(image, LocalizeSettings(method="cam")) is image
    assert activation_maps(Brightness(), image, (1,), LocalizeSettings(method="cam")).ranking == ()  # type: ignore[arg-type]


def test_maps_of_large_images_are_stretched_back() -> None:
    model, image = Brightness(), picture(80, 48)
    found = activation_maps(model, image, (1,), LocalizeSettings(method="cam", scales=(1.0,), max_side=40))  # type: ignore[arg-type]
    assert all(size[2:] == (40, 24) for size in model.sizes)
    assert found.maps.shape == (1, 20, 12)
    assert found.image_size == (80, 48)
