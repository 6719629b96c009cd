"""Pretrained weights of other projects from local files: read without running anything, and held against a model."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tagmask.errors import InputError


def read_state_dict(path: Path, *, remedy: str = "Name a local weights file, or null.") -> dict[str, Tensor]:
    """Tensors by name of a safetensors file (NAME.safetensors) or of a state dict saved by torch.

    A state dict inside 'model' or 'state_dict', as training scripts save it, is found.

    Raises:
        InputError: no such file (the message ends in ``remedy``), or neither of the two.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        msg = f"{path}: no such weights file. {remedy}"
        raise InputError(msg) from error
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        text = " ".join(str(error).split())[:120]
        msg = f"{path}: neither a safetensors file (NAME.safetensors) nor a state dict saved by torch ({text})"
        raise InputError(msg) from error
    for key in ("model", "state_dict"):
        if isinstance(stored, dict) and isinstance(stored.get(key), dict):
            stored = stored[key]
    if not isinstance(stored, dict) or not all(isinstance(value, Tensor) for value in stored.values()):
        msg = f"{path}: not a state dict: it must hold tensors by name"
        raise InputError(msg)
    return dict(stored)


def match_state_dict(
    stored: Mapping[str, Tensor], target: Mapping[str, Tensor], path: Path, name: str
) -> dict[str, Tensor]:
    """Those of the stored tensors that a model has, in its dtypes; what else is stored is left aside.

    Args:
        stored: tensors by the model's names.
        target: the model's state dict (may be on the meta device).
        path: where they are from, for messages.
        name: what the model is called in messages.

    Raises:
        InputError: a tensor is missing, or of another shape.
    """
    tensors = dict(stored)
    for key in target:
        if key.endswith("num_batches_tracked"):  # older files have none, and nothing reads it
            tensors.setdefault(key, torch.tensor(0))
    missing = [key for key in target if key not in tensors]
    if missing:
        msg = f"{path}: not weights of {name}: {len(missing)} of {len(target)} tensors missing, such as {missing[0]}"
        raise InputError(msg)
    for key, value in target.items():
        if tensors[key].shape != value.shape:
            stored_shape, model_shape = tuple(tensors[key].shape), tuple(value.shape)
            msg = f"{path}: not weights of {name}: {key} is {stored_shape}, the model has {model_shape}"
            raise InputError(msg)
    return {key: tensors[key].to(value.dtype) for key, value in target.items()}
