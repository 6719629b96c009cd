"""LPCAM: similarity to local prototypes of the class and of its context. Chen & Sun, CVPR 2023."""

from tagmask.registry import Declaration

METHODS = (
    Declaration(
        "localizer",
        "lpcam",
        "localizer:Lpcam",
        "similarity to prototypes of the class minus similarity to those of its context",
        paper="Chen & Sun, CVPR 2023",
        page="methods/lpcam.md",
    ),
)
