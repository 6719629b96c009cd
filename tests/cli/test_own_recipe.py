"""The recipe ``own`` from a folder of images and a table to masks, on a machine whose network does not answer."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tagmask import cli

QUICK = (
    "engine.threads=1", "data.val_fraction=0.25", "classify.epochs=1", "classify.batch_size=4",
    "classify.augment.crop=64", "localize.scales=[1.0]", "segment.epochs=1", "segment.batch_size=4",
    "segment.augment.crop=64", "segment.crf=null", "refine.threshold.value=0.3",
)  # fmt: skip


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Eight noisy images with a bright square or disc, and their tags."""
    rng = np.random.default_rng(0)
    lines = ["image,tags"]
    (tmp_path / "images").mkdir()
    for number in range(8):
        pixels = rng.integers(0, 90, (64, 72, 3), dtype=np.uint8)
        pixels[16:48, 20:52, number % 2] = 250
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
        lines.append(f"{number}.png,{('red', 'green')[number % 2]}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_own_data_needs_no_network(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    out = photographs / "run"
    with pytest.raises(SystemExit) as left:
        cli.main(["run", "own", f"data.root={photographs}", *QUICK, "--output", str(out)])
    assert left.value.code == 0
    assert list((out / "segment" / "predictions").glob("*.png"))
