"""One folder per class."""

from tagmask.registry import Declaration

METHODS = (Declaration("data", "folders", "source:FoldersSource", "one folder per class", page="own-data.md"),)
