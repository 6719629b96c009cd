"""The range of values of more than 8 bits, from the training images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tagmask.data.pixels import range_of, statistics_of_pixels, survey_pixels
from tagmask.data.table.source import TableSource
from tagmask.errors import InputError
from tagmask.settings.loading import load_recipe
from tagmask.types import DataSource

EVENLY = np.linspace(0, 1, 100_001)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (EVENLY * 4095, (0, 4095)),
        (EVENLY * 2100, (0, 4095)),  # just above 11 bits
        (EVENLY * 65535, (0, 65535)),
        (EVENLY * 200, (0, 255)),
        (28_000 + EVENLY * 3_000, (28_003, 30_997)),  # a thermal camera: an eighth of 15 bits
        (np.full(9, 7), (7, 23)),  # one value
        (np.append(EVENLY * 4095, [60_000] * 50), (0, 4095)),  # hot pixels, fewer than a thousandth
    ],
)
def test_bits_or_percentiles(values: Any, expected: tuple[int, int]) -> None:
    assert range_of(np.rint(values).astype(np.uint16)) == pytest.approx(expected, abs=0.6)


def test_other_types() -> None:
    assert range_of(EVENLY) == (0, 1)
    assert range_of(np.append(EVENLY, [np.nan, np.inf])) == (0, 1)
    assert range_of(EVENLY * 250) == pytest.approx((0.25, 249.75))
    assert range_of((EVENLY * 1000 - 500).astype(np.int16)) == pytest.approx((-499, 499), abs=0.6)
    assert range_of(np.full(3, np.nan)) == (0, 1)


def test_statistics_weigh_images_alike() -> None:
    one, other = np.full((1000, 2), (255, 0), np.uint8), np.full((10, 2), (0, 51), np.uint8)
    statistics = statistics_of_pixels([one, other])
    assert statistics.mean == (0.5, 0.1)
    assert statistics.std == (0.5, 0.1)
    assert min(statistics_of_pixels([one]).std) > 0


@pytest.fixture
def deep_set(tmp_path: Path) -> Path:
    """Eight images of 12 bits in 16, one of 8 bits, one that is broken."""
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for number in range(8):
        Image.fromarray(rng.integers(0, 3000, (9, 8), dtype=np.uint16)).save(tmp_path / "images" / f"{number}.png")
    Image.fromarray(rng.integers(0, 256, (9, 8), dtype=np.uint8)).save(tmp_path / "images" / "8.png")
    (tmp_path / "images" / "9.png").write_bytes(b"no")
    (tmp_path / "labels.csv").write_text("image,tags\n" + "".join(f"{n}.png,cow\n" for n in range(10)))
    return tmp_path


def opened(root: Path, **keywords: Any) -> DataSource:
    return TableSource(root=root, val_fraction=0, **keywords).open()


def test_images_of_eight_bits_take_no_part(deep_set: Path) -> None:
    survey = survey_pixels(opened(deep_set))
    assert survey is not None
    assert (survey.pixels.low, survey.pixels.high, survey.pixels.channels) == ((0,), (4095,), None)
    assert (survey.images, survey.beyond, survey.statistics) == (8, 0, None)
    assert survey.line() == "pixel values: 0 to 4095 become 0 to 255 (8 training images read)"


def test_a_range_of_the_recipe_says_what_it_cuts(deep_set: Path) -> None:
    survey = survey_pixels(opened(deep_set, value_range=(0, 1500)))
    assert survey is not None
    assert survey.pixels.high == (1500,)
    assert survey.beyond == pytest.approx(0.5, abs=0.05)
    assert survey.line().endswith("% of their values lie beyond)")


def test_nothing_is_settled_for_eight_bits_and_for_whole_sixteen(deep_set: Path) -> None:
    for number in range(8):
        values = np.random.default_rng(number).integers(0, 65536, (9, 8), dtype=np.uint16)
        Image.fromarray(values).save(deep_set / "images" / f"{number}.png")
    assert survey_pixels(opened(deep_set)) is None
    (deep_set / "labels.csv").write_text("image,tags\n8.png,cow\n9.png,cow\n")
    assert survey_pixels(opened(deep_set)) is None


@pytest.mark.parametrize("value", ["[5, 5]", "[9, 1]", "[0, .inf]", "low"])
def test_a_range_is_two_numbers(value: str) -> None:
    with pytest.raises(InputError, match="value_range"):
        load_recipe({"data": {"format": "folders", "root": "x"}}, [f"data.value_range={value}"])
