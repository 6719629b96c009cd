"""With what mean and deviation a network's images are normalised: those that its weights were made for.

timm's weights state theirs in their configuration (of 1826 published ones 683 are not made for ImageNet's), packages in
the table of :mod:`tagmask.backbones.installed`. A local file states its own in the metadata of safetensors ("mean" and
"std", JSON lists), or gets those of timm's weights of the name it is loaded under, tag included
('vit_base_patch16_clip_224.openai'). Networks that start from nothing, and backbones of our own, have ImageNet's.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import timm
from safetensors import SafetensorError, safe_open

from tagmask.backbones.installed import installed_package
from tagmask.errors import InputError
from tagmask.storage.weights import read_description, stored_statistics
from tagmask.types import IMAGENET, InputStatistics


def statistics_of(network: str, weights: Path | str | None, *, setting: str) -> InputStatistics:
    """What the images of a network are to be normalised with, by the weights that it starts from.

    Args:
        network: timm's name, or one of ours.
        weights: a local file, 'timm', 'installed', or None for random ones.
        setting: the recipe key that names the weights, for messages.

    Raises:
        InputError: a file's statement cannot be read, or no package has such weights.
    """
    if weights is None:
        return IMAGENET
    if weights == "installed":
        return installed_package(network, setting).statistics
    if isinstance(weights, Path) and (own := stated_in(weights)) is not None:
        return own
    try:
        configuration = timm.models.get_pretrained_cfg(network)
    except RuntimeError:  # timm refuses a tag that it does not know, and says so when the model is built
        return IMAGENET
    if configuration is None:
        return IMAGENET
    return InputStatistics(tuple(map(float, configuration.mean)), tuple(map(float, configuration.std)))


def classifier_statistics(path: Path) -> InputStatistics:
    """What the images of the run's tag classifier are normalised with, from its file.

    Raises:
        InputError: there is no such file, or it is not tagmask's.
    """
    return stored_statistics(read_description(path), path)


def stated_in(path: Path) -> InputStatistics | None:
    """What a safetensors file states in its metadata; None: nothing, or it is no such file.

    Raises:
        InputError: what it states is not three numbers each, the deviations above 0.
    """
    try:
        with safe_open(path, framework="pt") as stored:
            metadata = stored.metadata() or {}
    except (SafetensorError, OSError):  # whoever loads it says what is wrong with it
        return None
    if "mean" not in metadata and "std" not in metadata:
        return None
    try:
        mean, std = (tuple(float(value) for value in json.loads(metadata[key])) for key in ("mean", "std"))
    except (KeyError, ValueError, TypeError):
        mean = std = ()
    if not (len(mean) == len(std) == 3 and all(map(math.isfinite, (*mean, *std))) and min(std) > 0):
        said = ", ".join(f"{key}={metadata.get(key)}" for key in ("mean", "std"))
        msg = f"{path}: its metadata states {said}; expected two JSON lists of three numbers, such as [0.5, 0.5, 0.5]"
        raise InputError(msg)
    return InputStatistics(mean, std)
