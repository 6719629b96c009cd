"""Resizing, windows, crops: inside the image, image and labels aligned, all chance from the generator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tagmask.ops.transforms import (
    View,
    augment_image,
    jitter,
    normalise,
    place,
    random_resized_crop,
    random_window,
    reduced_to,
    resize_image,
    resize_mask,
    scaled_size,
)
from tagmask.types import IMAGENET

sides = st.integers(1, 40)
KINDS = ("resized_crop", "long_side", "scale_crop", "square")


def noise(seed: int, height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def options(**changes: Any) -> dict[str, Any]:
    plain = {
        "crop": 16,
        "scale": (0.5, 1.5),
        "ratio": (0.8, 1.25),
        "long_side": (8, 24),
        "flip": True,
        "colour_jitter": 0.2,
    }
    return {**plain, **changes}


def test_normalising_by_hand() -> None:
    image = np.array([[[0, 128, 255]]], np.uint8)
    expected = [(v / 255 - m) / s for v, m, s in zip((0, 128, 255), IMAGENET.mean, IMAGENET.std, strict=True)]
    torch.testing.assert_close(normalise(image, IMAGENET).flatten(), torch.tensor(expected), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [((5, 3), 0.5, (2, 2)), ((75, 101), 1.5, (112, 152)), ((1, 1), 0.5, (1, 1)), ((7, 9), 1.0, (7, 9))],
)
def test_scaled_sizes_round_halves_to_even(size: tuple[int, int], scale: float, expected: tuple[int, int]) -> None:
    assert scaled_size(size, scale) == expected


def test_the_same_size_is_not_resampled() -> None:
    image = noise(0, 5, 7)
    assert resize_image(image, (5, 7)) is image
    mask = np.zeros((5, 7), np.uint8)
    assert resize_mask(mask, (5, 7)) is mask


@given(sides, sides, sides, sides, st.integers(0, 99))
def test_a_resized_mask_invents_no_label(h: int, w: int, to_h: int, to_w: int, seed: int) -> None:
    mask = rng(seed).choice(np.array([0, 3, 9, 255], np.uint8), (h, w))
    resized = resize_mask(mask, (to_h, to_w))
    assert resized.shape == (to_h, to_w)
    assert set(np.unique(resized)) <= set(np.unique(mask))


@given(sides, sides, sides, st.integers(0, 999))
def test_windows_never_leave_the_image_or_the_canvas(h: int, w: int, crop: int, seed: int) -> None:
    window = random_window((h, w), crop, rng(seed))
    for piece, bound in zip(window, (crop, crop, h, w), strict=True):
        assert 0 <= piece.start < piece.stop <= bound
    for canvas, source, length in zip(window[:2], window[2:], (h, w), strict=True):
        assert canvas.stop - canvas.start == source.stop - source.start == min(length, crop)


@given(sides, sides, sides, st.integers(0, 999))
def test_what_is_placed_is_found_again(h: int, w: int, crop: int, seed: int) -> None:
    image = torch.arange(1.0, 1 + h * w).reshape(1, h, w)
    window = random_window((h, w), crop, rng(seed))
    canvas = place(image, crop, window, fill=-1.0)
    assert canvas.shape == (1, crop, crop)
    assert torch.equal(canvas[..., window[0], window[1]], image[..., window[2], window[3]])
    assert int((canvas > 0).sum()) == min(h, crop) * min(w, crop)


def test_windows_reach_both_ends() -> None:
    starts = {random_window((8, 8), 5, rng(seed))[2].start for seed in range(60)}
    assert starts == {0, 1, 2, 3}
    places = {random_window((5, 5), 8, rng(seed))[0].start for seed in range(60)}
    assert places == {0, 1, 2, 3}


@given(sides, sides, st.integers(0, 999))
def test_a_resized_crop_is_inside_the_image(h: int, w: int, seed: int) -> None:
    image = np.zeros((h, w, 3), np.uint8) + 77
    assert (random_resized_crop(image, 12, (0.1, 1.0), (0.5, 2.0), rng(seed)) == 77).all()


def test_a_resized_crop_covers_the_area_asked_for() -> None:
    """Colour = position, so the corners of the crop tell how much was cut."""
    ramp = np.arange(100, dtype=np.uint8)
    image = np.stack([np.broadcast_to(ramp, (100, 100)), np.broadcast_to(ramp[:, None], (100, 100))] * 2, -1)[..., :3]
    areas = []
    for seed in range(40):
        cut = random_resized_crop(np.ascontiguousarray(image), 32, (0.25, 0.5), (0.8, 1.25), rng(seed))
        span = [int(cut[..., k].max()) - int(cut[..., k].min()) + 1 for k in (0, 1)]
        areas.append(span[0] * span[1] / 1e4)
    assert 0.2 < min(areas) < 0.3
    assert 0.42 < max(areas) < 0.55


def test_the_whole_image_where_no_part_fits() -> None:
    image = noise(1, 2, 60)  # no part of it has this aspect
    cut = random_resized_crop(image, 8, (1.0, 1.0), (1.0, 1.0), rng(0))
    assert np.array_equal(cut, resize_image(image, (8, 8)))


@given(sides, sides, st.sampled_from(KINDS), st.integers(0, 999))
def test_views_are_a_function_of_the_seed(h: int, w: int, kind: str, seed: int) -> None:
    image = noise(seed, h, w)
    one = augment_image(image, kind, rng=rng(seed), statistics=IMAGENET, **options())
    assert one.shape == (3, 16, 16)
    assert one.dtype == torch.float32
    assert torch.isfinite(one).all()
    assert torch.equal(one, augment_image(image, kind, rng=rng(seed), statistics=IMAGENET, **options()))


@pytest.mark.parametrize("kind", KINDS)
def test_seeds_give_different_views(kind: str) -> None:
    views = [
        augment_image(noise(0, 30, 30), kind, rng=rng(seed), statistics=IMAGENET, **options()) for seed in range(4)
    ]
    assert all(not torch.equal(views[0], view) for view in views[1:])


def test_the_missing_area_is_the_mean_colour() -> None:
    view = augment_image(
        np.full((4, 4, 3), 255, np.uint8), "long_side", rng=rng(0), statistics=IMAGENET,
        **options(long_side=(4, 4), colour_jitter=0.0),
    )  # fmt: skip
    assert int((view == 0).all(0).sum()) == 16 * 16 - 16


def test_no_jitter_changes_nothing() -> None:
    image = noise(0, 5, 5)
    assert jitter(image, 0.0, rng(0)) is image
    assert not np.array_equal(jitter(image, 0.5, rng(0)), image)


@given(sides, sides, st.integers(0, 999), st.booleans())
def test_image_and_labels_stay_aligned(h: int, w: int, seed: int, flip: bool) -> None:
    """Label 1 where the image is white, 2 where it is black; they must agree in every pixel of the view."""
    white = rng(seed).random((h, w)) < 0.5
    image = np.repeat(np.where(white, 255, 0).astype(np.uint8)[..., None], 3, -1)
    mask = np.where(white, 1, 2).astype(np.uint8)
    view = View.draw((h, w), crop=24, scale=(1.0, 1.0), flip=flip, rng=rng(seed))
    pixels, labels = view.pixels(image, 0.0, rng(seed), IMAGENET), view.labels(mask)
    assert torch.equal(labels == 1, pixels[0] > 1)
    assert torch.equal(labels == 2, pixels[0] < -1)
    assert torch.equal(labels == 255, (pixels == 0).all(0))
    assert torch.equal(labels != 255, view.inside())
    plane = view.plane(np.where(white, 0.75, 0.25).astype(np.float32))
    assert torch.equal(plane, torch.where(labels == 1, 0.75, 0.25) * view.inside())


@given(sides, sides, st.integers(0, 999))
def test_scaled_pairs_stay_aligned(h: int, w: int, seed: int) -> None:
    """Two halves, scaled: the border may blur, the sides of it may not swap."""
    white = np.broadcast_to(np.arange(w) < w / 2, (h, w))
    image = np.repeat(np.where(white, 255, 0).astype(np.uint8)[..., None], 3, -1)
    view = View.draw((h, w), crop=32, scale=(0.6, 1.8), flip=True, rng=rng(seed))
    pixels, labels = view.pixels(image, 0.0, rng(seed), IMAGENET), view.labels(white.astype(np.uint8))
    plane = view.plane(white.astype(np.float32))
    inside = labels != 255
    disagree = ((labels == 1) != (pixels[0] > 0)) & inside
    assert int(disagree.sum(1).max()) <= 1 if w > 1 else True
    disagree = ((labels == 1) != (plane > 0.5)) & inside
    assert int(disagree.sum(1).max()) <= 1 if w > 1 else True
    assert float(plane[~inside].sum()) == 0
    assert labels.dtype == torch.int64


@pytest.mark.parametrize(
    ("size", "longest", "expected"),
    [((40, 24), 20, (20, 12)), ((24, 40), 20, (12, 20)), ((300, 1), 30, (30, 1)), ((20, 12), 20, (20, 12))],
)
def test_large_images_are_made_smaller(size: tuple[int, int], longest: int, expected: tuple[int, int]) -> None:
    assert reduced_to(np.zeros((*size, 3), np.uint8), longest).shape[:2] == expected


@given(
    sides, sides, st.integers(0, 10_000), st.floats(0.3, 3.0), st.booleans(), st.floats(0, 0.999), st.floats(0, 0.999)
)
def test_a_view_over_a_pixel_holds_it(
    h: int, w: int, seed: int, factor: float, flip: bool, row: float, column: float
) -> None:
    over = int(row * h), int(column * w)
    view = View.draw((h, w), crop=16, scale=(factor, factor), flip=flip, rng=rng(seed), over=over)
    # The pixel's middle in the scaled image, mirrored or not, and the part of that image which is taken.
    x = w - 1 - over[1] if view.mirrored else over[1]
    middle = int((over[0] + 0.5) * view.size[0] / h), int((x + 0.5) * view.size[1] / w)
    for position, part, canvas in zip(middle, view.window[2:], view.window[:2], strict=True):
        assert part.start <= position < part.stop
        assert 0 <= canvas.start < canvas.stop <= 16


def test_published_factors_are_drawn_from_a_list() -> None:
    choices = (0.5, 0.75, 1.0, 1.25, 1.5)
    drawn = {
        View.draw((51, 71), crop=24, scale=(1.0, 1.0), flip=True, rng=rng(seed), choices=choices).size
        for seed in range(99)
    }
    assert drawn == {(int(51 * factor), int(71 * factor)) for factor in choices}  # cut off, as DeepLab's code does


@pytest.mark.parametrize(
    ("size", "expected"),
    [((375, 500), (512, 683)), ((500, 375), (683, 512)), ((480, 640), (512, 683)), ((100, 1000), (205, 2048))],
)
def test_a_factor_of_the_image_with_a_short_side(size: tuple[int, int], expected: tuple[int, int]) -> None:
    """2048 x 512 with the ratio kept: short side 512, but no long side above 2048."""
    view = View.draw(size, crop=512, scale=(1.0, 1.0), flip=False, rng=rng(0), short_side=512)
    assert view.size == expected


def test_a_crop_of_one_label_is_drawn_again() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[24:40, 24:40] = 3
    first = [View.draw((64, 64), crop=16, scale=(1.0, 1.0), flip=True, rng=rng(seed)) for seed in range(50)]
    mixed = [view.mixed(mask, 0.75, rng(seed)) for seed, view in enumerate(first)]
    shares = [[float(view.labels(mask).flatten().bincount().max()) / 256 for view in views] for views in (first, mixed)]
    good = [sum(share < 0.75 for share in own) for own in shares]
    assert good[1] > 2 * good[0]
    # One that is mixed already is left alone, and scale and mirror stay in any case.
    assert all(new == old for old, new, share in zip(first, mixed, shares[0], strict=True) if share < 0.75)
    assert all((new.size, new.mirrored) == (old.size, old.mirrored) for old, new in zip(first, mixed, strict=True))


def test_a_crop_without_a_label_is_drawn_as_often_as_allowed() -> None:
    view = View.draw((40, 40), crop=16, scale=(1.0, 1.0), flip=False, rng=rng(0))
    assert view.mixed(np.full((40, 40), 255, np.uint8), 0.75, rng(1), tries=1) == view


def test_a_view_over_no_pixel_is_drawn_as_ever() -> None:
    """Runs of earlier versions go on to the same bits."""
    views = [View.draw((50, 70), crop=24, scale=(0.5, 2.0), flip=True, rng=rng(7)) for _ in range(2)]
    assert views[0] == views[1]
    generator = rng(7)
    mirrored = bool(generator.random() < 0.5)
    size = scaled_size((50, 70), float(generator.uniform(0.5, 2.0)))
    offsets = [int(generator.integers(abs(24 - side) + 1)) for side in size]
    assert (views[0].mirrored, views[0].size) == (mirrored, size)
    assert [part.start for part in views[0].window[2:]] == offsets
