"""Small data sets with something wrong in them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tagmask.data.partsworld.source import PartsWorldSource

Pictures = Callable[..., Path]


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    """``pictures({"a.jpg": "cow|dog", ...}, sizes={...}, masks=False)``: a table data set of PartsWorld images."""

    def make(rows: dict[str, str], *, sizes: dict[str, tuple[int, int]] | None = None) -> Path:
        world = PartsWorldSource(train=12, val=4, size=48).open()
        images = [sample.image_path for split in ("train", "val") for sample in world.split(split)]
        root = tmp_path / "pictures"
        for number, name in enumerate(rows):
            path = root / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(images[number % len(images)]) as image:
                height, width = (sizes or {}).get(name, image.size[::-1])
                image.resize((width, height)).save(path)
        lines = ["image,tags", *(f"{name},{tags}" for name, tags in rows.items())]
        (root / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return root

    return make


@pytest.fixture
def weak(tiny: dict[str, Any]) -> dict[str, Any]:
    """The tiny recipe without full supervision, one epoch of everything."""
    tiny["segment"]["supervision"] = "weak"
    tiny["segment"]["epochs"] = tiny["classify"]["epochs"] = 1
    tiny["localize"]["scales"] = [1.0, 0.5]
    return tiny


@pytest.fixture
def spoil() -> Callable[[Path, str], None]:
    """``spoil(path, how)`` makes an image file unreadable; 'zeros' leaves its size and time, as a dying disk does."""

    def make_unreadable(path: Path, how: str) -> None:
        content, times = path.read_bytes(), path.stat()
        broken = {
            "cut": content[: len(content) // 2],
            "empty": b"",
            "text": b"this is no image\n" * 30,
            "zeros": bytes(len(content)),
            "noise": np.random.default_rng(0).integers(0, 256, 500, dtype=np.uint8).tobytes(),
        }
        path.write_bytes(broken[how])
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    return make_unreadable
