"""PAMR against its published code, the plain definition, and what follows from it being an average."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from requests_of import refine_request
from tagmask.functional import pamr

# The package attribute of that name is the function.
module = importlib.import_module("tagmask.methods.pamr.refiner")


def plain(image, masks, iterations, dilations):
    """The definition with one loop per pixel and neighbour, float64, masks [C, H, W] at image size."""
    _, height, width = image.shape
    offsets = module.neighbour_offsets(dilations)
    at = {
        (y, x): [(min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)) for dy, dx in offsets]
        for y in range(height)
        for x in range(width)
    }
    weights = {}
    for p, around in at.items():
        values = np.stack([image[:, y, x] for y, x in around] + [image[:, p[0], p[1]]] * len(dilations))
        deviation = values.std(axis=0, ddof=1)
        k = [-np.mean(np.abs(image[:, p[0], p[1]] - image[:, y, x]) / (1e-8 + 0.1 * deviation)) for y, x in around]
        weights[p] = np.exp(k) / np.exp(k).sum()
    for _ in range(iterations):
        new = np.empty_like(masks)
        for p, around in at.items():
            new[:, p[0], p[1]] = sum(w * masks[:, y, x] for w, (y, x) in zip(weights[p], around, strict=True))
        masks = new
    return masks


@pytest.mark.parametrize(
    ("masks", "expected", "options"),
    [
        ("mask", "expected_mask", {}),
        ("mask_small", "expected_mask_from_small", {}),
        ("mask", "expected_mask_b", {"iterations": 1, "dilations": (1, 2)}),
    ],
)
def test_golden_of_the_published_code(golden, masks, expected, options):
    stored = golden("pamr")
    found = pamr(torch.from_numpy(stored["image"]), torch.from_numpy(stored[masks]), **options)
    np.testing.assert_allclose(found.numpy(), stored[expected], rtol=0, atol=5e-6)


def test_golden_weights(golden):
    stored = golden("pamr")
    weights = module.pamr_weights(torch.from_numpy(stored["image"])[0]).numpy()
    np.testing.assert_allclose(weights[:8], stored["expected_affinity_first8"], rtol=0, atol=5e-6)
    np.testing.assert_allclose(weights[-8:], stored["expected_affinity_last8"], rtol=0, atol=5e-6)


def test_equals_the_plain_definition_in_every_tile(monkeypatch):
    monkeypatch.setattr(module, "_TILE", 20)  # a few rows
    rng = np.random.default_rng(0)
    image, masks = rng.random((3, 7, 6)), rng.random((2, 7, 6))
    found = pamr(torch.from_numpy(image)[None], torch.from_numpy(masks)[None], iterations=3, dilations=(1, 3))
    np.testing.assert_allclose(found[0].numpy(), plain(image, masks, 3, (1, 3)), rtol=0, atol=1e-12)


def test_constant_image_gives_the_plain_mean_of_the_neighbours():
    masks = torch.rand(1, 2, 30, 40, generator=torch.Generator().manual_seed(0))
    found = pamr(torch.full((1, 3, 30, 40), 0.3), masks, iterations=1)
    padded = functional.pad(masks, (24,) * 4, mode="replicate")
    neighbours = [
        padded[:, :, 24 + dy : 54 + dy, 24 + dx : 64 + dx] for dy, dx in module.neighbour_offsets(module.DILATIONS)
    ]
    assert len(neighbours) == 48
    torch.testing.assert_close(found, torch.stack(neighbours).mean(0))


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9))
def test_constants_stay_and_the_range_is_kept(seed, height, width):
    generator = torch.Generator().manual_seed(seed)
    image, masks = torch.rand(1, 3, height, width, generator=generator), torch.rand(1, 2, 3, 4, generator=generator)
    masks[0, 1] = 0.7
    found = pamr(image, masks, iterations=4)
    assert found.shape == (1, 2, height, width)
    torch.testing.assert_close(found[0, 1], torch.full((height, width), 0.7))
    assert masks[0, 0].min() - 1e-5 <= found[0, 0].min()
    assert found[0, 0].max() <= masks[0, 0].max() + 1e-5


def test_the_scale_and_offset_of_the_image_do_not_matter():
    generator = torch.Generator().manual_seed(1)
    image, masks = torch.rand(1, 3, 12, 16, generator=generator), torch.rand(1, 1, 12, 16, generator=generator)
    torch.testing.assert_close(pamr(image * 50 - 20, masks), pamr(image, masks), rtol=0, atol=1e-5)


def test_a_colour_edge_holds_and_its_region_fills():
    image = torch.zeros(1, 3, 20, 30)
    image[..., 15:] = 1
    masks = torch.zeros(1, 1, 20, 30)
    masks[0, 0, 5:15, 8:20] = 1  # spills over the edge at column 15
    found = pamr(image, masks, iterations=30)[0, 0]
    left, right = found[:, :15], found[:, 15:]
    assert float(left.max() - left.min()) < 0.2
    assert float(left.min()) > float(right.max())


def test_images_of_a_batch_and_masks_do_not_mix():
    generator = torch.Generator().manual_seed(2)
    image, masks = torch.rand(2, 3, 9, 11, generator=generator), torch.rand(2, 3, 5, 6, generator=generator)
    before = masks.clone()
    found = pamr(image, masks)
    torch.testing.assert_close(found[1:, 2:], pamr(image[1:], masks[1:, 2:]))
    assert torch.equal(masks, before)
    assert pamr(image, masks[:, :0]).shape == (2, 0, 9, 11)


def test_one_pixel():
    torch.testing.assert_close(
        pamr(torch.rand(1, 3, 1, 1), torch.full((1, 1, 1, 1), 0.4)), torch.full((1, 1, 1, 1), 0.4)
    )


def test_refusals():
    image, masks = torch.rand(1, 3, 6, 8), torch.rand(1, 2, 6, 8)
    hole = masks.clone()
    hole[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="masks must be finite"):
        pamr(image, hole)
    with pytest.raises(ValueError, match="image must be finite"):
        pamr(image * float("inf"), masks)
    with pytest.raises(ValueError, match="do not fit"):
        pamr(image[0], masks)
    with pytest.raises(ValueError, match="do not fit"):
        pamr(image, masks[:, :, :0])
    for options in ({"iterations": -1}, {"dilations": ()}, {"dilations": (0,)}):
        with pytest.raises(ValueError, match="iterations must not be negative"):
            pamr(image, masks, **options)


def test_refiner_works_on_a_bounded_image(monkeypatch):
    seen = []
    whole = module.pamr
    monkeypatch.setattr(
        module, "pamr", lambda image, masks, **options: seen.append(image.shape[2:]) or whole(image, masks, **options)
    )
    image = np.random.default_rng(0).integers(0, 256, (60, 120, 3), dtype=np.uint8)
    for size, grid, expected in (((60, 120), (15, 30), (60, 120)), ((60, 120), (5, 10), (60, 120))):
        module.Pamr().refine(refine_request(image, torch.rand(1, *grid)))
        assert tuple(seen.pop()) == expected, size
    module.Pamr(max_side=30).refine(refine_request(image, torch.rand(1, 15, 30)))
    assert tuple(seen.pop()) == (15, 30)
    module.Pamr(max_side=16).refine(refine_request(image, torch.rand(1, 20, 40)))
    assert tuple(seen.pop()) == (20, 40)


def test_refiner_takes_its_settings_and_ends_at_one():
    image = np.random.default_rng(1).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    maps = 0.5 * torch.rand(2, 6, 8, generator=torch.Generator().manual_seed(3))
    refiner = module.Pamr(iterations=2, dilations=(1, 2))
    found = refiner.refine(refine_request(image, maps))
    colours = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    full = pamr(colours, maps[None], iterations=2, dilations=(1, 2))[0]
    cells = full.view(2, 6, 4, 8, 4).mean((2, 4))
    torch.testing.assert_close(found, cells / cells.amax((1, 2), keepdim=True))
    for wrong in (image[..., 0], image.astype(np.float32)):
        with pytest.raises(ValueError, match="uint8"):
            refiner.refine(refine_request(wrong, maps))
    bands = image[..., [0, 1, 2, 0]]  # of more channels the first three are colours
    torch.testing.assert_close(refiner.refine(refine_request(bands, maps)), found)
