"""Local contrast: maps of small things, weighted by how a pixel differs from what is around it. Ours."""

from tagmask.registry import Declaration

METHODS = (
    Declaration(
        "refiner",
        "local_contrast",
        "refiner:LocalContrast",
        "weights maps by how much a pixel differs from its surroundings: small things",
        page="methods/local-contrast.md",
    ),
)
