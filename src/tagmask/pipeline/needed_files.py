"""What the stages that are still to be done need beside the data, asked for before the first of them starts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tagmask.errors import MissingFilesError
from tagmask.pipeline.named_files import missing_files
from tagmask.pipeline.plan import Step
from tagmask.runs.stage_names import CLASSIFY, REFINE, SALIENCY, SEGMENT, SEGMENT_FULL, family
from tagmask.runs.workspace import Workspace
from tagmask.settings.recipe import Recipe


def due_families(workspace: Workspace, steps: Iterable[Step], reuse: Sequence[Path] = ()) -> set[str]:
    """Families of the stages whose fingerprint is another than what lies in the run directory, or in one to reuse."""
    records = workspace.manifest()["stages"]
    finished = {
        record.get("fingerprint")
        for other in reuse
        for record in Workspace(other).manifest()["stages"].values()
        if record.get("status") == "done"
    }
    return {
        family(step.name)
        for step in steps
        if records.get(step.name, {}).get("fingerprint") != step.fingerprint and step.fingerprint not in finished
    }


def check_data_files(recipe: Recipe) -> None:
    """Make sure that what the settings of the data name is there; if not, all that the recipe names is told.

    Raises:
        MissingFilesError: a line for each that is not.
    """
    if recipe.data.missing_files():
        raise MissingFilesError(str(file) for file in missing_files(recipe))


def check_needed_files(recipe: Recipe, due: set[str]) -> None:
    """Make sure that the stages of these families find their files, and their published weights.

    Raises:
        MissingFilesError: a line for each file that is not there.
        InputError: published weights are not on this machine, and no network answers; or no package has them.
    """
    missing = [file for file in missing_files(recipe) if not due.isdisjoint(_families(file.key))]
    if missing:
        raise MissingFilesError(str(file) for file in missing)
    for setting, network, weights in _later_weights(recipe, due):
        if weights == "timm":
            from tagmask.backbones.published import published_copy

            published_copy(network, setting)
        elif weights == "installed":
            from tagmask.backbones.installed import installed_file

            installed_file(network, setting)


def _families(key: str) -> set[str]:
    """Families of the stages that read a setting."""
    section = re.split(r"[.\[]", key)[0]
    if key.startswith("segment.saliency"):
        return {SALIENCY}
    return {"retrain": {CLASSIFY}, "segment": {SEGMENT, SEGMENT_FULL}}.get(section, {section})


def _later_weights(recipe: Recipe, due: set[str]) -> Iterator[tuple[str, str, object]]:
    """(setting, network, weights) wherever a stage behind the first training starts from other weights than it."""
    if CLASSIFY in due:
        for number, again in enumerate(recipe.retrain):
            if again.start == "weights":
                yield f"retrain[{number}].backbone", again.backbone, again.weights
    if REFINE in due:
        for number, refiner in enumerate(recipe.refine.chain):
            backbone = getattr(refiner, "backbone", None)
            if backbone is not None:
                yield f"refine[{number}].backbone", backbone.backbone, backbone.weights
    if recipe.segment and not due.isdisjoint({SEGMENT, SEGMENT_FULL}):
        network = recipe.segment.network
        if network.published_weights is not None:
            yield "segment.network.encoder", network.published_weights, "timm"
        elif getattr(network, "weights", None) == "installed" and hasattr(network, "encoder"):
            yield "segment.network.weights", network.encoder, "installed"
