"""Activation-aware mask refinement: a loss that lets saliency teach the background. Sun et al., WACV 2022."""

from tagmask.registry import Declaration

METHODS = (
    Declaration(
        "loss",
        "saliency_bce",
        "loss:SaliencyBce",
        "cross entropy, and the background against saliency with a constant weight (an ablation of aamr)",
        paper="Sun et al., WACV 2022",
        page="methods/aamr.md",
    ),
    Declaration(
        "loss",
        "aamr",
        "loss:Aamr",
        "cross entropy, and the background against saliency, the more the better it fits the pseudo mask",
        paper="Sun et al., WACV 2022",
        page="methods/aamr.md",
    ),
)
