"""SPA: structure-preserving activation, the restricted head and self-correlation maps. Pan et al., CVPR 2021."""

from tagmask.registry import Declaration

METHODS = (
    Declaration(
        "head",
        "restricted",
        "head:RestrictedHead",
        "softmax cross entropy and SPA's restricted activation, for object localisation",
        paper="Pan et al., CVPR 2021",
        page="methods/scg.md",
    ),
    Declaration(
        "localizer",
        "scg",
        "localizer:Scg",
        "maps made anew from positions that look like their foreground, minus those like their background",
        paper="Pan et al., CVPR 2021",
        page="methods/scg.md",
    ),
)
