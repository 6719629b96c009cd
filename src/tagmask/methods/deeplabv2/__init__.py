"""DeepLabV2 with its multi-scale head. Chen et al., TPAMI 2018."""

from tagmask.contracts.declaration import Declaration

METHODS = (
    Declaration(
        "network",
        "deeplabv2",
        "network:DeepLabV2",
        "DeepLabV2, ResNet-101 at three scales, as most papers of this field train it",
        paper="Chen et al., TPAMI 2018",
        page="methods/deeplabv2.md",
    ),
)
