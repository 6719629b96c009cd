"""Saliency maps that another program has made: a folder of pictures, one per image id."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from tagmask.contracts.saliency import SaliencySource
from tagmask.errors import UnreadableImageError
from tagmask.storage.images import read_image
from tagmask.types import FloatArray, UInt8Array


class FolderSaliency(SaliencySource):
    """Grey pictures of any size (colours are averaged) named as the images, stretched to them.

    ``path``/ID``suffix`` is the map of image ID. White marks the foreground; ``invert`` where black does.
    """

    name: ClassVar[str] = "folder"

    path: Path
    suffix: str = ".png"
    invert: bool = False

    def find(self, sample_id: str, image: UInt8Array) -> FloatArray:
        """See :class:`~tagmask.contracts.saliency.SaliencySource`."""
        file = self.path / f"{sample_id}{self.suffix}"
        if not file.is_file():
            msg = f"{file}: no saliency map of this name"
            raise UnreadableImageError(msg)
        grey = read_image(file).mean(axis=2, dtype=np.float32) / np.float32(255)
        size = (image.shape[1], image.shape[0])
        stretched = Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR)
        saliency: FloatArray = np.clip(np.asarray(stretched), 0, 1)
        return 1 - saliency if self.invert else saliency

    def state(self) -> str:
        """Hash of the pictures' names, sizes and times: an edited map redoes what was trained with it."""
        digest = hashlib.sha256()
        # Not the pictures' contents: thousands would be read at every start.
        for file in sorted(self.path.rglob(f"*{self.suffix}")):
            stat = file.stat()
            digest.update(f"{file.relative_to(self.path)} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def origin(self) -> str:
        """See :class:`~tagmask.contracts.saliency.SaliencySource`."""
        return f"{self.path}"
