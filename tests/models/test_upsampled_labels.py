"""Labels of enlarged logits are torch's: enlarged, then the highest channel, but for values that are nearly equal."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from tagmask.models.upsampled_labels import upsampled_labels


def is_torchs(logits: Tensor, size: tuple[int, int], *, align_corners: bool, crop: tuple[int, int]) -> None:
    found = upsampled_labels(logits, size, align_corners=align_corners, crop=crop)
    assert found.dtype == np.uint8
    assert found.shape == crop
    enlarged = functional.interpolate(logits[None].float(), size=size, mode="bilinear", align_corners=align_corners)[0]
    enlarged = enlarged[:, : crop[0], : crop[1]]
    reached = enlarged.gather(0, torch.from_numpy(found.astype(np.int64))[None])[0]
    assert bool((enlarged.amax(0) - reached <= 1e-5).all())


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 24),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.booleans(),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.floats(0, 1),
)
def test_labels_are_those_of_the_enlarged_logits(
    seed: int, n: int, small: tuple[int, int], size: tuple[int, int], align: bool, kind: torch.dtype, part: float
) -> None:
    """Any size to any other, odd ones and smaller ones too; with channels first or last; cut or not."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, n, *small, generator=generator).to(kind)
    smooth = functional.avg_pool2d(logits, 3, 1, 1)
    crop = max(1, round(part * size[0])), size[1]
    for each in (logits, smooth.contiguous(memory_format=torch.channels_last)):
        is_torchs(each[0], size, align_corners=align, crop=crop)


@pytest.mark.parametrize("align", [False, True])
def test_a_channel_that_is_highest_at_no_sample_is_found_between_them(align: bool) -> None:
    logits = torch.tensor([[[1.0, -1.0]], [[-1.0, 1.0]], [[0.5, 0.5]]])
    found = upsampled_labels(logits, (1, 8), align_corners=align)[0].tolist()
    assert set(found) == {0, 1, 2}
    assert found == [0] * found.count(0) + [2] * found.count(2) + [1] * found.count(1)


def test_the_first_of_equal_channels() -> None:
    assert not upsampled_labels(torch.ones(5, 3, 4), (12, 16), align_corners=True).any()


def test_without_a_number_there_is_still_a_channel() -> None:
    logits = torch.randn(6, 4, 4, generator=torch.Generator().manual_seed(0))
    logits[:, 1, 2] = torch.nan
    assert upsampled_labels(logits, (16, 16), align_corners=True).max() < 6
