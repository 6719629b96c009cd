"""The PASCAL VOC layout."""

from tagmask.registry import Declaration

METHODS = (
    Declaration(
        "data",
        "voc",
        "source:VocSource",
        "PASCAL VOC layout (VOC 2007/2012, SBD, own data)",
        paper="Everingham et al., IJCV 2010",
        page="own-data.md",
    ),
)
