"""The plain loss of segmentation networks."""

from tagmask.registry import Declaration

METHODS = (
    Declaration(
        "loss",
        "cross_entropy",
        "loss:CrossEntropy",
        "mean cross entropy over labelled pixels; weights by confidence",
        page="methods/aamr.md",
    ),
)
