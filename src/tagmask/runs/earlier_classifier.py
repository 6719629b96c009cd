"""The earlier classifier that a run starts from, or uses as it is: which file it is, and what lies in it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tagmask.errors import InputError
from tagmask.runs.run import open_run
from tagmask.runs.stage_names import CLASSIFY
from tagmask.runs.workspace import Workspace
from tagmask.settings.classify import FIRST_ALONE
from tagmask.settings.recipe import Recipe


def classifier_file(path: Path, key: str) -> Path:
    """The file of a classifier: of a run its last training's, else the path itself.

    Args:
        path: a run, or a file.
        key: of ``classify``, for messages.

    Raises:
        InputError: no such file, or a run whose classifier is not trained yet.
    """
    if not path.is_dir():
        if not path.is_file():
            msg = f"classify.{key}: {path} does not exist. Name a run, or the file of a classifier."
            raise InputError(msg)
        return path
    run = open_run(path)
    file = run.workspace.model_path(run.recipe.last_training)
    if not file.is_file():
        msg = f"classify.{key}: {path} has no trained classifier yet ({file} is missing). Finish its classify stage."
        raise InputError(msg)
    return file


def classifier_states(recipe: Recipe, workspace: Workspace) -> dict[str, str]:
    """Hashes of the files that the first classifier comes from, by their keys in ``classify``.

    Once it is there, the files may go: their hashes are in the manifest.

    Raises:
        InputError: one is not there, and never was.
    """
    paths = {key: getattr(recipe.classify, key) for key in FIRST_ALONE}
    record = workspace.manifest()["stages"].get(CLASSIFY, {})
    states = {}
    for key, path in paths.items():
        if not isinstance(path, Path):
            continue
        try:
            file = classifier_file(path, key)
        except InputError:
            state = record.get("settings", {}).get("settings", {}).get(key)
            if not state or record.get("status") != "done":
                raise
            states[key] = str(state)
            continue
        with file.open("rb") as stream:
            states[key] = f"sha256 {hashlib.file_digest(stream, 'sha256').hexdigest()[:16]}"
    return states
