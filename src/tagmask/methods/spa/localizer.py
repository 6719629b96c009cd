"""SCG: maps made anew from the self-correlation of two stages, one view at a time.

Pan et al., "Unveiling the Potential of Structure Preserving for Weakly Supervised Object Localization" (SPA),
CVPR 2021, section 3.3, as in its published code (docs/methods/scg.md); the matrices are in ``self_correlation``.

Deviations: maps need not be square; with several views each view makes its own map in [0, 1] and these are summed
(the published code sees one view).
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from tagmask.contracts.localizer import Trained
from tagmask.contracts.polisher import Polisher
from tagmask.methods.spa.self_correlation import combined_correlation, correlated_map, self_correlation, stretched
from tagmask.types import ClassifierOutput

Share = Annotated[float, Field(ge=0, le=1)]


class Scg(Polisher):
    """Settings of SCG: the published ones for CUB; for ILSVRC 0.2, 0.2 and 1."""

    name: ClassVar[str] = "scg"
    order: Annotated[int, Field(ge=2)] = 2
    first_threshold: Share = Field(0.1, description="cosines below are 0")
    second_threshold: Annotated[float, Field(ge=0)] = Field(0.5, description="of a column's mean, below is 0")
    second_weight: Annotated[float, Field(ge=0)] = 2.0
    foreground: Share = Field(0.1, description="a seed map's foreground is where it reaches this")
    background: Share = Field(0.05, description="its background is where it is at most this")

    def view_maps(self, trained: Trained, output: ClassifierOutput, channels: Tensor) -> Tensor:
        """See :meth:`ViewLocalizer.view_maps`; each map is in [0, 1]."""
        seeds, stages = self.inner_maps_and_features(trained, output, channels)
        views = [self._polished(maps, [features[view] for features in stages]) for view, maps in enumerate(seeds)]
        return torch.stack(views)

    def _polished(self, seeds: Tensor, stages: list[Tensor]) -> Tensor:
        """Seeds [K, h, w] of one view, polished by the stages' features [D, h, w]."""
        matrices = [
            self_correlation(
                features,
                order=self.order,
                first_threshold=self.first_threshold,
                second_threshold=self.second_threshold,
            )
            for features in stages
        ]
        correlation = combined_correlation(matrices, second_weight=self.second_weight)
        limits = {"foreground": self.foreground, "background": self.background}
        return torch.stack(
            [correlated_map(stretched(seed.flatten(), 0).view_as(seed), correlation, **limits) for seed in seeds]
        )
