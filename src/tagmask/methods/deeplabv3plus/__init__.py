"""DeepLabV3+ on any timm encoder. Chen et al., ECCV 2018."""

from tagmask.registry import Declaration

METHODS = (
    Declaration(
        "network",
        "deeplabv3plus",
        "network:DeepLabV3Plus",
        "DeepLabV3+, any timm encoder",
        paper="Chen et al., ECCV 2018",
        page="methods/deeplabv3plus.md",
    ),
)
