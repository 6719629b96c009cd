"""EDAM's label rule: saliency decides where, the maps decide what. Wu et al., CVPR 2021."""

from tagmask.registry import Declaration

METHODS = (
    Declaration(
        "refiner",
        "saliency_rule",
        "refiner:SaliencyRule",
        "labels of any maps: the highest map inside the salient region, none outside but for its peak",
        paper="Wu et al., CVPR 2021",
        page="methods/edam.md",
    ),
)
