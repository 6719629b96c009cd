"""Judged maps: one method finds objects, another their classes. Ours."""

from tagmask.registry import Declaration

METHODS = (
    Declaration(
        "localizer",
        "judged",
        "localizer:Judged",
        "one method's maps say where objects are, another's which of the image's classes they are",
        page="methods/judged.md",
    ),
)
