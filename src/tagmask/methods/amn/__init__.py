"""AMN: maps of a network that is told the image's tags and learns from seed labels. Lee et al., CVPR 2022."""

from tagmask.registry import Declaration

METHODS = (
    Declaration(
        "refiner",
        "amn",
        "refiner:AMN",
        "maps of a network that knows the tags and learns every pixel of confident labels",
        paper="Lee et al., CVPR 2022",
        page="methods/amn.md",
    ),
)
