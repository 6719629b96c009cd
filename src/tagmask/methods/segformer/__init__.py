"""SegFormer, the light option. Xie et al., NeurIPS 2021."""

from tagmask.registry import Declaration

METHODS = (
    Declaration(
        "network",
        "segformer",
        "network:Segformer",
        "SegFormer, the light option: a small transformer, linear decoder",
        paper="Xie et al., NeurIPS 2021",
        page="methods/segformer.md",
    ),
)
