"""COCO: instances JSON, its masks, tags from both."""

from tagmask.registry import Declaration

METHODS = (
    Declaration(
        "data", "coco", "source:CocoSource", "COCO instances JSON", paper="Lin et al., ECCV 2014", page="own-data.md"
    ),
)
