"""Weights files: exact, self-describing, never pickle."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tagmask.errors import InputError
from tagmask.storage.weights import load_weights, read_description, save_weights


def model(seed: int = 0, width: int = 4) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width))


def test_weights_come_back_bit_for_bit(tmp_path: Path) -> None:
    one, other = model(0).to(memory_format=torch.channels_last), model(1)
    one[1].running_var.fill_(3.0)
    save_weights(tmp_path / "m.safetensors", one, {"kind": "test", "ü": [1, 2.5, None]})
    load_weights(tmp_path / "m.safetensors", other)
    assert all(torch.equal(one.state_dict()[key], other.state_dict()[key]) for key in one.state_dict())
    assert read_description(tmp_path / "m.safetensors") == {"kind": "test", "ü": [1, 2.5, None]}


def test_the_same_model_is_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_weights(tmp_path / name, model(), {"kind": "test"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_another_model_is_one_line_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_weights(path, model(width=4), {})
    with pytest.raises(InputError, match=r"does not fit .* Delete its folder to train again") as raised:
        load_weights(path, model(width=5))
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)


def test_what_is_no_weights_file(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    torch.save(model().state_dict(), path)
    with pytest.raises(InputError, match="does not fit"):
        load_weights(path, model())
    with pytest.raises(InputError, match="not a model saved by tagmask"):
        read_description(path)
    with pytest.raises(InputError, match="no such file"):
        read_description(tmp_path / "none")
    with pytest.raises(InputError, match="none"):
        load_weights(tmp_path / "none", model())
    with pytest.raises(InputError, match="not a model"):
        read_description(tmp_path)
