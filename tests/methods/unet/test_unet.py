"""U-Net: any size, small things kept, its channels, first weights, what cannot be its encoder."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from tagmask.errors import InputError
from tagmask.methods.unet.network import UNet

SMALL: dict[str, Any] = {
    "encoder_args": {"channels": [8, 16, 24, 32], "stem_width": 8},
    "decoder_channels": (32, 16, 16, 8, 8),
}


@pytest.mark.parametrize("size", [(32, 32), (33, 70), (5, 9)])
def test_any_size(size: tuple[int, int]) -> None:
    model = UNet(**SMALL).build(4).eval()
    with torch.inference_mode():
        assert model(torch.randn(1, 3, *size)).shape == (1, 4, *size)


def test_the_channels_are_the_decoders() -> None:
    decoder = UNet(**SMALL).build(4).network.decoder  # type: ignore[union-attr]
    channels = [block.conv2[0].out_channels for block in decoder.blocks]  # type: ignore[union-attr]
    assert channels == [32, 16, 16, 8, 8]
    with pytest.raises(ValueError, match="decoder_channels"):
        UNet(decoder_channels=(32, 16, 8))


def test_it_learns_single_pixels() -> None:
    """What a decoder that ends at stride 4 cannot draw."""
    torch.manual_seed(0)
    model = UNet(**SMALL).build(2).train()
    labels = (torch.rand(4, 64, 64) < 0.02).long()
    images = 2.0 * functional.one_hot(labels, 2)[..., 1:].movedim(-1, 1).float().expand(-1, 3, -1, -1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    weight = torch.tensor([1.0, 20.0])
    for _ in range(40):
        optimizer.zero_grad()
        functional.cross_entropy(model(images), labels, weight).backward()
        optimizer.step()
    predicted = model(images).argmax(1)
    overlap = ((predicted == 1) & (labels == 1)).sum() / ((predicted == 1) | (labels == 1)).sum()
    assert float(overlap) > 0.8


@pytest.mark.parametrize("encoder", ["vit_tiny_patch16_224", "nonsense"])
def test_what_cannot_be_an_encoder_is_one_line(encoder: str) -> None:
    with pytest.raises(InputError) as raised:
        UNet(encoder=encoder).build(4)
    assert "\n" not in str(raised.value)
