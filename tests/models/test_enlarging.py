"""Labels at a larger size: those of the enlarged probabilities, and outlines without stairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from tagmask.models.enlarging import enlarged_labels, labels_at


@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9), st.floats(1, 7), st.integers(0, 99))
def test_labels_are_those_of_enlarged_probabilities(n: int, height: int, width: int, factor: float, seed: int) -> None:
    logits = 3 * torch.randn(1, n, height, width, generator=torch.Generator().manual_seed(seed))
    size = (round(height * factor), round(width * factor))
    probabilities = logits.softmax(1)
    expected = functional.interpolate(probabilities, size, mode="bilinear", align_corners=False)[0]
    labels = labels_at(size, probabilities[0])
    chosen = expected.gather(0, torch.from_numpy(labels.astype(np.int64))[None])[0]
    torch.testing.assert_close(chosen, expected.amax(0))
    assert labels.shape == size


def test_an_edge_stays_where_it_is_and_a_slope_has_no_stairs() -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[:, 5:] = 255
    edge = enlarged_labels(mask, (80, 80))
    assert (edge == np.where(np.arange(80) < 50, 0, 255)).all()
    slope = np.where(np.add.outer(np.arange(16), np.arange(16)) < 16, 3, 7).astype(np.uint8)
    large = enlarged_labels(slope, (160, 160))
    y, x = np.mgrid[0:160, 0:160]
    smooth = np.where((x + 0.5) / 10 + (y + 0.5) / 10 < 16.5, 3, 7)
    stairs = np.kron(slope, np.ones((10, 10), np.uint8))
    assert set(np.unique(large)) == {3, 7}
    assert (large != smooth).mean() < 0.5 * (stairs != smooth).mean()


@pytest.mark.parametrize("label", [0, 4, 255])
def test_one_label_fills_everything(label: int) -> None:
    assert (enlarged_labels(np.full((3, 4), label, np.uint8), (31, 17)) == label).all()


def test_the_masks_own_size_is_the_mask() -> None:
    mask = np.random.default_rng(0).integers(0, 4, (6, 5), dtype=np.uint8)
    assert enlarged_labels(mask, (6, 5)) is mask
