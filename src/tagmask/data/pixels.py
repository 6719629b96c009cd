"""How the values of a source's images are read: settled once from the training images, the same for all.

A file of 16 bits may hold values of 12, or the temperatures of one day: taken by its type it is nearly black. So the
range follows from the values of the training images: 0 to the highest number of so many bits (0 to 4095), where the
values fill a quarter of that or more; else from the 0.1th to the 99.9th percentile, and so for negative values too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagmask.data.source import TRAIN
from tagmask.errors import DataError, UnreadableImageError
from tagmask.storage.images import MAX_PIXELS, chosen_values
from tagmask.storage.pixel_values import to_uint8
from tagmask.types import DataSource, InputStatistics, PixelValues

#: So many training images are read for their values, and of each about so many pixels, evenly spaced.
READ, PIXELS = 64, 1 << 16
_PERCENTILES = (0.1, 99.9)
_FILLED = 0.25
_LEAST_LEVELS = 16
_LEAST_STD = 0.05


@dataclass(frozen=True, slots=True)
class PixelSurvey:
    """What was settled: ``pixels`` and ``statistics`` for the source, from so many ``images``.

    ``beyond``: the share of their values that lies outside the range.
    """

    pixels: PixelValues
    statistics: InputStatistics | None
    images: int
    beyond: float

    def line(self) -> str:
        """In words, for the run's log."""
        text = f"{self.pixels.line()} ({self.images} training images read"
        return f"{text}; {self.beyond:.2%} of their values lie beyond)" if self.beyond else f"{text})"


def survey_pixels(source: DataSource) -> PixelSurvey | None:
    """Look at the values of at most :data:`READ` training images; None: they are colours of 8 bits, or of whole 16.

    Raises:
        DataError: the settings name bands, and no image can be read like that.
    """
    images, first_error = [], None
    for path in _evenly(source):
        try:
            values = chosen_values(path, source.channels, source.max_pixels)
        except UnreadableImageError as error:  # the stages list it
            first_error = first_error or error
            continue
        if values is not None:
            images.append(_thinned(values))
    if not images:
        if source.channels is not None and first_error is not None:
            raise DataError(str(first_error)) from first_error
        return None
    return _settle(source, images)


def with_pixels(source: DataSource, survey: PixelSurvey | None) -> DataSource:
    """The source as it is to be read."""
    return source if survey is None else replace(source, pixels=survey.pixels, input_statistics=survey.statistics)


def own_pixels(
    path: Path, channels: tuple[int, ...] | None = None, *, max_pixels: int = MAX_PIXELS
) -> PixelValues | None:
    """How one image alone asks to be read, where nothing was settled for a data set; None: colours of 8 bits.

    Args:
        path: the image.
        channels: bands of the file, counted from 1, each with a range of its own; None: colours.
        max_pixels: larger images are refused.

    Raises:
        UnreadableImageError: see :func:`tagmask.storage.images.read_image`; or there is no such band.
    """
    values = chosen_values(path, channels, max_pixels)
    if values is None:
        return None
    pixels = _thinned(values)
    bands = [pixels.ravel()] if channels is None else list(pixels.T)
    ranges = [(0.0, 255.0) if values.dtype == np.uint8 else range_of(band) for band in bands]
    low, high = zip(*ranges, strict=True)
    return PixelValues(low, high, channels)


def _evenly(source: DataSource) -> Iterator[Path]:
    samples = source.split(TRAIN)
    for sample in samples[:: -(-len(samples) // READ)]:
        yield sample.image_path


def _thinned(values: NDArray[Any]) -> NDArray[Any]:
    """About :data:`PIXELS` pixels [n, C] of an image [H, W, C]."""
    step = max(1, int((values.shape[0] * values.shape[1] / PIXELS) ** 0.5))
    return values[::step, ::step].reshape(-1, values.shape[2])


def _settle(source: DataSource, images: Sequence[NDArray[Any]]) -> PixelSurvey | None:
    deep = [values for values in images if values.dtype != np.uint8]
    channels = source.channels
    if source.value_range is not None:
        ranges = [source.value_range]
    elif channels is None:
        ranges = [range_of(np.concatenate([values.ravel() for values in deep]))]
    else:
        ranges = [
            range_of(np.concatenate([values[:, place] for values in deep])) if deep else (0.0, 255.0)
            for place in range(len(channels))
        ]
    low, high = (tuple(float(bound) for bound in bounds) for bounds in zip(*ranges, strict=True))
    pixels = PixelValues(low, high, channels)
    if channels is None and source.value_range is None and (low, high) == _by_type(deep[0].dtype):
        return None  # what is read without any range
    mapped = [to_uint8(values[:, None], pixels)[:, 0] for values in images]
    statistics = None if channels is None else statistics_of_pixels(mapped)
    outside = sum(int(((values < np.array(low)) | (values > np.array(high))).sum()) for values in deep)
    return PixelSurvey(pixels, statistics, len(images), outside / max(1, sum(values.size for values in deep)))


def range_of(values: NDArray[Any]) -> tuple[float, float]:
    """The range of values [n] of more than 8 bits, see the module; NaN and infinity are no values."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(bound) for bound in np.percentile(finite, _PERCENTILES))
    whole = values.dtype.kind in "ui"
    top = float(2 ** max(8, int(np.ceil(high)).bit_length()) - 1) if whole else 1.0
    if finite.min() >= 0 and high <= top and high - low >= _FILLED * top:
        return 0.0, top
    # Of a band that is nearly constant another image's noise would fill all of the range.
    return low, max(high, low + _LEAST_LEVELS) if whole else high if high > low else low + 1


def statistics_of_pixels(images: Sequence[NDArray[np.uint8]]) -> InputStatistics:
    """Mean and deviation of each channel over images of pixels [n, C], each image counted alike, in [0, 1]."""
    means = np.array([values.mean(axis=0, dtype=np.float64) for values in images]) / 255
    squares = np.array([np.square(values, dtype=np.float64).mean(axis=0) for values in images]) / 255**2
    mean = means.mean(axis=0)
    # A band without any variation would be divided by nothing, and another image's noise be all that is seen.
    std = np.maximum(np.sqrt(np.maximum(squares.mean(axis=0) - mean**2, 0)), _LEAST_STD)
    return InputStatistics(tuple(map(float, mean.round(6))), tuple(map(float, std.round(6))))


def _by_type(dtype: np.dtype[Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return (0.0,), (65535.0 if dtype.kind in "ui" else 1.0,)
