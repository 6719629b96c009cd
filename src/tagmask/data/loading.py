"""Reading a sample's image inside a stage: cached when small, and a Problem instead of an exception."""

from __future__ import annotations

from collections import OrderedDict

from tagmask.errors import UnreadableImageError
from tagmask.storage.images import image_size, read_image
from tagmask.types import PixelValues, Problem, Sample, UInt8Array

CACHE_BYTES = 512 * 2**20


class ImageLoader:
    """Decoded images of one stage, the most recent ones kept up to ``cache_bytes`` per process.

    Without a cache (0 bytes) several threads may share it. ``max_side``: larger images come reduced to this side.
    ``pixels``: how values are read, see :func:`tagmask.storage.images.read_image`.
    """

    def __init__(
        self,
        stage: str,
        *,
        max_pixels: int,
        max_side: int | None = None,
        pixels: PixelValues | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.stage, self.max_pixels, self.max_side, self.pixels = stage, max_pixels, max_side, pixels
        self.cache_bytes, self.cached_bytes = cache_bytes, 0
        self.cache: OrderedDict[str, UInt8Array] = OrderedDict()

    def load(self, sample: Sample) -> UInt8Array | Problem:
        """uint8 [H, W, channels], or why there is none."""
        if sample.id in self.cache:
            self.cache.move_to_end(sample.id)
            return self.cache[sample.id]
        try:
            image = read_image(
                sample.image_path, max_pixels=self.max_pixels, max_side=self.max_side, pixels=self.pixels
            )
        except UnreadableImageError as error:
            return Problem(stage=self.stage, id=sample.id, path=str(sample.image_path), reason=str(error))
        if image.nbytes > self.cache_bytes:
            return image
        self.cache[sample.id] = image
        self.cached_bytes += image.nbytes
        while self.cached_bytes > self.cache_bytes:
            self.cached_bytes -= self.cache.popitem(last=False)[1].nbytes
        return image

    def full_size(self, sample: Sample, image: UInt8Array) -> tuple[int, int]:
        """(H, W) of the sample's file, of which :meth:`load` gave ``image``.

        Raises:
            UnreadableImageError: the file is gone, or broken, meanwhile.
        """
        if self.max_side is None:
            return image.shape[0], image.shape[1]
        return image_size(sample.image_path, max_pixels=self.max_pixels)
