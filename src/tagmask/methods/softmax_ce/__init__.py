"""The softmax classifier of ReCAM's ablation. Chen et al., CVPR 2022."""

from tagmask.registry import Declaration

METHODS = (
    Declaration(
        "head",
        "softmax_ce",
        "head:SoftmaxCeHead",
        "gap trained by softmax cross entropy (an ablation of ReCAM)",
        paper="Chen et al., CVPR 2022",
        page="methods/recam.md",
    ),
)
