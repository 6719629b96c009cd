"""Inference: labels are the most probable ones in every combination of scales, flip, tiles, tags and CRF."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tagmask.methods.dense_crf.refiner import PRESETS, dense_crf
from tagmask.models.enlarging import labels_at
from tagmask.models.inference import Inference
from tagmask.ops.transforms import reduced_to, resize_image
from tagmask.types import IMAGENET


class Colours(nn.Module):
    """Four labels, each liking another colour."""

    input_statistics = IMAGENET

    def forward(self, views: Tensor) -> Tensor:
        return torch.cat([views, views.mean(1, keepdim=True) * 0.9], 1)


def picture(height: int = 20, width: int = 30) -> np.ndarray[Any, np.dtype[np.uint8]]:
    rng = np.random.default_rng(height * width)
    image = rng.integers(0, 256, (height // 5 + 1, width // 5 + 1, 3), dtype=np.uint8).repeat(5, 0).repeat(5, 1)
    return image[:height, :width]


EVERY = [
    Inference(scales=scales, flip=flip, tile=tile, crf=crf)
    for scales, flip, tile, crf in itertools.product([(1.0,), (0.5, 1.0)], [False, True], [None, 12], [None, "deeplab"])
]


@pytest.mark.parametrize("tags", [None, [], [2], [1, 3]], ids=str)
@pytest.mark.parametrize("inference", EVERY, ids=str)
def test_labels_are_the_most_probable(inference: Inference, tags: list[int] | None) -> None:
    image = picture()
    found = inference.probabilities(Colours(), image, n_labels=4, tags=tags)
    assert found.shape == (4, 20, 30)
    torch.testing.assert_close(found.sum(0), torch.ones(20, 30), rtol=1e-4, atol=1e-4)
    labels = inference.labels(Colours(), image, n_labels=4, tags=tags)
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, found.numpy().argmax(0))
    if tags is not None:
        assert set(np.unique(labels)) <= {0, *tags}


def test_tiles_larger_than_the_image_change_nothing() -> None:
    whole = Inference().probabilities(Colours(), picture(), n_labels=4)
    assert torch.equal(Inference(tile=64).probabilities(Colours(), picture(), n_labels=4), whole)


@pytest.mark.parametrize("size", [(20, 30), (30, 20), (9, 90)])
def test_images_are_predicted_with_their_short_side_at_a_size(size: tuple[int, int]) -> None:
    """Small ones too, which ``max_side`` leaves alone; labels come back at the image's size."""
    image, inference = picture(*size), Inference(short_side=40, flip=False)
    factor = min(40 / min(size), 160 / max(size))
    enlarged = resize_image(image, (round(size[0] * factor), round(size[1] * factor)))
    assert torch.equal(
        inference.probabilities(Colours(), image, n_labels=4),
        Inference(flip=False).probabilities(Colours(), enlarged, n_labels=4),
    )
    assert inference.labels(Colours(), image, n_labels=4).shape == size


def test_the_crf_is_the_published_one_over_what_the_tags_allow() -> None:
    image = picture()
    plain = Inference().probabilities(Colours(), image, n_labels=4, tags=[1, 3])
    found = Inference(crf="deeplab").probabilities(Colours(), image, n_labels=4, tags=[1, 3])
    expected = dense_crf(image, plain[[0, 1, 3]], **PRESETS["deeplab"])  # type: ignore[arg-type]
    torch.testing.assert_close(found[[0, 1, 3]], expected)
    assert not found[2].any()


@pytest.mark.parametrize("inference", EVERY, ids=str)
def test_a_larger_image_is_predicted_at_the_working_size(inference: Inference) -> None:
    """As a copy of that size is, whether the image comes whole or was read smaller; labels at the full size."""
    image = picture(60, 90)
    small = reduced_to(image, 30)
    working = replace(inference, max_side=30)
    found = working.probabilities(Colours(), image, n_labels=4)
    assert torch.equal(found, inference.probabilities(Colours(), small, n_labels=4))
    labels = working.labels(Colours(), image, n_labels=4)
    assert np.array_equal(labels, labels_at((60, 90), found))
    assert np.array_equal(labels, working.labels(Colours(), small, n_labels=4, size=(60, 90)))
    unlimited = replace(inference, max_side=90)
    assert np.array_equal(
        unlimited.labels(Colours(), image, n_labels=4), inference.labels(Colours(), image, n_labels=4)
    )
