"""What masks mark, counted on masks small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tagmask.stages.evaluate.marked import Marked, summary


def test_a_mask_counted_by_hand() -> None:
    mask = np.array([[0, 0, 1, 1], [0, 2, 255, 255]], np.uint8)
    marked = Marked.of(mask, (1, 3))
    assert marked.foreground == pytest.approx(3 / 6)  # 255 is not counted
    assert marked.in_tags == pytest.approx(2 / 3)
    assert (marked.n_tags, marked.n_tags_marked) == (2, 1)


@pytest.mark.parametrize("fill", [0, 255])
def test_a_mask_without_foreground(fill: int) -> None:
    assert Marked.of(np.full((3, 4), fill, np.uint8), (1,)) == Marked(0.0, None, 1, 0)


def test_means_over_images() -> None:
    masks = [
        (np.array([[1, 1, 1, 1]], np.uint8), (1,)),  # flooded
        (np.array([[0, 0, 0, 2]], np.uint8), (1,)),  # of another class
        (np.array([[0, 0, 0, 0]], np.uint8), (1, 2)),  # empty
        (np.array([[0, 0, 3, 3]], np.uint8), ()),  # of an image without a tag
    ]
    assert summary([Marked.of(mask, tags) for mask, tags in masks]) == {
        "images": 4,
        "foreground": pytest.approx(1.25 / 3, abs=1e-6),
        "foreground_untagged": 0.5,
        "empty": pytest.approx(1 / 3, abs=1e-6),
        "flooded": pytest.approx(1 / 3, abs=1e-6),
        "in_tags": 0.5,
        "tags_marked": 0.25,
    }


def test_no_images_tell_nothing() -> None:
    figures = summary([])
    assert figures.pop("images") == 0
    assert set(figures.values()) == {None}
