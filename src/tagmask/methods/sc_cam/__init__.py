"""SC-CAM: sub-categories found by clustering. Chang et al., CVPR 2020."""

from tagmask.registry import Declaration

METHODS = (
    Declaration(
        "head",
        "subcategory",
        "head:SubcategoryHead",
        "a second classifier for clusters of each class's images; around any head, in retraining",
        paper="Chang et al., CVPR 2020",
        page="methods/sc-cam.md",
    ),
)
