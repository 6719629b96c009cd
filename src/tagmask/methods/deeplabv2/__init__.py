"""DeepLabV2 with its multi-scale head. Chen et al., TPAMI 2018."""

from tagmask.registry import Declaration

METHODS = (
    Declaration(
        "network",
        "deeplabv2",
        "network:DeepLabV2",
        "DeepLabV2 on ResNet-101, maximum over three scales",
        paper="Chen et al., TPAMI 2018",
        page="methods/deeplabv2.md",
    ),
)
