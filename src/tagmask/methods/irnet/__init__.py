"""IRNet: boundaries and displacements from inter-pixel relations. Ahn et al., CVPR 2019."""

from tagmask.registry import Declaration

METHODS = (
    Declaration(
        "refiner",
        "irnet",
        "refiner:IRNet",
        "random walk of the maps inside class boundaries that a network learns from them",
        paper="Ahn et al., CVPR 2019",
        page="methods/irnet.md",
    ),
)
