"""Model weights on disk: safetensors with a JSON description inside, never pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from tagmask.errors import InputError
from tagmask.storage.files import atomic_write
from tagmask.types import IMAGENET, InputStatistics


def save_weights(path: Path, model: nn.Module, description: dict[str, Any]) -> None:
    """safetensors with a JSON description in its metadata, so that the file can be loaded alone."""
    save_tensors(path, model.state_dict(), description)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], description: dict[str, Any]) -> None:
    """Tensors by name as safetensors, with a JSON description in the metadata."""
    stored = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    with atomic_write(path) as stream:
        stream.write(save(stored, metadata={"tagmask": json.dumps(description)}))


def read_description(path: Path) -> dict[str, Any]:
    """The description stored by :func:`save_weights`.

    Raises:
        InputError: no such file, or not one of tagmask's.
    """
    try:
        with safe_open(path, framework="pt") as stored:
            description = json.loads((stored.metadata() or {})["tagmask"])
            return dict(description)
    except FileNotFoundError as error:
        msg = f"{path}: no such file"
        raise InputError(msg) from error
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        msg = f"{path}: not a model saved by tagmask. Delete it if it is of a run, which then makes it again."
        raise InputError(msg) from error


def is_described(path: Path) -> bool:
    """Whether a file is one of :func:`save_weights`; False of any other, and of none."""
    try:
        read_description(path)
    except InputError:
        return False
    return True


def statistics_entry(statistics: InputStatistics) -> dict[str, Any]:
    """What a description says about a network's images; :func:`stored_statistics` reads it."""
    return {"input_statistics": {"mean": list(statistics.mean), "std": list(statistics.std)}}


def stored_statistics(description: Mapping[str, Any], path: Path) -> InputStatistics:
    """What the images of a stored network are normalised with; ``path`` is named in messages.

    A description without the entry is of a version that fed ImageNet's to every network.

    Raises:
        InputError: the entry is not one.
    """
    entry = description.get("input_statistics")
    if entry is None:
        return IMAGENET
    try:
        mean, std = (tuple(float(value) for value in entry[key]) for key in ("mean", "std"))
    except (KeyError, TypeError, ValueError) as error:
        msg = f"{path}: its description has no readable input_statistics ({error}); save it again"
        raise InputError(msg) from error
    return InputStatistics(mean, std)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a file of :func:`save_tensors`.

    Raises:
        InputError: not readable; names the file.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        msg = f"{path}: not a readable safetensors file ({error}). Delete it and run again."
        raise InputError(msg) from error


def load_weights(path: Path, model: nn.Module) -> None:
    """Load a file of :func:`save_weights` into a model of the same shape."""
    try:
        model.load_state_dict(load_file(path))
    except (SafetensorError, OSError, RuntimeError) as error:
        first = " ".join(str(error).split())[:200]
        msg = f"{path}: does not fit this recipe's model ({first}). Delete its folder to train again."
        raise InputError(msg) from error
