"""The loss of the networks, and prediction over scales and mirrors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from tagmask.functional import cross_entropy, predict_probabilities
from tagmask.models.probabilities import to_mask
from tagmask.ops.losses import nearest_to

# -- loss ------------------------------------------------------------------------------------------------


def test_the_loss_is_the_mean_over_pixels_that_count() -> None:
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 3, (2, 4, 5), generator=torch.Generator().manual_seed(1))
    labels[0, :2] = 255
    counted = labels != 255
    by_hand = -logits.log_softmax(1).permute(0, 2, 3, 1)[counted][torch.arange(30), labels[counted]].mean()
    torch.testing.assert_close(cross_entropy(logits, labels), by_hand)


def test_nothing_but_ignored_pixels_costs_nothing() -> None:
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = cross_entropy(logits, torch.full((1, 2, 2), 255))
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("size", [(41, 41), (21, 31), (3, 5), (321, 320), (100, 33)])
def test_labels_are_resized_as_pillow_does(size: tuple[int, int]) -> None:
    labels = np.random.default_rng(0).integers(0, 256, (321, 320), dtype=np.uint8)
    expected = Image.fromarray(labels).resize((size[1], size[0]), Image.Resampling.NEAREST)
    found = nearest_to(torch.from_numpy(labels.astype(np.int64))[None], torch.Size(size))[0]
    assert found.dtype == torch.int64
    assert np.array_equal(found.numpy(), np.asarray(expected))


# -- prediction ------------------------------------------------------------------------------------------


class Bright(nn.Module):
    """Logits = (0, brightness): the same for any mirror and size."""

    def forward(self, views: Tensor) -> Tensor:
        brightness = views.mean(1, keepdim=True)
        return torch.cat([torch.zeros_like(brightness), brightness], 1)


def picture(height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(height + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(st.integers(1, 30), st.integers(1, 30), st.booleans())
def test_one_scale_is_the_softmax_of_the_network(height: int, width: int, flip: bool) -> None:
    from tagmask.ops.transforms import normalise
    from tagmask.types import IMAGENET

    image = picture(height, width)
    found = predict_probabilities(Bright(), image, flip=flip)
    torch.testing.assert_close(found, Bright()(normalise(image, IMAGENET)[None])[0].softmax(0), rtol=1e-5, atol=1e-6)


@given(
    st.integers(2, 30),
    st.integers(2, 30),
    st.lists(st.sampled_from([0.5, 1.0, 1.5]), min_size=1, max_size=3),
    st.booleans(),
)
def test_probabilities_at_any_size_and_scale(height: int, width: int, scales: list[float], flip: bool) -> None:
    found = predict_probabilities(Bright(), picture(height, width), scales=scales, flip=flip)
    assert found.shape == (2, height, width)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.sum(0), torch.ones(height, width))


def test_scales_and_mirrors_are_averaged_after_the_softmax() -> None:
    """A network that says class 1 to the image and class 0 to its mirror is undecided."""

    class Fickle(nn.Module):
        def forward(self, views: Tensor) -> Tensor:
            sure = (
                torch.tensor([-4.0, 4.0])[: len(views), None, None, None]
                * torch.tensor([1.0, -1.0])[None, :, None, None]
            )
            return sure.expand(-1, -1, *views.shape[2:])

    torch.testing.assert_close(predict_probabilities(Fickle(), picture(3, 4)), torch.full((2, 3, 4), 0.5))


def test_the_mirror_is_turned_back() -> None:
    class Left(nn.Module):
        """Class 1 where the left half of the image, as it is seen, is bright."""

        def forward(self, views: Tensor) -> Tensor:
            return torch.cat([-10 * views[:, :1], 10 * views[:, :1]], 1)

    image = np.zeros((2, 4, 3), np.uint8)
    image[:, :1] = 255
    assert to_mask(predict_probabilities(Left(), image)).tolist() == [[1, 0, 0, 0]] * 2


def test_no_scales_are_an_error() -> None:
    with pytest.raises(ValueError, match="no scales"):
        predict_probabilities(Bright(), picture(3, 3), scales=())


def test_the_most_probable_label() -> None:
    mask = to_mask(torch.tensor([[[0.2, 0.5]], [[0.7, 0.1]], [[0.1, 0.4]]]))
    assert mask.tolist() == [[1, 0]]
    assert mask.dtype == np.uint8
