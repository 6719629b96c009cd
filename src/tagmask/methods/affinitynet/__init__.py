"""AffinityNet: a random walk over pixels that a network learns to be alike. Ahn & Kwak, CVPR 2018."""

from tagmask.registry import Declaration

METHODS = (
    Declaration(
        "refiner",
        "affinitynet",
        "refiner:AffinityNet",
        "random walk of maps and background over pixels that a network learns to be alike",
        paper="Ahn & Kwak, CVPR 2018",
        page="methods/affinitynet.md",
    ),
)
