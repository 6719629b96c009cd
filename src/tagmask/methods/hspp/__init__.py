"""Hybrid spatial pyramid pooling. Ru et al., IJCAI 2021."""

from tagmask.registry import Declaration

METHODS = (
    Declaration(
        "head",
        "hspp",
        "head:HsppHead",
        "hybrid spatial pyramid pooling: maxima of several grids, and the mean",
        paper="Ru et al., IJCAI 2021",
        page="methods/hspp.md",
    ),
)
