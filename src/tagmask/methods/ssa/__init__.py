"""SSA: semantic structure aware inference. Sun & Li, arXiv 2021."""

from tagmask.registry import Declaration

METHODS = (
    Declaration(
        "localizer",
        "ssa",
        "localizer:Ssa",
        "polishes maps by averaging over positions that look alike, two stages guiding each other",
        paper="Sun & Li, arXiv 2021",
        page="methods/ssa.md",
    ),
)
