"""A trained segmentation network as a function: image in, mask and probabilities out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from PIL.Image import Image as PillowImage

from tagmask.building import build_method
from tagmask.data.images import read_image, rgb_pixels
from tagmask.engine import Engine
from tagmask.errors import InputError, UnknownNameError
from tagmask.interfaces import FloatArray, UInt8Array
from tagmask.segment.predict import predict_probabilities, to_mask
from tagmask.segment.stage import load_segmenter
from tagmask.settings import EngineSettings
from tagmask.weights import read_description
from tagmask.workspace import Workspace

DEVICES: tuple[str, ...] = get_args(EngineSettings.model_fields["device"].annotation)


@dataclass(frozen=True)
class Prediction:
    """``mask`` uint8 [H, W] of labels 0..C; ``probabilities`` float32 [C + 1, H, W], summing to 1."""

    mask: UInt8Array
    probabilities: FloatArray


class Predictor:
    """Call it on an RGB uint8 array [H, W, 3], a PIL image or a path."""

    def __init__(self, path: Path, *, device: str = "auto") -> None:
        description = read_description(path)
        if description.get("kind") != "segmenter":
            msg = f"{path}: holds a {description.get('kind')}, not a segmentation model"
            raise InputError(msg)
        try:
            self.classes: tuple[str, ...] = tuple(description["classes"])
            self.scales: tuple[float, ...] = tuple(description["scales"])
            self.flip: bool = bool(description["flip"])
            network = description["network"]
        except (KeyError, TypeError) as error:
            msg = f"{path}: its description is not complete ({error}); save it again with this version of tagmask"
            raise InputError(msg) from error
        settings = build_method("network", network, where=str(path), base=path.parent)
        if device not in DEVICES:
            raise UnknownNameError("device", device, DEVICES)
        self._engine = Engine(EngineSettings.model_validate({"device": device}), seed=0)
        self._model = self._engine.place(load_segmenter(path, settings))

    def __call__(self, image: UInt8Array | PillowImage | Path | str) -> Prediction:
        """Predict one image.

        Raises:
            UnreadableImageError: a path that is not a readable image.
            InputError: no image, or an array of another shape or type.
        """
        pixels = _as_array(image)
        with self._engine.autocast():
            probabilities = predict_probabilities(
                self._model, pixels, scales=self.scales, flip=self.flip, device=self._engine.device
            )
        return Prediction(mask=to_mask(probabilities), probabilities=probabilities.numpy())


def _as_array(image: UInt8Array | PillowImage | Path | str) -> UInt8Array:
    if isinstance(image, str | Path):
        return read_image(Path(image))
    if isinstance(image, PillowImage):
        return rgb_pixels(image)
    if not isinstance(image, np.ndarray):
        msg = f"an image is a path, a PIL image or a numpy array, got {type(image).__name__}"
        raise InputError(msg)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        msg = f"an image array is uint8 [H, W, 3] RGB, got {image.dtype} {list(image.shape)}"
        raise InputError(msg)
    return image


def load(run_or_file: Path | str, *, device: str = "auto") -> Predictor:
    """Load a predictor from a run directory or from a model.safetensors file.

    Args:
        run_or_file: a run (its weakly supervised network, else the fully supervised one) or a file.
        device: 'auto', 'cpu', 'cuda' or 'mps'.

    Raises:
        InputError: nothing there that predicts.
    """
    path = Path(run_or_file)
    if not path.is_dir():
        return Predictor(path, device=device)
    for folder in dict.fromkeys((Workspace(path).result_stage(), "segment", "segment/full")):
        if (path / folder / "model.safetensors").exists():
            return Predictor(path / folder / "model.safetensors", device=device)
    msg = f"{path}: no trained segmentation model in this folder; run its recipe to the end first"
    raise InputError(msg)
