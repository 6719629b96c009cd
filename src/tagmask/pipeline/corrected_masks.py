"""What is said and checked about corrected pseudo masks at the start of a run."""

from __future__ import annotations

from tagmask.progress.listeners import Progress
from tagmask.runs.context import TRAIN
from tagmask.runs.corrections import CORRECTIONS, SETTING, Corrections, adopt_edits, listed
from tagmask.runs.stage_names import REFINE, SEGMENT
from tagmask.runs.workspace import Workspace
from tagmask.types import DataSource


def notice_edits(workspace: Workspace, voice: Progress) -> None:
    """Take over pseudo masks that somebody has edited in the run directory."""
    names = adopt_edits(workspace)
    if names:
        voice.message(
            f"{REFINE}/masks: {len(names)} masks were edited ({listed(names)}); they are kept in {CORRECTIONS}/masks, "
            "and the network learns from them"
        )


def check_corrections(corrections: Corrections, source: DataSource, voice: Progress, *, due: bool) -> None:
    """Read corrected masks before anything is trained; ``due``: a training is to learn from them.

    Raises:
        InputError: one cannot be used.
    """
    if corrections.unused:
        n_files, names = len(corrections.unused), listed(corrections.unused)
        voice.warning(f"{SETTING}: {n_files} files are no mask of a training image: {names}")
    if not corrections.paths or not due:
        return
    beyond, without = corrections.check(source.splits[TRAIN])
    if beyond:
        voice.warning(
            f"{len(beyond)} corrected masks hold a class that is not among their image's tags: {listed(beyond)}. "
            "Correct the tags, too"
        )
    if without:
        voice.warning(
            f"{len(without)} corrected masks hold nothing that their image is tagged with: {listed(without)}. "
            "Numbers must be 1 for the first class, 2 for the second; 255 is ignored"
        )
    voice.message(f"{SEGMENT}: {len(corrections.paths)} corrected masks take the place of pseudo masks")
