"""Maps that are kept as grids: enlarged again they are the published full-size maps, at any size and scales."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from golden_net import GoldenNet
from tagmask.contracts.localizer import ImageMaps, Trained, ViewLocalizer
from tagmask.data.partsworld.draw import render
from tagmask.data.partsworld.scene import SceneSettings
from tagmask.methods.class_conditional.localizer import ClassConditional
from tagmask.ops import map_grids as module
from tagmask.ops.map_grids import MapGrids
from tagmask.ops.maps import maps_to_labels, upsample_maps
from tagmask.ops.views import Views, merge_scales, multi_scale_maps, normalize_maps, strided_size, sum_scales
from tagmask.runs.workspace import Workspace
from tagmask.settings.localize import LocalizeSettings
from tagmask.stages.localize.stage import activation_maps
from tagmask.types import IMAGENET, ActivationMaps, ClassifierOutput, UInt8Array

Golden = Callable[[str], Mapping[str, np.ndarray[Any, Any]]]
SCALES = (1.0, 0.5, 1.5, 2.0)


def random(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(97, 61), (240, 16), (9, 5)])
@pytest.mark.parametrize("n_maps", [0, 1, 3])
def test_bands_together_are_the_whole(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], n_maps: int) -> None:
    maps = random(0, n_maps, 13, 8)
    whole = upsample_maps(maps, size)
    stretched = MapGrids.stretched(maps, size)
    ((rows, at_once),) = stretched.bands(size)
    assert rows == slice(0, size[0])
    torch.testing.assert_close(at_once, whole, rtol=0, atol=0)

    monkeypatch.setattr(module, "_PIXELS_IN_BAND", 7 * size[1] * max(1, n_maps))
    bands = list(stretched.bands(size))
    assert len(bands) == (1 if n_maps == 0 else -(-size[0] // 7))
    assert [rows.start for rows, _ in bands[1:]] == [rows.stop for rows, _ in bands[:-1]]
    torch.testing.assert_close(torch.cat([part for _, part in bands], dim=1), whole, rtol=0, atol=1e-6)


def scales_of(seed: int, size: tuple[int, int], n_maps: int = 2, stride: int = 16) -> list[Tensor]:
    """Maps of every scale as a network of this stride has them."""
    shapes = [[-(-round(side * scale) // stride) for side in size] for scale in SCALES]
    return [random(seed + number, n_maps, *shape) ** 3 for number, shape in enumerate(shapes)]


sizes = st.tuples(st.integers(5, 90), st.integers(5, 90))


@given(sizes, st.integers(0, 99))
def test_the_sum_of_the_grids_is_the_published_full_map(size: tuple[int, int], seed: int) -> None:
    per_scale = scales_of(seed, size)
    raw = merge_scales(per_scale, size, normalize=False)
    found = ImageMaps.of_scales(per_scale, size)
    assert found.full is not None
    torch.testing.assert_close(found.maps, raw[0], rtol=0, atol=0)
    torch.testing.assert_close(found.full.at(size), raw[1], rtol=0, atol=0)
    torch.testing.assert_close(found.full.divided().at(size), normalize_maps(raw[1]), rtol=0, atol=1e-5)


@given(sizes, sizes, st.integers(0, 99))
def test_at_another_size_it_is_sampled_where_the_full_map_would_be(
    size: tuple[int, int], other: tuple[int, int], seed: int
) -> None:
    """By hand in float64: the pixel's centre in the frame, then between the four cells around it."""
    per_scale, frame = scales_of(seed, size, 1), tuple(-(-side // 16) * 16 for side in size)
    found = MapGrids(tuple(per_scale), (frame[0], frame[1]), size).at(other)
    expected = np.zeros(other)
    for grid in per_scale:
        axes = []
        for axis in range(2):
            cells = grid.shape[1 + axis]
            inside = (np.arange(other[axis]) + 0.5) * size[axis] / other[axis]
            places = (inside * cells / frame[axis] - 0.5).clip(0, cells - 1)
            axes.append(np.maximum(0, 1 - np.abs(places[:, None] - np.arange(cells))))
        expected += axes[0] @ grid[0].double().numpy() @ axes[1].T
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=0, atol=1e-5)


def test_bands_of_cut_grids_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    size = (83, 107)
    grids = MapGrids(tuple(scales_of(0, size)), (96, 112), size)
    whole = grids.at(size)
    monkeypatch.setattr(module, "_PIXELS_IN_BAND", 9 * 107 * 2)
    bands = list(grids.bands(size))
    assert len(bands) == 10
    torch.testing.assert_close(torch.cat([part for _, part in bands], dim=1), whole, rtol=0, atol=1e-5)
    torch.testing.assert_close(grids.divided().at(size), normalize_maps(whole), rtol=0, atol=1e-5)


def test_cells_beyond_the_border_are_cut_off_and_others_stretched() -> None:
    """IRNet's walk: enlarged by 4, and cut."""
    walked = random(0, 2, *strided_size((53, 61)))
    published = torch.nn.functional.interpolate(walked[None], scale_factor=4, mode="bilinear")[0, :, :53, :61]
    torch.testing.assert_close(MapGrids.of_cells(walked, (53, 61), 4).at((53, 61)), published, rtol=0, atol=1e-6)
    other = random(1, 2, 7, 9)
    assert torch.equal(MapGrids.of_cells(other, (53, 61), 4).at((53, 61)), upsample_maps(other, (53, 61)))


# -- what is kept gives the labels of the full maps -------------------------------------------------------------------


def worst_share(kept: Tensor, direct: Tensor) -> float:
    """The largest share of labels that differ, over all thresholds 0.00, 0.01, ..., 1.00."""
    labels = np.arange(1, len(kept) + 1)
    pairs = [[maps_to_labels(maps, labels, number / 100) for maps in (kept, direct)] for number in range(101)]
    return max(float((one != other).mean()) for one, other in pairs)


def stored_again(folder: Path, maps: ActivationMaps) -> ActivationMaps:
    Workspace(folder).save_maps("a", maps)
    return Workspace(folder).load_maps("a")


@pytest.mark.parametrize("size", [(213, 320), (101, 75), (64, 64), (127, 250)])
def test_labels_of_kept_maps_are_those_of_the_full_maps(tmp_path: Path, size: tuple[int, int]) -> None:
    for seed in range(3):
        per_scale = scales_of(10 * seed, size)
        direct = merge_scales(per_scale, size)[1]
        full = ImageMaps.of_scales(per_scale, size).full
        assert full is not None
        grids = tuple(grid.numpy() for grid in full.divided().grids)
        strided = normalize_maps(merge_scales(per_scale, size)[0]).numpy()
        maps = ActivationMaps(np.array([1, 2]), strided, np.ones(2, np.float32), size, (), (), grids, full.frame, size)
        kept = MapGrids.of(stored_again(tmp_path, maps)).at(size)
        assert worst_share(kept, direct) < 0.003
        # The fault: what was kept at a quarter of the size and stretched back.
        stretched = upsample_maps(torch.from_numpy(stored_again(tmp_path, maps.with_maps(strided)).maps), size)
        assert worst_share(stretched, direct) > 0.003


class Strided(torch.nn.Module):
    """A random network of stride 16."""

    input_statistics = IMAGENET

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = random(0, 16, 3, 8, 8) - 0.5, random(1, 32, 16, 4, 4) - 0.5
        self.class_weights = random(2, 5, 32) - 0.5

    def forward(self, views: Tensor) -> ClassifierOutput:
        low = torch.nn.functional.conv2d(views, self.first, stride=4, padding=2).relu()
        high = torch.nn.functional.conv2d(low, self.second, stride=4, padding=2).relu() / 100
        return ClassifierOutput(high, {1: low, 2: high}, high.mean((2, 3)) @ self.class_weights.T)


def maps_at(method: ViewLocalizer, model: Strided, channels: Tensor, pair: Tensor) -> Tensor:
    return method.scale_maps(Trained(model), model(pair), channels)


def pictures() -> list[UInt8Array]:
    scene = SceneSettings(size=144)
    sides = [(141, 99), (83, 144), (113, 127)]
    return [np.ascontiguousarray(render(scene, "train", n).image[:h, :w]) for n, (h, w) in enumerate(sides)]


@pytest.mark.parametrize("name", ["cam", "ssa", "class_conditional"])
def test_labels_of_an_artifact_are_those_of_the_published_full_maps(tmp_path: Path, name: str) -> None:
    model, channels = Strided(), torch.tensor([1, 4])
    settings = LocalizeSettings(method=name, scales=SCALES)
    method, views = settings.method, Views(SCALES)
    for image in pictures():
        size = image.shape[0], image.shape[1]
        if isinstance(method, ClassConditional):
            direct = normalize_maps(method.full_maps(Trained(model), image, channels, views).maps)
        else:
            assert isinstance(method, ViewLocalizer)
            per_scale = multi_scale_maps(image, partial(maps_at, method, model, channels), views)
            direct = merge_scales(per_scale, size)[1]
        kept = MapGrids.of(stored_again(tmp_path, activation_maps(model, image, (2, 5), settings))).at(size)
        assert float((kept - direct).abs().max()) < 1e-3
        assert worst_share(kept, direct) < 0.003


def test_full_size_maps_can_be_stretched_over_the_image() -> None:
    model, image = Strided(), pictures()[0]
    size = image.shape[0], image.shape[1]
    found = activation_maps(model, image, (2, 5), LocalizeSettings(scales=SCALES, full_size="stretched"))
    method = LocalizeSettings().method
    assert isinstance(method, ViewLocalizer)
    per_scale = multi_scale_maps(image, partial(maps_at, method, model, torch.tensor([1, 4])), Views(SCALES))
    expected = normalize_maps(sum_scales(per_scale, size))
    torch.testing.assert_close(MapGrids.of(found).at(size), expected, rtol=0, atol=1e-5)


def test_the_published_full_maps_are_kept(golden: Golden, tmp_path: Path) -> None:
    stored = golden("multi_scale_cam")
    labels = tuple(int(index) + 1 for index in stored["expected_class_indices"])
    settings = LocalizeSettings(scales=tuple(float(scale) for scale in stored["scales"]))
    found = activation_maps(GoldenNet(stored), stored["image_uint8"], labels, settings)
    expected = torch.from_numpy(stored["expected_highres_cam"])
    size = (expected.shape[1], expected.shape[2])
    torch.testing.assert_close(MapGrids.of(found).at(size), expected, rtol=0, atol=1e-5)
    kept = MapGrids.of(stored_again(tmp_path, found)).at(size)
    torch.testing.assert_close(kept, expected, rtol=0, atol=1e-3)
    assert worst_share(kept, expected) < 0.003
