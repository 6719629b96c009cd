"""How backbones of our own name their stages."""

from __future__ import annotations


class Stages(list[int]):
    """Channels of the stages, asked for as timm's models are."""

    def channels(self) -> list[int]:
        """One number per stage."""
        return list(self)
