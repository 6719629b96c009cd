"""Recipe files: safe YAML, each key once, ``extends``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tagmask.errors import RecipeError
from tagmask.registry.validation import anchor
from tagmask.settings.reading.merging import merge
from tagmask.settings.reading.places import starting_folder


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Safe YAML in which no key may stand twice: the second would replace the first without a word."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """A mapping, with each key once."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key '{key}' stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, depth: int = 0) -> dict[str, Any]:
    """A YAML file as a mapping; ``extends: other.yaml`` is merged below it.

    Raises:
        RecipeError: it cannot be read, or is no mapping.
    """
    try:
        raw = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=_Loader)  # a safe loader
    except OSError as error:
        msg = f"{path}: cannot read the recipe ({error.strerror}). Check the path, or see 'tagmask recipe list'."
        raise RecipeError(msg) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        msg = f"{path}: not valid YAML: {text}"
        raise RecipeError(msg) from error
    if not isinstance(raw, dict):
        msg = f"{path}: a recipe is a mapping of keys, this is {type(raw).__name__}"
        raise RecipeError(msg)
    values: dict[str, Any] = anchor(raw, starting_folder(path), path.resolve().parent)
    parent = values.pop("extends", None)
    if parent is None:
        return values
    if depth > 8:
        msg = f"{path}: 'extends' goes round in circles"
        raise RecipeError(msg)
    return merge(read_yaml(path.resolve().parent / str(parent), depth + 1), values)
