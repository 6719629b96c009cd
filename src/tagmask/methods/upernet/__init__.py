"""UPerNet on Swin or any timm encoder. Xiao et al., ECCV 2018."""

from tagmask.registry import Declaration

METHODS = (
    Declaration(
        "network",
        "upernet",
        "network:UPerNet",
        "UPerNet, Swin or any timm encoder",
        paper="Xiao et al., ECCV 2018",
        page="methods/upernet.md",
    ),
)
