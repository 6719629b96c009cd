"""Maps stretched in bands are the maps stretched at once."""

from __future__ import annotations

import pytest
import torch

from tagmask.ops import maps as module
from tagmask.ops.maps import upsample_maps, upsampled_bands


@pytest.mark.parametrize("size", [(97, 61), (240, 16), (9, 5)])
@pytest.mark.parametrize("n_maps", [0, 1, 3])
def test_bands_together_are_the_whole(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], n_maps: int) -> None:
    maps = torch.rand(n_maps, 13, 8, generator=torch.Generator().manual_seed(0))
    whole = upsample_maps(maps, size)
    ((rows, at_once),) = upsampled_bands(maps, size)
    assert rows == slice(0, size[0])
    torch.testing.assert_close(at_once, whole, rtol=0, atol=0)

    monkeypatch.setattr(module, "_PIXELS_IN_BAND", 7 * size[1] * max(1, n_maps))
    bands = list(upsampled_bands(maps, size))
    assert len(bands) == (1 if n_maps == 0 else -(-size[0] // 7))
    assert [rows.start for rows, _ in bands[1:]] == [rows.stop for rows, _ in bands[:-1]]
    torch.testing.assert_close(torch.cat([part for _, part in bands], dim=1), whole, rtol=0, atol=1e-6)
