"""Data sets of object localisation, with boxes: CUB, ILSVRC, the lists of wsolevaluation."""

from tagmask.registry import Declaration

METHODS = (
    Declaration(
        "data", "cub", "cub:CubSource", "CUB-200-2011, boxes included", paper="Wah et al., 2011", page="localisation.md"
    ),
    Declaration(
        "data",
        "ilsvrc",
        "ilsvrc:IlsvrcSource",
        "ImageNet's localisation challenge, boxes included",
        paper="Russakovsky et al., IJCV 2015",
        page="localisation.md",
    ),
    Declaration(
        "data",
        "wsol",
        "wsol:WsolListsSource",
        "wsolevaluation's lists: boxes, or OpenImages' masks",
        paper="Choe et al., CVPR 2020",
        page="localisation.md",
    ),
)
