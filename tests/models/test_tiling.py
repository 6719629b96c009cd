"""Tiles: they cover the image, blend without seams, and hold one row of tiles at a time."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tagmask.models.tiling import blended_bands, ramp, tile_starts
from tagmask.types import UInt8Array


def picture(height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(height + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def pixelwise(part: UInt8Array) -> Tensor:
    return torch.from_numpy(part[..., :2].transpose(2, 0, 1).astype(np.float32))


@given(st.integers(1, 900), st.integers(4, 300))
def test_tiles_cover_everything_and_overlap(length: int, tile: int) -> None:
    side, starts = min(length, tile), tile_starts(length, min(length, tile))
    covered = np.zeros(length, int)
    for start in starts:
        assert 0 <= start <= length - side
        covered[start : start + side] += 1
    assert covered.min() >= 1
    assert all(later - earlier <= side - side // 4 for earlier, later in itertools.pairwise(starts))
    assert starts == sorted(set(starts))


@given(st.integers(1, 60), st.integers(1, 60), st.integers(4, 40))
def test_what_looks_at_single_pixels_has_no_seams(height: int, width: int, tile: int) -> None:
    image = picture(height, width)
    bands = list(blended_bands(image, pixelwise, n_labels=2, tile=tile))
    torch.testing.assert_close(torch.cat(bands, 1), pixelwise(image), rtol=1e-5, atol=1e-3)
    assert max(band.shape[1] for band in bands) <= tile


def test_two_tiles_fade_into_each_other() -> None:
    values = iter([0.0, 1.0])
    image = np.zeros((8, 14, 3), np.uint8)
    [band] = blended_bands(image, lambda part: torch.full((1, *part.shape[:2]), next(values)), n_labels=1, tile=8)
    row = band[0, 0]
    assert row[:6].tolist() == [0.0] * 6
    assert row[8:].tolist() == [1.0] * 6
    assert 0 < row[6] < row[7] < 1


def test_the_ramp_is_never_zero() -> None:
    assert ramp(8).tolist() == [0.5, 1, 1, 1, 1, 1, 1, 0.5]
    assert ramp(1).tolist() == [1.0]


def test_memory_is_that_of_one_row_of_tiles() -> None:
    """Of a tall image the largest tensor ever made is as high as a tile."""
    highest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal highest
            found = function(*args, **(kwargs or {}))
            if isinstance(found, Tensor):
                highest = max(highest, found.numel())
            return found

    with Watch():
        for _ in blended_bands(np.zeros((3000, 40, 3), np.uint8), pixelwise, n_labels=2, tile=32):
            pass
    assert highest <= 3000  # the weights along the height; one row of tiles is 2 * 32 * 40
