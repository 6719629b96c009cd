"""From maps to labels by one threshold: exact at the boundary, with a band, within what is allowed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from requests_of import label_request
from tagmask.methods.threshold.refiner import Threshold
from tagmask.ops.area_threshold import AreaThreshold, threshold_for_area

CLASSES = torch.tensor([3, 7])


def flat(*values: float, size: tuple[int, int] = (2, 3)) -> torch.Tensor:
    """One constant map a value."""
    return torch.stack([torch.full(size, value) for value in values])


@pytest.mark.parametrize(
    ("values", "threshold", "label"),
    [
        ((0.5, 0.2), 0.4, 3),
        ((0.2, 0.5), 0.4, 7),
        ((0.5, 0.2), 0.5, 0),  # a pixel must exceed the threshold
        ((0.5, 0.2), 0.6, 0),
        ((0.0, 0.0), 0.0, 0),
        ((0.5, 0.5), 0.1, 3),  # the first of equals
        ((1.0, 0.0), 0.999, 3),
    ],
)
def test_one_pixel_by_hand(values: tuple[float, float], threshold: float, label: int) -> None:
    found = Threshold(value=threshold).labels(label_request(flat(*values), CLASSES, (8, 12), threshold))
    assert found.shape == (8, 12)
    assert (found == label).all()


def test_pixels_near_the_threshold_are_ignored_with_a_band() -> None:
    method = Threshold(value=0.4, band=0.1)
    for value, label in ((0.2, 0), (0.35, 255), (0.45, 255), (0.55, 3)):
        assert (method.labels(label_request(flat(value, 0.0), CLASSES, (4, 4), 0.4)) == label).all(), value


def test_a_band_may_reach_further_to_one_side() -> None:
    method = Threshold(value=0.4, band=(0.3, 0.1))
    for value, label in ((0.05, 0), (0.15, 255), (0.45, 255), (0.55, 3)):
        assert (method.labels(label_request(flat(value, 0.0), CLASSES, (4, 4), 0.4)) == label).all(), value
    assert Threshold(band=0.1).margins == (0.1, 0.1)


def test_a_threshold_for_each_map_and_its_band() -> None:
    found = Threshold(band=0.1).labels(label_request(flat(0.5, 0.4), CLASSES, (4, 4), [0.7, 0.2]))
    assert (found == 7).all()
    found = Threshold(band=0.1).labels(label_request(flat(0.65, 0.4), CLASSES, (4, 4), [0.7, 0.2]))
    assert (found == 255).all()


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.95, 1.0])
def test_a_band_stays_within_zero_and_one(threshold: float) -> None:
    found = Threshold(value="auto", band=0.2).labels(label_request(flat(0.5, 0.1), CLASSES, (4, 4), threshold))
    assert set(np.unique(found)) <= {0, 3, 255}


@given(st.integers(0, 99), st.floats(0, 1), st.floats(0, 1))
def test_a_lower_threshold_only_adds(seed: int, one: float, other: float) -> None:
    maps = torch.rand(2, 5, 6, generator=torch.Generator().manual_seed(seed))
    low, high = sorted((one, other))
    more = Threshold().labels(label_request(maps, CLASSES, (20, 23), low))
    less = Threshold().labels(label_request(maps, CLASSES, (20, 23), high))
    assert (more[less > 0] == less[less > 0]).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"value": 1.1},
        {"value": -0.1},
        {"value": "automatic"},
        {"band": 0.5},
        {"band": [0.1, 1.5]},
        {"per_class": {"cow": 2}},
    ],
)
def test_what_is_no_threshold_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Threshold.model_validate(settings)


def test_a_small_thing_survives_the_threshold() -> None:
    maps = torch.zeros(2, 10, 10)
    maps[0], maps[1, 4, 4] = 0.8, 0.3
    request = label_request(maps, CLASSES, (10, 10), 0.5)
    assert (Threshold(value=0.5).labels(request) == 3).all()
    kept = Threshold(value=0.5, least=0.01).labels(request)
    assert np.argwhere(kept == 7).tolist() == [[4, 4]]
    assert (kept == 3).sum() == 99


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 0.99))
def test_the_threshold_of_an_area_covers_it(seed: int, area: float) -> None:
    """Values spread evenly over 0..1: a share above t is 1 - t, in maps of any size."""
    generator = torch.Generator().manual_seed(seed)
    maps = []
    for h, w in ((20, 30), (25, 16)):
        values = (torch.arange(h * w, dtype=torch.float32) + 0.5) / (h * w)
        maps.append(values[torch.randperm(h * w, generator=generator)].reshape(h, w))
    assert threshold_for_area(maps, area) == pytest.approx(1 - area, abs=0.006)


def test_the_threshold_of_an_area_at_its_ends() -> None:
    with pytest.raises(ValueError, match="no image has the class"):
        threshold_for_area([], 0.1)
    assert threshold_for_area([torch.zeros(3, 3)], 0.5) > 0.9, "nothing to mark: the strictest of equals"
    counts = [AreaThreshold() for _ in range(3)]
    parts = torch.rand(2, 5, 6)
    counts[0].update(parts[0])
    counts[1].update(parts[1])
    for values in parts:
        counts[2].update(values)
    counts[0].merge(counts[1])
    assert (counts[0].above == counts[2].above).all()
    with pytest.raises(ValidationError, match="a class has one of them"):
        Threshold(per_class={"a": 0.5}, areas={"a": 0.1})
