"""Colour walk: a random walk of the maps over colour affinities. Ours."""

from tagmask.registry import Declaration

METHODS = (
    Declaration(
        "refiner",
        "colour_walk",
        "refiner:ColourWalk",
        "random walk of the maps over colour affinities, nothing to train",
        paper="after Ahn et al., CVPR 2019",
        page="methods/colour-walk.md",
    ),
)
