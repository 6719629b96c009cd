"""SSA: maps polished with the semantic structure of two stages that guide each other.

Sun & Li, "SSA: Semantic Structure Aware Inference for Weakly Pixel-Wise Dense Predictions without Cost", arXiv 2021,
equations 2-8 (there is no published code to compare with; docs/methods/ssa.md says what is ours). Per view and stage i
the seed maps C are averaged over positions that look alike, CP_i = C S_i (see ``semantic_structure``); per scale, after
the flip sum and on values that are not normalised, SM_i = clamp(CP_i, 0, 1) guides the other stages, and the results
are added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from tagmask.contracts.localizer import Trained
from tagmask.contracts.polisher import Polisher, resize
from tagmask.methods.ssa.semantic_structure import Blocks, Epsilon, Norm, polish
from tagmask.ops.views import Views, merge_flips
from tagmask.registry.method import LATER
from tagmask.types import ClassifierOutput

Guidance = Literal["cross_gate", "cross_seed", "cross_replace", "none"]
Polish = Callable[[Tensor], Tensor]


def ssa(
    maps: Tensor,
    features_stage4: Tensor,
    features_stage5: Tensor,
    *,
    blocks: Blocks = 2,
    guidance: Guidance = "cross_gate",
    norm: Norm = "channel_l2",
    epsilon: Epsilon = "identity",
    clip: bool = False,
) -> Tensor:
    """Polish the maps of one view with the structure of two stages (Eq. 8; the guidance is ours, docs/methods/ssa.md).

    Args:
        maps: [K, h, w] float, >= 0, not normalised.
        features_stage4: [D4, h4, w4] float.
        features_stage5: [D5, h5, w5] float; the maps and the other stage are resized to h5 x w5.
        blocks: number of self-affinity blocks.
        guidance: how the stages guide each other, see :func:`guided`.
        norm: see ``normalize_features``.
        epsilon: what is subtracted from the Gram matrix: the identity, or this number everywhere.
        clip: set negative similarities to 0.

    Returns:
        [K, h5, w5] of the dtype of ``features_stage5``, >= 0, not normalised.
    """
    size = (features_stage5.shape[-2], features_stage5.shape[-1])

    def polisher(features: Tensor) -> Polish:
        return lambda seeds: polish(seeds, features, blocks=blocks, norm=norm, epsilon=epsilon, clip=clip)

    stages = [polisher(resize(features, size)) for features in (features_stage4, features_stage5)]
    return guided(resize(maps, size).to(features_stage5.dtype), stages, guidance)


def guided(seeds: Tensor, stages: Sequence[Polish], guidance: Guidance, spread: Polish | None = None) -> Tensor:
    """Polish seeds by every stage, let the stages guide each other, and add what they say.

    With CP_i the map polished by stage i and G_i the mean over the other stages of SM_j = clamp(CP_j, 0, 1):
    ``cross_gate`` adds G_i * CP_i; ``cross_seed`` polishes G_i * seeds by stage i; ``cross_replace`` polishes G_i
    itself; ``none`` adds CP_i. A single stage has nothing to guide it: there all four are the same.

    Args:
        seeds: maps, >= 0, not normalised.
        stages: polish maps shaped like ``seeds``; what they return may have its flips merged.
        guidance: as above.
        spread: brings what ``stages`` return into the shape of ``seeds`` again; None where it is.

    Returns:
        Maps shaped like those that ``stages`` return, >= 0, not normalised.
    """
    polished = [stage(seeds) for stage in stages]
    if guidance == "none" or len(stages) == 1:
        return torch.stack(polished).sum(0)
    # On responses that are not normalised: they exceed 1 on objects that the classifier is sure of, so the gate is open
    # there and fades only what is weak. Maps with maximum 1 would pass the clamp unchanged.
    significant = torch.stack(polished).clamp(0, 1)
    guides = (significant.sum(0) - significant) / (len(stages) - 1)
    if guidance == "cross_gate":
        return (torch.stack(polished) * guides).sum(0)
    shaped = [spread(guide) if spread else guide for guide in guides]
    again = [guide * seeds if guidance == "cross_seed" else guide for guide in shaped]
    return torch.stack([stage(seed) for stage, seed in zip(stages, again, strict=True)]).sum(0)


def is_signed(features: Tensor) -> bool:
    """Whether some feature is negative: a stage that ends in a linear layer, not in a ReLU."""
    return bool((features < 0).any())


class Ssa(Polisher):
    """Settings of SSA; ``inner`` and ``stages`` are those of every polisher."""

    name: ClassVar[str] = "ssa"
    blocks: Blocks = 2
    norm: Norm = "channel_l2"
    epsilon: Literal["identity"] | Annotated[float, Field(ge=0)] = "identity"
    guidance: Guidance = "cross_gate"
    clip_negative: bool = False
    signed: Literal["clip", "published"] = Field("clip", json_schema_extra=LATER)

    def remarks(self, trained: Trained, views: Views) -> Iterator[str]:
        """See :meth:`Localizer.remarks`."""
        if self.clip_negative or self.signed == "published":
            return
        # Any picture serves: which layer a stage ends in does not depend on it. Not a flat one, whose features are 0.
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, len(views.statistics.mean)), dtype=np.uint8)
        output = trained.look(views.at(noise, 1.0, flip=False))
        signed = [number for number in self.stage_numbers(output) if is_signed(output.feature_taps[number])]
        if signed:
            yield (
                f"ssa: features of stage {', '.join(map(str, signed))} are signed, so negative cosines count as 0 "
                "there (localize.signed=published: as the paper has it)"
            )

    def view_maps(self, trained: Trained, output: ClassifierOutput, channels: Tensor) -> Tensor:
        """See :meth:`ViewLocalizer.view_maps`; here each view guides itself."""
        seeds, stages = self._seeds_and_stages(trained, output, channels)
        return guided(seeds, stages, self.guidance)

    def scale_maps(self, trained: Trained, output: ClassifierOutput, channels: Tensor) -> Tensor:
        """See :meth:`ViewLocalizer.scale_maps`; the stages guide each other after the flip sum."""
        seeds, stages = self._seeds_and_stages(trained, output, channels)

        def merged(stage: Polish) -> Polish:
            return lambda maps: merge_flips(stage(maps), self.flips)

        def spread(maps: Tensor) -> Tensor:
            return torch.stack([maps, maps.flip(-1)])[: len(seeds)]

        return guided(seeds, [merged(stage) for stage in stages], self.guidance, spread)

    def _seeds_and_stages(
        self, trained: Trained, output: ClassifierOutput, channels: Tensor
    ) -> tuple[Tensor, list[Polish]]:
        """Seeds [B, K, h, w], and what polishes such maps by each stage."""
        seeds, features = self.inner_maps_and_features(trained, output, channels)
        return seeds, [self._polisher(own) for own in features]

    def _polisher(self, features: Tensor) -> Polish:
        """Polishes maps [B, K, h, w], each view by its own features [B, D, h, w]."""
        clip = self.clip_negative or (self.signed == "clip" and is_signed(features))

        def polished(maps: Tensor) -> Tensor:
            options: Any = {"norm": self.norm, "epsilon": self.epsilon, "clip": clip}
            views = zip(maps, features, strict=True)
            return torch.stack([polish(view, own, blocks=self.blocks, **options) for view, own in views])

        return polished
