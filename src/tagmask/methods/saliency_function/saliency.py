"""Saliency maps of a function of yours: 'module:function', uint8 [H, W, 3] -> [H, W] in [0, 1]."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from tagmask.contracts.saliency import SaliencySource
from tagmask.errors import InputError, UnreadableImageError
from tagmask.types import FloatArray, UInt8Array


class FunctionSaliency(SaliencySource):
    """Calls ``function`` ('module:function' that Python can import) on every image.

    ``version``: change it when the function has changed, and the maps are made again.
    """

    name: ClassVar[str] = "function"

    function: Annotated[str, Field(pattern=r"^[\w.]+:[\w.]+$")]
    version: str = ""

    def find(self, sample_id: str, image: UInt8Array) -> FloatArray:
        """See :class:`~tagmask.contracts.saliency.SaliencySource`.

        Raises:
            InputError: the function cannot be imported.
            UnreadableImageError: it failed, or returned something that is not a map of this image.
        """
        # At each call: settings stay plain data, which are stored, compared and handed to other threads.
        function = self._resolve()
        try:
            saliency = np.asarray(function(image), dtype=np.float32)
        except Exception as error:  # whatever a function of somebody else's raises is said of this image
            msg = f"{self.function} failed on {sample_id}: {type(error).__name__}: {' '.join(str(error).split())}"
            raise UnreadableImageError(msg) from error
        if (
            saliency.shape != image.shape[:2]
            or not np.isfinite(saliency).all()
            or saliency.min() < 0
            or saliency.max() > 1
        ):
            msg = (
                f"{self.function} returned {list(saliency.shape)} for {sample_id}; wanted finite values in [0, 1], "
                f"{list(image.shape[:2])}"
            )
            raise UnreadableImageError(msg)
        return saliency

    def _resolve(self) -> Callable[[UInt8Array], Any]:
        module, _, attribute = self.function.partition(":")
        try:
            target: Any = importlib.import_module(module)
            for part in attribute.split("."):
                target = getattr(target, part)
        except (ImportError, AttributeError) as error:
            msg = f"segment.saliency.function={self.function}: cannot be imported ({error})"
            raise InputError(msg) from error
        if not callable(target):
            msg = f"segment.saliency.function={self.function}: is a {type(target).__name__}, not a function"
            raise InputError(msg)
        return target  # type: ignore[no-any-return]

    def origin(self) -> str:
        """See :class:`~tagmask.contracts.saliency.SaliencySource`."""
        return self.function
