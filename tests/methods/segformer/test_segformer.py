"""SegFormer: the published encoders with a local file, timm's, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from segmentation_models_pytorch.encoders import get_encoder

from tagmask.errors import InputError
from tagmask.methods.segformer.network import Segformer


def test_the_light_one_has_the_published_number_of_parameters() -> None:
    network = Segformer()._mix(150)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(3.8, abs=0.1)


def test_weights_of_a_local_file(tmp_path: Path) -> None:
    torch.manual_seed(5)
    stored = dict(get_encoder("mit_b0", weights=None).state_dict())
    torch.save({**stored, "head.weight": torch.zeros(1000, 256)}, tmp_path / "mit_b0.pth")
    model = Segformer(weights=tmp_path / "mit_b0.pth", decoder_channels=16).build(2)
    assert all(torch.equal(value, stored[key]) for key, value in model.encoder.state_dict().items())


def test_timm_encoders() -> None:
    settings: dict[str, Any] = {"encoder": "pvt_v2_b0", "encoder_args": {"embed_dims": (8, 16, 40, 64)}}
    model = Segformer(**settings, decoder_channels=8).build(2).eval()
    with torch.inference_mode():
        assert model(torch.randn(1, 3, 33, 50)).shape == (1, 2, 33, 50)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"weights": "timm"}, "timm has no mit_b0"),
        ({"weights": Path("none.pth")}, "no such weights file"),
        ({"encoder_args": {"depth": 3}}, "takes none"),
        ({"encoder": "mit_b9"}, "unknown encoder"),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_line(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as raised:
        Segformer(**settings, decoder_channels=8).build(2)
    assert "\n" not in str(raised.value)
