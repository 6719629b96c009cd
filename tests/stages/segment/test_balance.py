"""Class-balanced sampling: what rare classes get, and where the counts come from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagmask.errors import UnreadableMaskError
from tagmask.settings.segment import SegmentSettings
from tagmask.stages.segment.balance import label_pixels, object_pixel, repeat_factors
from tagmask.stages.segment.schedule import sampling_weights
from tagmask.types import Sample, UInt8Array


def test_by_hand() -> None:
    """Class 1 in four images, class 2 in one: the mean share is 2.5, so class 2 asks for sqrt(2.5)."""
    held = [(1,), (1,), (1,), (1, 2), ()]
    found = repeat_factors(held, [dict.fromkeys(labels, 1.0) for labels in held])
    assert found == pytest.approx([1, 1, 1, 2.5**0.5, 1])


@given(st.lists(st.sets(st.integers(1, 5), max_size=3), min_size=1, max_size=20))
def test_the_rarer_a_class_the_more_its_images_are_drawn(held: list[set[int]]) -> None:
    found = repeat_factors(held, [dict.fromkeys(labels, 1.0) for labels in held])
    count = {label: sum(label in labels for labels in held) for label in range(1, 6)}
    assert min(found) >= 1
    for labels, factor in zip(held, found, strict=True):
        for other, more in zip(held, found, strict=True):
            if labels and other and min(count[x] for x in other) < min(count[x] for x in labels):
                assert more >= factor


def test_pixels_of_labels_only() -> None:
    mask = np.array([[0, 0, 255, 3], [3, 3, 7, 0]], np.uint8)
    assert label_pixels(mask) == {3: 0.75, 7: 0.25}
    assert label_pixels(np.zeros((2, 2), np.uint8)) == {}


def test_from_tags_and_from_masks() -> None:
    samples = [Sample(str(n), Path(f"{n}.png"), (1,) if n else (1, 2)) for n in range(4)]

    def read_mask(sample: Sample) -> UInt8Array:
        if sample.id == "3":
            raise UnreadableMaskError("broken")
        return np.full((2, 2), 2 if sample.id == "2" else 1, np.uint8)

    assert sampling_weights(SegmentSettings(), samples, read_mask) is None
    by_tags = sampling_weights(SegmentSettings(class_balanced="tags"), samples, read_mask)
    by_pixels = sampling_weights(SegmentSettings(class_balanced="pixels"), samples, read_mask)
    assert by_tags is not None
    assert by_pixels is not None
    assert by_tags[0] > by_tags[1] == by_tags[2] == by_tags[3] == 1
    assert by_pixels[2] > by_pixels[0] == by_pixels[1] == by_pixels[3] == 1


def test_a_pixel_of_an_object_classes_alike() -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[:10], mask[15, 3], mask[:, 19] = 1, 2, 255
    rng = np.random.default_rng(0)
    pixels = [object_pixel(mask, rng) for _ in range(200)]
    labels = [int(mask[pixel]) for pixel in pixels if pixel is not None]
    assert len(labels) == 200
    assert set(labels) == {1, 2}
    assert 70 < labels.count(2) < 130, "one pixel of a class counts as much as two hundred of another"
    assert object_pixel(np.full((3, 3), 255, np.uint8), rng) is None
    assert object_pixel(np.zeros((3, 3), np.uint8), rng) is None
