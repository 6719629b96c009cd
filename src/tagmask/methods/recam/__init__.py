"""ReCAM: class re-activation by a second, softmax classifier. Chen et al., CVPR 2022."""

from tagmask.registry import Declaration

METHODS = (
    Declaration(
        "head",
        "recam",
        "head:RecamHead",
        "a second classifier, by softmax, on features cut out with each class's map; around any head",
        paper="Chen et al., CVPR 2022",
        page="methods/recam.md",
    ),
    Declaration(
        "localizer",
        "recam",
        "localizer:Recam",
        "maps of ReCAM's second classifier, alone or combined with the first",
        paper="Chen et al., CVPR 2022",
        page="methods/recam.md",
    ),
)
