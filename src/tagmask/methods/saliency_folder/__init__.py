"""Saliency maps of another program, read from a folder."""

from tagmask.registry import Declaration

METHODS = (
    Declaration(
        "saliency",
        "folder",
        "saliency:FolderSaliency",
        "pictures of another program, one per image id",
        page="methods/aamr.md",
    ),
)
