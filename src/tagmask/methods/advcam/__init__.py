"""AdvCAM: maps summed while the image climbs in favour of a class. Lee et al., CVPR 2021."""

from tagmask.registry import Declaration

METHODS = (
    Declaration(
        "localizer",
        "advcam",
        "localizer:AdvCam",
        "maps summed while the image is changed in favour of each class",
        paper="Lee et al., CVPR 2021",
        page="methods/advcam.md",
    ),
)
