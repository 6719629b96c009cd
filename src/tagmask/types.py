"""The few types that every stage speaks. No file access, no settings, no maths.

Index convention: background is class 0 and ignore is 255 in masks, samples and artifacts. Inside the
classifier there is no background: its channel ``c`` is mask label ``c + 1``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tagmask.errors import DataError, UnknownNameError

if TYPE_CHECKING:
    from torch import Tensor

BACKGROUND = 0
IGNORE_INDEX = 255

UInt8Array = NDArray[np.uint8]
FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class InputStatistics:
    """Mean and standard deviation, one number a channel, that pixels in [0, 1] are normalised with.

    Weights are made for those of their own training; a network carries the ones that its images must have.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


#: Of ImageNet's training images: what most weights are made for, and networks that start without any.
IMAGENET = InputStatistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True, slots=True)
class PixelValues:
    """How the values of an image file become the uint8 that everything works on.

    ``channels``: which bands of the file, counted from 1; None: its colours, grey three times. ``low`` and ``high``:
    what becomes 0 and 255 of values with more than 8 bits, one number for each of ``channels``, or one for all.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    channels: tuple[int, ...] | None = None

    @property
    def n_channels(self) -> int:
        """Channels of an image that is read like this."""
        return 3 if self.channels is None else len(self.channels)

    def line(self) -> str:
        """In words: 'bands 4, 3, 2: 0 to 4095 become 0 to 255'."""
        what = "pixel values" if self.channels is None else f"bands {', '.join(map(str, self.channels))}"
        ranges = dict.fromkeys(f"{low:g} to {high:g}" for low, high in zip(self.low, self.high, strict=True))
        return f"{what}: {', '.join(ranges)} become 0 to 255"


@dataclass(frozen=True, slots=True)
class Box:
    """One object: half-open pixel box [x0, x1) x [y0, y1) in the image frame, and its class (1..C)."""

    label: int
    x0: int
    y0: int
    x1: int
    y1: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of a data source.

    ``id`` is the image's relative path without suffix ('/' between folders); ``tags`` is a sorted tuple
    of foreground labels 1..C, the same numbers as in masks. ``mask_path`` is None in every weak stage.
    """

    id: str
    image_path: Path
    tags: tuple[int, ...]
    mask_path: Path | None = None
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class ClassList:
    """Names of all classes; index = mask label; ``names[0]`` is the background.

    ``maskless``: there may be more classes than an 8-bit mask has numbers; see :attr:`fits_mask`.
    """

    names: tuple[str, ...]
    maskless: bool = False

    def __post_init__(self) -> None:
        if len(self.names) < 2:
            msg = f"a class list needs a background and at least one class, got {list(self.names)}"
            raise DataError(msg)
        if not (self.maskless or self.fits_mask):
            msg = f"{len(self.names)} classes do not fit an 8-bit mask (at most 254 and the background)"
            raise DataError(msg)
        twice = {name for name in self.names if self.names.count(name) > 1}
        if twice:
            msg = f"class names must be unique, these are not: {sorted(twice)}"
            raise DataError(msg)

    @property
    def fits_mask(self) -> bool:
        """Whether an 8-bit mask can hold all labels beside 255."""
        return len(self.names) <= IGNORE_INDEX

    @property
    def foreground(self) -> tuple[str, ...]:
        """Names of the C foreground classes, in the classifier's channel order."""
        return self.names[1:]

    def label(self, name: str, *, where: str = "") -> int:
        """Mask label of a foreground class name.

        Raises:
            UnknownNameError: with the nearest known name.
        """
        try:
            return self.foreground.index(name) + 1
        except ValueError:
            raise UnknownNameError("class", name, self.foreground, where) from None


@dataclass(frozen=True, slots=True)
class Problem:
    """One input that was skipped or repaired, and why. One line of problems.jsonl.

    ``left_out`` is False where a defined fallback took the place of what was amiss; ``id`` is then the image or the
    class that it befell.
    """

    stage: str
    id: str
    path: str
    reason: str
    left_out: bool = True


MaskReader = Callable[[Sample], UInt8Array]


@dataclass(frozen=True)
class DataSource:
    """Samples by split. ``mask_reader`` is the only way to ground truth; weak stages get ``weak()``.

    ``max_pixels`` is the largest image that stages decode; larger ones are listed as problems. ``mask_key`` tells apart
    readings of the same mask files. ``channels`` and ``value_range`` are what the settings say about the files' values
    (None: nothing), ``pixels`` is what was settled for all images (None: colours of 8 bits), and ``input_statistics``
    the mean and deviation of these channels, where the data's own take the place of the weights'. ``object_reader``
    reads masks that say 1 for the image's only class, of more classes than a mask has numbers for, 0, and 255.
    """

    format: str
    classes: ClassList
    splits: Mapping[str, tuple[Sample, ...]]
    fingerprint: str
    problems: tuple[Problem, ...] = ()
    max_pixels: int = 100_000_000
    channels: tuple[int, ...] | None = None
    value_range: tuple[float, float] | None = None
    pixels: PixelValues | None = None
    input_statistics: InputStatistics | None = None
    mask_reader: MaskReader | None = field(default=None, repr=False)
    mask_key: str = ""
    object_reader: MaskReader | None = field(default=None, repr=False)
    has_mask: Callable[[Sample], bool] = field(default=lambda sample: sample.mask_path is not None, repr=False)

    def split(self, name: str) -> tuple[Sample, ...]:
        """Samples of one split; raises UnknownNameError for a split that does not exist."""
        if name not in self.splits:
            raise UnknownNameError("split", name, self.splits)
        return self.splits[name]

    def weak(self, keep: Collection[str] = frozenset()) -> DataSource:
        """The same source without any way to a mask or a box, but for the masks of training images in ``keep``."""
        ids = frozenset(keep) & {sample.id for sample in self.splits.get("train", ())}
        stripped = {
            split: tuple(
                replace(sample, mask_path=sample.mask_path if sample.id in ids else None, boxes=())
                for sample in samples
            )
            for split, samples in self.splits.items()
        }
        if not ids:
            return replace(self, splits=stripped, mask_reader=None, object_reader=None, has_mask=lambda sample: False)
        has_mask, read = self.has_mask, self.read_mask

        def read_kept(sample: Sample) -> UInt8Array:
            if sample.id not in ids:
                msg = f"{sample.id}: this view of the data has no mask of it"
                raise DataError(msg)
            return read(sample)

        return replace(
            self,
            splits=stripped,
            mask_reader=read_kept,
            object_reader=None,
            has_mask=lambda sample: sample.id in ids and has_mask(sample),
        )

    def read_mask(self, sample: Sample) -> UInt8Array:
        """Ground truth of one sample, uint8 [H, W], labels 0..C and 255.

        Raises:
            DataError: the source has no masks (or is the weak view of one).
            UnreadableMaskError: this mask is broken.
        """
        if self.mask_reader is None:
            msg = "this data source has no masks"
            raise DataError(msg)
        return self.mask_reader(sample)


@dataclass
class ClassifierOutput:
    """What every classifier returns and every localizer reads (not frozen: Fabric rebuilds it to cast dtypes).

    ``features`` [B, D, h, w] is the last feature map before pooling, ``feature_taps`` maps a backbone stage
    number to its features, ``logits`` is [B, C], ``extras`` holds what a head adds (word assignment, ...).
    """

    features: Tensor
    feature_taps: Mapping[int, Tensor]
    logits: Tensor
    extras: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class ActivationMaps:
    """Maps of one image for its tags only.

    ``classes`` int64 [K] mask labels (1..C) ascending; ``maps`` float32 [K, ceil(H/4), ceil(W/4)] in [0, 1],
    each divided by its own maximum (+1e-5); ``peak`` float32 [K] that maximum before division;
    ``image_size`` (H, W); ``notes``: label and what its localizer did instead of what it should; ``ranking``: the
    labels with the highest scores by the classifier, best first, where they were asked for.

    ``grids``, ``frame`` and ``seen`` say what the maps are at full size: the sum of ``grids``, float32 [K, h, w], each
    stretched over ``frame`` (H', W') and cut to ``seen``, the size at which the classifier was shown the image. Without
    grids the strided ``maps`` are stretched, over the image where there is no frame. See ``tagmask.ops.map_grids``.
    """

    classes: NDArray[np.int64]
    maps: FloatArray
    peak: FloatArray
    image_size: tuple[int, int]
    notes: tuple[tuple[int, str], ...] = ()
    ranking: tuple[int, ...] = ()
    grids: tuple[FloatArray, ...] = ()
    frame: tuple[int, int] | None = None
    seen: tuple[int, int] | None = None

    def with_maps(self, maps: FloatArray) -> ActivationMaps:
        """Other strided maps of the same image and classes, which are these maps at full size too, stretched."""
        return replace(self, maps=maps, grids=(), frame=None, seen=None)
