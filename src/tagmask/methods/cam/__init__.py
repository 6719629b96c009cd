"""Class activation maps: the plain head and the plain localizer. Zhou et al., CVPR 2016."""

from tagmask.registry import Declaration

METHODS = (
    Declaration(
        "head",
        "gap",
        "head:GapHead",
        "global average pooling, bias-free 1×1 convolution",
        paper="Zhou et al., CVPR 2016",
        page="methods/cam.md",
    ),
    Declaration(
        "localizer",
        "cam",
        "localizer:Cam",
        "class activation maps, multi-scale and flip",
        paper="Zhou et al., CVPR 2016",
        page="methods/cam.md",
    ),
)
