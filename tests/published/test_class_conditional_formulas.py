"""Class-conditional inference (Sun, Zhang, Barnes, WACV 2022): cuts, erasing and the union, by plain loops.

The network is a colour filter, so that what each view sees can be written down: whole maps are followed from the image
to the stride-4 grid, where a mirrored or shifted map would show.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from formulas import bilinear, close, drawn
from tagmask.contracts.localizer import Trained
from tagmask.functional import split_rectangles
from tagmask.methods.class_conditional.erasing import Erasing, erase, erasing_rounds, merge_rounds, normalize_with_floor
from tagmask.methods.class_conditional.localizer import ClassConditional
from tagmask.methods.class_conditional.split_unite import Rectangle, centres_of_mass, unite
from tagmask.ops.views import Views
from tagmask.types import ClassifierOutput

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


class Colours(nn.Module):
    """Features are the pixels' rectified colours: class 0 is red, 1 green, 2 blue."""

    class_weights = torch.eye(3)

    def forward(self, views: Tensor) -> ClassifierOutput:
        features = views.clamp(min=0)
        return ClassifierOutput(features, {}, features.mean((-2, -1)))


def centre(plane: np.ndarray) -> tuple[float, float]:
    total = y_sum = x_sum = 0.0
    for y in range(plane.shape[0]):
        for x in range(plane.shape[1]):
            total += plane[y, x]
            y_sum += y * plane[y, x]
            x_sum += x * plane[y, x]
    return (y_sum / total, x_sum / total) if total else (float(plane.shape[0] // 2), float(plane.shape[1] // 2))


@given(st.integers(0, 999), st.tuples(st.integers(1, 7), st.integers(1, 7)))
def test_centres_of_mass(seed: int, size: tuple[int, int]) -> None:
    maps = drawn(seed, 3, *size)
    maps[1] = 0
    close(np.array(centres_of_mass(torch.from_numpy(maps))), np.array([centre(one) for one in maps]))


def cut_by_hand(centres: list[tuple[float, float]], size: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """Table of 7.1 in words: corners of the image to beyond the farthest centre; clipped."""
    height, width = size
    if len(centres) > 2:
        return [(0, 0, height, width)] * 4
    buffer = 10 if len(centres) == 1 else 20
    ys, xs = [int(y) for y, _ in centres], [int(x) for _, x in centres]
    down, right = min(height, max(ys) + buffer), min(width, max(xs) + buffer)
    up, left = max(0, min(ys) - buffer), max(0, min(xs) - buffer)
    return [(0, 0, down, right), (0, left, down, width), (up, 0, height, right), (up, left, height, width)]


@given(
    st.tuples(st.integers(1, 120), st.integers(1, 120)),
    st.lists(st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)), min_size=1, max_size=4),
)
def test_cuts_are_anchored_in_the_corners_and_reach_beyond_the_centres(
    size: tuple[int, int], places: list[tuple[float, float]]
) -> None:
    centres = [(y * size[0], x * size[1]) for y, x in places]
    cuts = split_rectangles(centres, size)
    assert [tuple(cut) for cut in cuts] == cut_by_hand(centres, size)
    covered = np.zeros(size, int)
    for cut in cuts:
        assert 0 <= cut.top < cut.bottom <= size[0]
        assert 0 <= cut.left < cut.right <= size[1]
        covered[cut.top : cut.bottom, cut.left : cut.right] += 1
    assert covered.min() >= 1, "every pixel is in some cut"
    for y, x in centres:
        assert covered[int(y), int(x)] == 4, "every centre is in all of them"
    assert split_rectangles(centres[::-1], size) == cuts


def test_the_union_is_the_maximum_over_the_cuts_and_zero_between() -> None:
    cuts = [Rectangle(0, 0, 3, 4), Rectangle(1, 2, 5, 6)]
    parts = [drawn(i, 2, *cut.size) for i, cut in enumerate(cuts)]
    expected = np.zeros((2, 5, 6))
    for cut, part in zip(cuts, parts, strict=True):
        for y in range(cut.size[0]):
            for x in range(cut.size[1]):
                at = expected[:, cut.top + y, cut.left + x]
                expected[:, cut.top + y, cut.left + x] = np.maximum(at, part[:, y, x])
    close(unite([(cut, torch.from_numpy(part)) for cut, part in zip(cuts, parts, strict=True)], (5, 6)), expected)


def nearest(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The value at the floor of i * h / H, torch's nearest."""
    rows = [i * mask.shape[0] // size[0] for i in range(size[0])]
    columns = [j * mask.shape[1] // size[1] for j in range(size[1])]
    return mask[np.ix_(rows, columns)]


def erased_by_hand(pairs: list[np.ndarray], keep: np.ndarray, geometry: str) -> list[np.ndarray]:
    result, mask = [], keep
    for pair in pairs:
        small = nearest(mask if geometry == "reference" else keep, pair.shape[-2:])
        mask = small
        views = []
        for number, view in enumerate(pair):
            own = small[:, ::-1] if number == 1 and geometry == "correct" else small
            colour = view.mean(axis=(1, 2), keepdims=True)
            views.append(np.where(own, view, colour))
        result.append(np.stack(views))
    return result


@pytest.mark.parametrize("geometry", ["correct", "reference"])
def test_erased_pixels_take_the_mean_colour_of_their_view(geometry: Any) -> None:
    pairs = [drawn(i, 2, 3, *size) for i, size in enumerate([(6, 8), (3, 4), (9, 12)])]
    keep = np.random.default_rng(1).random((6, 8)) < 0.5
    result = erase([torch.from_numpy(pair) for pair in pairs], torch.from_numpy(keep), geometry)
    for one, own in zip(result, erased_by_hand(pairs, keep, geometry), strict=True):
        close(one, own)
    other = erased_by_hand(pairs, keep, "correct" if geometry == "reference" else "reference")
    assert not np.allclose(result[0], other[0]), "the two geometries differ in this case"


def rounds_by_hand(raws: list[np.ndarray], threshold: float, stop: float, most: int) -> list[tuple[np.ndarray, ...]]:
    """Loop of 7.2: normalise, take the maximum so far, erase what any class has reached, stop when little is new."""
    accumulated, before, seen = np.zeros_like(raws[0]), np.ones(raws[0].shape[1:]), []
    for raw in raws[:most]:
        maps = np.stack([one / (one.max() + 1e-5) for one in raw])
        accumulated = np.maximum(accumulated, maps)
        left = (accumulated.max(0) < threshold).astype(float)
        seen.append((maps, accumulated, left))
        if (before.sum() - left.sum()) / left.size < stop:
            break
        before = left
    return seen


@given(st.integers(0, 999), st.sampled_from([0.0, 0.01, 0.05, 0.2]), st.sampled_from([0.5, 0.7, 0.95]))
def test_erasing_goes_on_until_a_round_adds_less_than_stop(seed: int, stop: float, threshold: float) -> None:
    raws = [drawn(seed + i, 2, 4, 5) * 10**i for i in range(5)]
    asked: list[Any] = []

    def maps_of(pairs: Any) -> Tensor:
        asked.append(pairs)
        return torch.from_numpy(raws[len(asked) - 1])

    pairs = [torch.from_numpy(drawn(9, 2, 3, 4, 5))]
    settings = Erasing(threshold=threshold, stop=stop)
    rounds = list(erasing_rounds(pairs, maps_of, settings))
    expected = rounds_by_hand(raws, threshold, stop, 5)
    assert len(rounds) == len(expected) == len(asked)
    for one, (maps, accumulated, left) in zip(rounds, expected, strict=True):
        close(one.maps, maps)
        close(one.accumulated, accumulated)
        assert (one.keep_mask.numpy() == left.astype(bool)).all()
    close(asked[0][0], pairs[0].numpy())
    for number, own in enumerate(asked[1:]):  # always from the clean image
        close(own[0], erased_by_hand([pairs[0].numpy()], expected[number][2].astype(bool), "correct")[0])
    close(merge_rounds(rounds), expected[-1][1])
    total = sum(maps for maps, _, _ in expected)
    close(merge_rounds(rounds, "sum"), np.stack([one / max(1.0, one.max()) for one in total]))


def test_a_floor_holds_weak_maps_down() -> None:
    raw = torch.tensor([[[1.0, 2.0]], [[0.1, 0.05]]], dtype=torch.float64)
    close(normalize_with_floor(raw), [[[1 / 2.00001, 2 / 2.00001]], [[0.1 / 0.10001, 0.05 / 0.10001]]])
    floor = torch.tensor([1.0, 1.0], dtype=torch.float64)
    close(normalize_with_floor(raw, floor), [[[1 / 2.00001, 2 / 2.00001]], [[0.1 / 1.00001, 0.05 / 1.00001]]])


def view_maps(image: np.ndarray, channels: list[int]) -> np.ndarray:
    """Image and mirror of the colour filter, un-mirrored and summed: twice the rectified colour."""
    pixels = ((image / 255.0 - MEAN) / STD).transpose(2, 0, 1)
    return 2 * np.maximum(pixels, 0)[channels]


def response(image: np.ndarray, channels: list[int], threshold: float, most: int) -> np.ndarray:
    """7.1 to 7.3 for the colour filter at scale 1, on one image; the erased pixels have the view's mean colour."""
    seen = view_maps(image, channels)
    height, width = image.shape[:2]
    cuts = cut_by_hand([centre(one / (one.max() + 1e-5)) for one in seen], (height, width))
    united = np.zeros_like(seen)
    for top, left, bottom, right in dict.fromkeys(cuts):
        part = image[top:bottom, left:right]
        clean = ((part / 255.0 - MEAN) / STD).transpose(2, 0, 1)
        accumulated, before, current = np.zeros((len(channels), *part.shape[:2])), clean[0].size, clean
        for _ in range(most):
            raw = 2 * np.maximum(current, 0)[channels]
            accumulated = np.maximum(accumulated, np.stack([one / (one.max() + 1e-5) for one in raw]))
            keep = accumulated.max(0) < threshold
            if (before - keep.sum()) / keep.size < 0.01:
                break
            before = keep.sum()
            current = np.where(keep, clean, clean.mean(axis=(1, 2), keepdims=True))
        place = united[:, top:bottom, left:right]
        united[:, top:bottom, left:right] = np.maximum(place, accumulated)
    return united


@pytest.mark.parametrize("channels", [[0], [2], [0, 1], [0, 1, 2]])
def test_whole_maps_on_the_image_and_on_the_stride_4_grid(channels: list[int]) -> None:
    image = np.random.default_rng(len(channels)).integers(0, 256, (44, 58, 3), dtype=np.uint8)
    image[5:12, 4:9] = (255, 0, 0)  # nothing of it is symmetric
    image[30:40, 40:55] = (0, 255, 90)
    method = ClassConditional(inner={"name": "cam"})  # type: ignore[arg-type]
    trained, asked = Trained(Colours()), torch.tensor(channels)
    expected = response(image, channels, 0.7, 5)
    full = method.full_maps(trained, image, asked, Views((1.0,))).maps
    close(full, expected, 1e-5)
    strided = method.image_maps(trained, image, asked, Views((1.0,))).maps
    close(strided, bilinear(expected, (11, 15)), 1e-5)
    assert np.abs(strided.flip(-1).numpy() - strided.numpy()).max() > 0.2, "a mirrored map would be another one"


def test_split_alone_and_erasing_alone() -> None:
    image = np.random.default_rng(8).integers(0, 256, (36, 40, 3), dtype=np.uint8)
    trained, asked = Trained(Colours()), torch.tensor([1])
    split = ClassConditional(inner={"name": "cam"}, iterate=False)  # type: ignore[arg-type]
    close(split.full_maps(trained, image, asked, Views((1.0,))).maps, response(image, [1], 0.7, 1), 1e-5)
    whole = ClassConditional(inner={"name": "cam"}, split=False, iterate=False)  # type: ignore[arg-type]
    raw = view_maps(image, [1])
    close(whole.full_maps(trained, image, asked, Views((1.0,))).maps, raw / (raw.max() + 1e-5), 1e-5)
