"""Local contrast by hand: what stands out of its surroundings, on which side, and for which classes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from requests_of import refine_request
from tagmask.functional import contrast, local_contrast
from tagmask.methods.local_contrast.refiner import LocalContrast


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values.astype(np.uint8)[..., None], 3, -1)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(2, 12), st.integers(0, 999))
def test_the_mean_of_a_window_is_that_of_the_definition(h: int, w: int, radius: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 256, (h, w))

    def mean(reach: int) -> np.ndarray:
        padded = np.pad(values / 255, reach, mode="edge")
        side = 2 * reach + 1
        return np.array([[padded[y : y + side, x : x + side].mean() for x in range(w)] for y in range(h)])

    expected = mean(1) - mean(radius)
    for side, part in (("dark", -expected), ("bright", expected), ("both", np.abs(expected))):
        np.testing.assert_allclose(contrast(grey(values), radius=radius, side=side), part.clip(0), atol=1e-6)


def test_a_pore_is_cut_out_of_the_blob_over_it() -> None:
    values = np.full((64, 64), 120)
    values[28:34, 40:46] = 60
    pore = values == 60
    rows, columns = np.mgrid[:16, :16]
    blob = torch.exp(-((torch.tensor(rows) - 8.0) ** 2 + (torch.tensor(columns) - 9.0) ** 2) / 30)[None].float()

    def iou(maps: torch.Tensor) -> float:
        full = torch.nn.functional.interpolate(maps[None], size=(64, 64), mode="bilinear")[0, 0].numpy() > 0.5
        return float((full & pore).sum() / (full | pore).sum())

    refined = local_contrast(blob, grey(values), side="dark")
    assert iou(blob) < 0.15
    assert iou(refined) > 0.5
    assert float(refined.max()) == 1
    # A bright thing beside it, which the map covers too, is nothing on the dark side.
    values[20:24, 30:34] = 250
    again = local_contrast(blob, grey(values), side="dark")
    assert float(again[0, 5, 7]) < 0.05
    assert float(local_contrast(blob, grey(values), side="bright")[0, 5, 7]) > 0.9
    assert float(local_contrast(blob, grey(values))[0, 5, 7]) > 0.2


def test_without_contrast_the_map_stays() -> None:
    maps = torch.rand(2, 6, 6)
    refined = local_contrast(maps, grey(np.full((24, 24), 77)), side="dark")
    torch.testing.assert_close(refined, maps / maps.amax((1, 2), keepdim=True))
    assert not local_contrast(torch.zeros(1, 6, 6), grey(np.full((24, 24), 77))).any()


def test_only_the_named_classes() -> None:
    image, maps = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8), torch.rand(2, 6, 6)
    request = replace(refine_request(image, maps), names=("crack", "fray"))
    refined = LocalContrast(classes=("fray", "pore")).refine(request)
    assert torch.equal(refined[0], maps[0])
    torch.testing.assert_close(refined[1:], local_contrast(maps[1:], image))
    everything = LocalContrast().refine(request)
    torch.testing.assert_close(everything, local_contrast(maps, image))


def test_a_picture_is_asked_for() -> None:
    with pytest.raises(ValueError, match="uint8"):
        contrast(np.zeros((4, 4), np.uint8))
