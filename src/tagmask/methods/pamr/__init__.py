"""PAMR: pixel-adaptive mask refinement. Araslanov & Roth, CVPR 2020."""

from tagmask.registry import Declaration

METHODS = (
    Declaration(
        "refiner",
        "pamr",
        "refiner:Pamr",
        "means over neighbours of like colour pull the maps to outlines, nothing to train",
        paper="Araslanov & Roth, CVPR 2020",
        page="methods/pamr.md",
    ),
)
