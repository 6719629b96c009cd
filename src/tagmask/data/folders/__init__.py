"""One folder per class."""

from tagmask.registry.declaration import Declaration

METHODS = (Declaration("data", "folders", "source:FoldersSource", "one folder per class", page="own-data.md"),)
