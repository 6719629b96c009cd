"""U-Net on any timm encoder. Ronneberger et al., MICCAI 2015."""

from tagmask.registry import Declaration

METHODS = (
    Declaration(
        "network",
        "unet",
        "network:UNet",
        "U-Net on any timm encoder, for objects of few pixels",
        paper="Ronneberger et al., MICCAI 2015",
        page="methods/unet.md",
    ),
)
