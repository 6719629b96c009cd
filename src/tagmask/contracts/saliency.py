"""The contract of saliency sources: one image in, one map of it out."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated

from tagmask.registry.field import MethodOf
from tagmask.registry.method import Method
from tagmask.types import FloatArray, UInt8Array


class SaliencySource(Method):
    """Base of the registered sources. A map marks the foreground: 1 stands out, 0 is surroundings."""

    @abstractmethod
    def find(self, sample_id: str, image: UInt8Array) -> FloatArray:
        """Saliency of one image.

        Args:
            sample_id: the image's id.
            image: uint8 [H, W, 3] RGB.

        Returns:
            float32 [H, W] in [0, 1].

        Raises:
            UnreadableImageError: there is none for this image; the stage lists it and goes on.
        """

    def origin(self) -> str:
        """Where the maps come from, as a message names it."""
        return f"saliency '{self.name}'"


SaliencyField = Annotated[SaliencySource, MethodOf("saliency")]
