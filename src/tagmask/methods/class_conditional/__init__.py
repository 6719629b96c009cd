"""Class-conditional inference (InferCam): split & unite, iterative inference. Sun et al., WACV 2022."""

from tagmask.registry import Declaration

METHODS = (
    Declaration(
        "localizer",
        "class_conditional",
        "localizer:ClassConditional",
        "maps of cuts of the image, and of the image without what was found before",
        paper="Sun et al., WACV 2022",
        page="methods/class-conditional.md",
    ),
)
