"""The earlier classifier that a training starts from: which file it is, and what lies in it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tagmask.errors import InputError
from tagmask.runs.run import open_run
from tagmask.runs.stage_names import CLASSIFY
from tagmask.runs.workspace import Workspace
from tagmask.settings.recipe import Recipe

SETTING = "classify.warm_start"


def classifier_file(path: Path) -> Path:
    """The file of a classifier: of a run its last training's, else the path itself.

    Raises:
        InputError: no such file, or a run whose classifier is not trained yet.
    """
    if not path.is_dir():
        if not path.is_file():
            msg = f"{SETTING}: {path} does not exist. Name a run, or the model.safetensors of a classifier."
            raise InputError(msg)
        return path
    run = open_run(path)
    file = run.workspace.model_path(run.recipe.last_training)
    if not file.is_file():
        msg = f"{SETTING}: {path} has no trained classifier yet ({file} is missing). Finish its classify stage first."
        raise InputError(msg)
    return file


def warm_start_state(recipe: Recipe, workspace: Workspace) -> str:
    """Hash of the file that the classifier starts from, '' without any.

    Once the training has begun, the file may go: its hash is in the manifest.

    Raises:
        InputError: it is not there, and never was.
    """
    path = recipe.classify.warm_start
    if path is None:
        return ""
    try:
        file = classifier_file(path)
    except InputError:
        record = workspace.manifest()["stages"].get(CLASSIFY, {})
        state = record.get("settings", {}).get("settings", {}).get("warm_start")
        if state and record.get("status") == "done":
            return str(state)
        raise
    with file.open("rb") as stream:
        return f"sha256 {hashlib.file_digest(stream, 'sha256').hexdigest()[:16]}"
