"""Minimum barrier saliency. Zhang et al., ICCV 2015."""

from tagmask.registry import Declaration

METHODS = (
    Declaration(
        "saliency",
        "minimum_barrier",
        "saliency:MinimumBarrier",
        "what the border cannot reach without crossing an edge; nothing to train",
        paper="Zhang et al., ICCV 2015",
        page="methods/aamr.md",
    ),
)
