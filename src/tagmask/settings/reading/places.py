"""Recipes that come with tagmask, and where the relative paths of a recipe file start from."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def shipped_folder() -> Path:
    """The folder of the recipes that come with tagmask."""
    return Path(str(resources.files("tagmask"))) / "recipes"


def is_shipped(recipe: Path) -> bool:
    """Whether a recipe file is one of tagmask's own."""
    return recipe.resolve().is_relative_to(shipped_folder().resolve())


def starting_folder(recipe: Path) -> Path:
    """Where relative paths of a recipe file start from: its folder.

    Tagmask's own recipes cannot know where anybody's data lies: theirs start from the current folder, as if they were
    typed.
    """
    return Path.cwd() if is_shipped(recipe) else recipe.resolve().parent
