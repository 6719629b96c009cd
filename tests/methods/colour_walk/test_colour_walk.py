"""The colour walk fills regions of one colour and stops where the colour changes."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch

from requests_of import refine_request
from tagmask.functional import colour_walk

module = importlib.import_module("tagmask.methods.colour_walk.refiner")


def two_colours(size=(32, 48)):
    """A red disc on green, noisy, and a map that lights up one part of the disc and spills over its rim."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: size[0], : size[1]]
    disc = (y - 16) ** 2 + (x - 20) ** 2 < 100
    image = np.where(disc[..., None], [200, 40, 40], [40, 160, 40]) + rng.integers(-5, 6, (*size, 3))
    blob = np.exp(-((y - 12) ** 2 + (x - 14) ** 2) / 60).astype(np.float32)
    return image.astype(np.uint8), disc, torch.from_numpy(blob)[None]


def best_iou(score, disc):
    return max(((score > t) & disc).sum() / ((score > t) | disc).sum() for t in np.arange(100) / 100)


def test_map_takes_the_outline_of_the_colour():
    image, disc, maps = two_colours()
    assert best_iou(maps[0].numpy(), disc) < 0.6
    assert best_iou(colour_walk(maps, image)[0].numpy(), disc) > 0.95


def test_output_is_a_map_again():
    image, _, maps = two_colours()
    stack = torch.cat([maps, 0.2 * maps.flip(2), torch.zeros_like(maps)])
    walked = colour_walk(stack, image)
    assert walked.shape == stack.shape
    assert walked.dtype == stack.dtype
    torch.testing.assert_close(walked.amax((1, 2)), torch.tensor([1.0, 1.0, 0.0]))
    assert walked.min() >= 0
    torch.testing.assert_close(walked[:1], colour_walk(maps, image))  # maps do not mix
    assert colour_walk(stack[:0], image).shape == (0, 32, 48)


def test_image_of_any_size_is_averaged_over_cells():
    image, _, _ = two_colours()
    big = image.repeat(4, 0).repeat(4, 1)
    maps = torch.rand(1, 32, 48, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(colour_walk(maps, big), colour_walk(maps, image))
    floats = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    torch.testing.assert_close(colour_walk(maps, floats), colour_walk(maps, image))


def test_affinity_is_the_gaussian_of_the_colour_difference():
    colours = torch.rand(3, 4, 5)
    affinity = module.colour_affinity(colours, radius=3, sigma=0.2)
    offsets = importlib.import_module("tagmask.ops.random_walk").stencil_offsets(3)
    for plane, (dy, dx) in zip(affinity, offsets, strict=True):
        for y in range(4):
            for x in range(5):
                inside = y + dy < 4 and 0 <= x + dx < 5
                difference = colours[:, y, x] - colours[:, y + dy, x + dx] if inside else torch.zeros(3)
                expected = float(torch.exp(-(difference**2).sum() / 0.08)) if inside else 0.0
                assert float(plane[y, x]) == pytest.approx(expected, abs=1e-6)


def test_one_pixel_and_one_row_maps():
    image, _, _ = two_colours()
    torch.testing.assert_close(colour_walk(torch.full((1, 1, 1), 0.5), image), torch.ones(1, 1, 1))
    assert colour_walk(torch.rand(1, 1, 7), image).isfinite().all()


def test_refiner_takes_its_settings():
    image, _, maps = two_colours()
    refiner = module.ColourWalk(radius=4, sigma=0.07, steps=30)
    expected = colour_walk(maps, image, radius=4, sigma=0.07, steps=30)
    torch.testing.assert_close(refiner.refine(refine_request(image, maps)), expected)
    assert (expected - colour_walk(maps, image)).abs().max() > 0.01


def test_refusals():
    image, _, maps = two_colours()
    with pytest.raises(ValueError, match="sigma"):
        colour_walk(maps, image, sigma=0)
    with pytest.raises(ValueError, match="uint8"):
        colour_walk(maps, image.astype(np.int32))
    with pytest.raises(ValueError, match="uint8"):
        colour_walk(maps, image[..., :2])


def test_power_sharpens_the_start() -> None:
    maps = torch.tensor([[[1.0, 0.5], [0.25, 0.0]]])
    image = torch.zeros(3, 2, 2)
    torch.testing.assert_close(colour_walk(maps, image, steps=0, power=2.0), maps**2)
    with pytest.raises(ValueError, match="power"):
        colour_walk(maps, image, power=0.0)


@pytest.mark.parametrize("radius", [5, 20])
def test_a_radius_beyond_the_grid_connects_all_pixels(radius: int) -> None:
    """On an image of one colour the walk ends in the mean, whatever reaches over the border."""
    maps = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0))
    walked = colour_walk(maps, np.full((12, 16, 3), 90, np.uint8), radius=radius, steps=256)
    torch.testing.assert_close(walked, torch.ones(2, 3, 4))


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_maps_that_are_not_finite_are_refused(value: float) -> None:
    maps = torch.rand(2, 3, 4)
    maps[1, 2, 3] = value
    with pytest.raises(ValueError, match="finite"):
        colour_walk(maps, np.zeros((12, 16, 3), np.uint8))
