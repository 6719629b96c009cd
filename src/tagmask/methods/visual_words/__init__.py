"""Visual word encoder (VWE). Ru et al., IJCAI 2021."""

from tagmask.registry import Declaration

METHODS = (
    Declaration(
        "head",
        "visual_words",
        "head:VisualWordsHead",
        "learns visual words beside the classes; around any head",
        paper="Ru et al., IJCAI 2021",
        page="methods/visual-words.md",
    ),
    Declaration(
        "localizer",
        "visual_words",
        "localizer:VisualWords",
        "maps of a classifier with visual words: image branch, word branch or both",
        paper="Ru et al., IJCAI 2021",
        page="methods/visual-words.md",
    ),
)
