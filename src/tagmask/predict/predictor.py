"""A trained segmentation network as a function: image in, mask and probabilities out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from PIL.Image import Image as PillowImage

from tagmask.engine.engine import Engine
from tagmask.errors import InputError, UnknownNameError
from tagmask.methods.dense_crf.refiner import PRESETS
from tagmask.models.enlarging import labels_at
from tagmask.models.inference import Inference
from tagmask.models.segmenter import load_segmenter
from tagmask.registry.validation import build_method
from tagmask.runs.stage_names import MODEL, SEGMENT, SEGMENT_FULL
from tagmask.runs.workspace import Workspace
from tagmask.settings.engine import EngineSettings
from tagmask.settings.recipe import SMALLEST_SIDE
from tagmask.settings.segment import SMALLEST_TILE
from tagmask.storage.images import image_size, pixels_of, read_image, rgb_pixels
from tagmask.storage.pixel_values import mapped, stored_pixels
from tagmask.storage.weights import read_description
from tagmask.types import ClassList, FloatArray, UInt8Array

DEVICES: tuple[str, ...] = get_args(EngineSettings.model_fields["device"].annotation)


@dataclass(frozen=True)
class Prediction:
    """``mask`` uint8 [H, W] of labels 0..C; ``probabilities`` float32 [C + 1, h, w], summing to 1.

    h, w are H, W, but for an image larger than the network's ``max_side``: its probabilities stay at that size (at 48
    megapixels they would be gigabytes), and the mask is that of their bilinear enlargement.
    """

    mask: UInt8Array
    probabilities: FloatArray


class Predictor:
    """Call it on an RGB uint8 array [H, W, 3], a PIL image or a path.

    ``inference`` says how it predicts: as the recipe said that trained the network, unless changed when it was loaded.
    """

    def __init__(self, path: Path, *, device: str = "auto", **changes: Any) -> None:
        self.path = path
        description = read_description(path)
        if description.get("kind") != "segmenter":
            msg = f"{path}: holds a {description.get('kind')}, not a segmentation model"
            raise InputError(msg)
        try:
            self.classes: tuple[str, ...] = tuple(description["classes"])
            values = {field.name: description[field.name] for field in fields(Inference) if field.name in description}
            inference = Inference(**{**values, "scales": tuple(description["scales"])})
            network = description["network"]
        except (KeyError, TypeError) as error:
            msg = f"{path}: its description is not complete ({error}); save it again with this version of tagmask"
            raise InputError(msg) from error
        self.inference = replace(inference, **_valid_changes(changes))
        self.pixels = stored_pixels(description, path)
        #: Of 95 % of the training images, as they were seen; 0: files of earlier versions do not say.
        self.trained_long_side = int(description.get("trained_long_side", 0))
        settings = build_method("network", network, where=str(path), base=path.parent)
        if device not in DEVICES:
            raise UnknownNameError("device", device, DEVICES)
        self.engine = Engine(EngineSettings.model_validate({"device": device}), seed=0)
        self.model = self.engine.place(load_segmenter(path, settings))

    def __call__(
        self, image: UInt8Array | PillowImage | Path | str, *, tags: Sequence[str] | None = None
    ) -> Prediction:
        """Predict one image; ``tags`` are the classes it is known to hold, no other is then predicted.

        Raises:
            UnreadableImageError: a path that is not a readable image.
            InputError: no image, or an array of another shape or type.
            UnknownNameError: a tag that is no class.
        """
        pixels, size = self.read(image) if isinstance(image, str | Path) else (self.as_pixels(image), None)
        known = None if tags is None else [ClassList(self.classes).label(name) for name in tags]
        with self.engine.autocast():
            probabilities = self.inference.probabilities(
                self.model, pixels, n_labels=len(self.classes), tags=known, device=self.engine.device
            )
        mask = labels_at(size or (pixels.shape[0], pixels.shape[1]), probabilities)
        return Prediction(mask=mask, probabilities=probabilities.numpy())

    def read(self, path: Path | str) -> tuple[UInt8Array, tuple[int, int]]:
        """An image as the network wants it, uint8 [h, w, 3] at its working size, and (H, W) of the file.

        Raises:
            UnreadableImageError: not a readable image.
        """
        image = read_image(path, max_side=self.inference.max_side, pixels=self.pixels)
        return image, (image.shape[0], image.shape[1]) if self.inference.max_side is None else image_size(path)

    def as_pixels(self, image: UInt8Array | PillowImage) -> UInt8Array:
        """An image in memory as the network wants it, uint8 [H, W, channels].

        Raises:
            UnreadableImageError: a PIL image that is broken.
            InputError: no image, or an array of another shape or type.
        """
        if self.pixels is None:
            return _as_array(image)
        if isinstance(image, PillowImage):
            return pixels_of(image, self.pixels)
        if not isinstance(image, np.ndarray) or image.ndim not in (2, 3) or image.dtype.kind not in "uif":
            msg = f"an image is a path, a PIL image or a numpy array of numbers [H, W, bands], got {_kind(image)}"
            raise InputError(msg)
        bands = 1 if image.ndim == 2 else image.shape[2]
        expected = (1, 3) if self.pixels.channels is None else range(max(self.pixels.channels), 1 << 16)
        if 0 in image.shape or bands not in expected:
            least = "1 or 3" if self.pixels.channels is None else f"at least {max(self.pixels.channels)}"
            msg = f"an image array has {least} bands here, as the files have, got {_kind(image)}"
            raise InputError(msg)
        return mapped(image.reshape(*image.shape[:2], bands), self.pixels)

    def labels(
        self, image: UInt8Array, *, tags: Sequence[int] | None = None, size: tuple[int, int] | None = None
    ) -> UInt8Array:
        """The mask alone of uint8 [H, W, 3], uint8 [H, W]: faster, and in bounded memory where images are tiled.

        ``tags`` are labels 1..C that the image is known to hold; ``size`` (H, W) of the mask where the image was read
        smaller, see :meth:`read`.
        """
        with self.engine.autocast():
            return self.inference.labels(
                self.model, image, n_labels=len(self.classes), tags=tags, device=self.engine.device, size=size
            )

    @property
    def fingerprint(self) -> str:
        """Hash of the model's file."""
        with self.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()


def _valid_changes(changes: dict[str, Any]) -> dict[str, Any]:
    """Changes of :class:`Inference` as far as they are any; 'none' switches the CRF off, 0 tiles and working size."""
    values = {key: value for key, value in changes.items() if value is not None}
    if "scales" in values:
        values["scales"] = tuple(float(scale) for scale in values["scales"])
        if not values["scales"] or not all(0 < scale <= 8 for scale in values["scales"]):
            msg = f"scales are factors on the image size, above 0 and up to 8, not {list(values['scales'])}"
            raise InputError(msg)
    if values.get("crf") == "none":
        values["crf"] = None
    elif "crf" in values and values["crf"] not in PRESETS:
        raise UnknownNameError("crf", str(values["crf"]), [*PRESETS, "none"])
    if values.get("max_side") == 0:
        values["max_side"] = None
    elif "max_side" in values and values["max_side"] < SMALLEST_SIDE:
        msg = f"max_side is a working size of at least {SMALLEST_SIDE} pixels, or 0 for none, not {values['max_side']}"
        raise InputError(msg)
    if values.get("tile") == 0:
        values["tile"] = None
    elif "tile" in values and values["tile"] < SMALLEST_TILE:
        msg = f"a tile has at least {SMALLEST_TILE} pixels a side, not {values['tile']}"
        raise InputError(msg)
    return values


def _kind(image: object) -> str:
    return f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__


def _as_array(image: UInt8Array | PillowImage) -> UInt8Array:
    if isinstance(image, PillowImage):
        return rgb_pixels(image)
    if not isinstance(image, np.ndarray):
        msg = f"an image is a path, a PIL image or a numpy array, got {type(image).__name__}"
        raise InputError(msg)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        msg = f"an image array is uint8 [H, W, 3] RGB, got {image.dtype} {list(image.shape)}"
        raise InputError(msg)
    return image


def load(
    run_or_file: Path | str,
    *,
    device: str = "auto",
    scales: Sequence[float] | None = None,
    flip: bool | None = None,
    tile: int | None = None,
    crf: str | None = None,
    max_side: int | None = None,
) -> Predictor:
    """Load a predictor from a run directory or from the file of a trained network.

    Args:
        run_or_file: a run (its weakly supervised network, else the fully supervised one) or a file.
        device: 'auto', 'cpu', 'cuda' or 'mps'.
        scales: factors on the image size; None, as for all that follow: as the recipe said.
        flip: add the mirror of each scale.
        tile: side of overlapping parts in which larger images are predicted; 0: none.
        crf: kernels of a dense CRF on what is predicted, 'none' for no CRF.
        max_side: larger images are predicted reduced to this side, their masks come at the full size; 0: as they are.

    Raises:
        InputError: nothing there that predicts, or not like this.
    """
    changes = {"scales": scales, "flip": flip, "tile": tile, "crf": crf, "max_side": max_side}
    path = Path(run_or_file)
    if not path.is_dir():
        return Predictor(path, device=device, **changes)
    for folder in dict.fromkeys((Workspace(path).result_stage(), SEGMENT, SEGMENT_FULL)):
        if (path / folder / MODEL).exists():
            return Predictor(path / folder / MODEL, device=device, **changes)
    msg = f"{path}: no trained segmentation model in this folder; run its recipe to the end first"
    raise InputError(msg)
