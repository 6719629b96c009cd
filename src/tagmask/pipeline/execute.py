"""A run: plan the stages, fingerprint them, skip, resume or redo them, write the manifest."""

from __future__ import annotations

import platform
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tagmask.engine.memory import peak_megabytes, reset_peak
from tagmask.errors import InputError
from tagmask.pipeline.corrected_masks import check_corrections, notice_edits
from tagmask.pipeline.needed_files import check_data_files, check_needed_files, due_families
from tagmask.pipeline.pixels import with_settled_pixels
from tagmask.pipeline.plan import Step, plan, planned_stages
from tagmask.pipeline.working_size import with_working_size
from tagmask.progress.listeners import LogFile, Progress, SilentProgress
from tagmask.runs.corrections import edited_masks, find_corrections
from tagmask.runs.earlier_classifier import classifier_states
from tagmask.runs.real_masks import chosen_masks, masks_state
from tagmask.runs.run import Run
from tagmask.runs.stage_names import EVALUATE, REFINE, REPEATED, REPORT, SEGMENT, family
from tagmask.runs.workspace import Workspace
from tagmask.settings.loading import Recipe, load_recipe
from tagmask.settings.recipe import differences
from tagmask.stages.table import STAGES, kind_of, sees_truth
from tagmask.storage.arrays import SCHEMA
from tagmask.storage.files import atomic_write
from tagmask.types import DataSource

_MOST_NOTES = 5  # of how the data was read; all are in problems.jsonl


def run(
    recipe: Recipe | str | Path | Mapping[str, Any],
    *,
    output: Path | str | None = None,
    devices: int | None = None,
    reuse: Path | str | Sequence[Path | str] | None = None,
    progress: Progress | None = None,
    until: str | None = None,
    overrides: Sequence[str] = (),
) -> Run:
    """Walk a recipe from tags to masks, model and report; an existing run goes on where it stopped.

    Args:
        recipe: a recipe, its path, a mapping, or the directory of an existing run.
        output: run directory; ``runs/NAME`` by default (``runs/NAME-seedN`` for seeds other than 0).
        devices: processes to use, instead of ``engine.devices``.
        reuse: another run directory, or several; their stages with the same fingerprint are linked, not redone.
        progress: who to tell; silent by default.
        until: last stage to do.
        overrides: ``key=value`` texts on top of the recipe.

    Raises:
        InputError: recipe or data are wrong.
        RunError: the run cannot go on (disk full, locked, every image unreadable).
    """
    if until is not None and until not in STAGES and family(until) not in REPEATED:
        msg = f"--until {until}: no such stage; known: {', '.join(STAGES)}"
        raise InputError(msg)
    others = [Path(path) for path in ([reuse] if isinstance(reuse, str | Path) else reuse or ())]
    for other in others:
        if not (other / "manifest.json").is_file():
            msg = f"--reuse {other}: not a run directory (no manifest.json in it)"
            raise InputError(msg)
    resolved, root = _resolve(recipe, output, overrides)
    if devices is not None:
        changed = resolved.engine.model_copy(update={"devices": devices})
        resolved = resolved.model_copy(update={"engine": changed})
    check_data_files(resolved)
    source: DataSource = resolved.data.open()
    if not source.classes.fits_mask and (resolved.refine.chain or resolved.segment is not None):
        msg = f"{len(source.classes.names)} classes do not fit an 8-bit mask: set refine: [] and segment: null"
        raise InputError(msg)
    planned = [stage.name for stage in planned_stages(resolved)]
    if until not in (None, REPORT, *planned):
        msg = f"--until {until}: this recipe has no such stage, only {', '.join(planned)}"
        raise InputError(msg)
    from tagmask.engine.engine import Engine  # torch is loaded only once recipe and data are known to be sound

    engine = Engine(resolved.engine, seed=resolved.seed)
    workspace = Workspace(root)
    if not engine.is_main:
        with engine.follow_first_rank():
            _walk(resolved, workspace, engine, source, SilentProgress(), (), until)
        return Run(root, resolved)
    with workspace.lock():
        # Under the lock, or what another process is writing would be taken for a leftover.
        workspace.sweep()
        voice = LogFile(root / "log.txt", progress or SilentProgress())
        _walk(resolved, workspace, engine, source, voice, others, until)
    return Run(root, resolved)


def _resolve(recipe: Any, output: Path | str | None, overrides: Sequence[str]) -> tuple[Recipe, Path]:
    if isinstance(recipe, str | Path) and Path(recipe).is_dir():
        recipe_file = Path(recipe) / "recipe.yaml"
        if not recipe_file.exists():
            msg = f"{recipe}: not a run directory (no recipe.yaml in it)"
            raise InputError(msg)
        return load_recipe(recipe_file, overrides), Path(output or recipe)
    loaded = load_recipe(recipe, overrides)
    name = loaded.name if loaded.seed == 0 else f"{loaded.name}-seed{loaded.seed}"
    return loaded, Path(output) if output else Path("runs") / name


def _walk(
    recipe: Recipe,
    workspace: Workspace,
    engine: Any,
    source: DataSource,
    voice: Progress,
    reuse: Sequence[Path],
    until: str | None,
) -> None:
    stored = recipe  # 'auto' stays 'auto' there: more images may ask for another size
    recipe = with_working_size(recipe, workspace, engine, source, voice)
    source = with_settled_pixels(workspace, engine, source, voice)
    if engine.is_main:
        notice_edits(workspace, voice)
    engine.barrier()  # every rank plans with what the first has copied
    corrections = find_corrections(workspace, recipe, source)
    real = chosen_masks(recipe, source)
    files = {
        "corrections": corrections.state(),
        "real_masks": masks_state(source, real),
        **classifier_states(recipe, workspace),
    }
    steps = plan(recipe, source, engine.precision, files)
    last = [step.name for step in steps].index(until) if until not in (None, REPORT) else len(steps)
    if engine.is_main:
        # Before the recipe is written: a folder that cannot be used is not remembered.
        check_needed_files(recipe, due_families(workspace, steps[: last + 1], reuse))
        check_corrections(corrections, source, voice, due=SEGMENT in due_families(workspace, steps))
        _open_manifest(stored, workspace, engine, source)
        workspace.write_problems("data", source.problems)
        missing = [problem for problem in source.problems if problem.left_out]
        if missing:
            voice.warning(f"data: {len(missing)} entries were left out; problems.jsonl lists them")
        for note in [problem for problem in source.problems if not problem.left_out][:_MOST_NOTES]:
            voice.warning(f"data: {Path(note.path).name}: {note.reason}")
    fresh = _report_is_newer(workspace)
    for step in steps:
        reason = _prepare(workspace, step, steps, reuse, voice) if engine.is_main else None
        # One rank decides: another might look at the directory while the first is writing to it.
        reason = engine.fabric.broadcast(reason)
        if reason is not None:
            fresh = False
            _run_step(recipe, workspace, engine, view_for(step.name, source, real), voice, step, reason)
        if step.name == until:
            break
    if engine.is_main and not fresh and until in (None, REPORT, EVALUATE):
        from tagmask.report import write_report

        write_report(workspace, source)
    engine.barrier()


def _report_is_newer(workspace: Workspace) -> bool:
    """Whether the report was written after the scores; if no stage has anything to do, it need not be written again."""
    report, metrics = workspace.root / "report.html", workspace.root / "metrics.json"
    return report.exists() and metrics.exists() and report.stat().st_mtime_ns >= metrics.stat().st_mtime_ns


def _prepare(workspace: Workspace, step: Step, steps: list[Step], reuse: Sequence[Path], voice: Progress) -> str | None:
    """Decide what becomes of a stage: None if it is up to date, else the reason to run it."""
    record = workspace.manifest()["stages"].get(step.name, {})
    same = record.get("fingerprint") == step.fingerprint
    # "done" is believed only while as many files are there as it left: somebody may have deleted some to have them made
    # again.
    missing = record.get("files", 0) - workspace.count_files(step.name) if same else 0
    if same and record["status"] == "done" and missing <= 0:
        voice.stage(step.name, "up to date")
        return None
    if same:
        # The same fingerprint: whatever lies there is right, so only what is missing is made. Another fingerprint: what
        # lies there is of another recipe, and goes before anything new is written.
        reason = "resumed" if missing <= 0 else f"{missing} of its files are gone"
    else:
        reason = "new" if not record else _what_changed(workspace, step, record)
        workspace.clear(step.name)
        for other in reuse:
            if _link_stage(Workspace(other), workspace, step):
                voice.stage(step.name, f"reused from {other}")
                return None
    voice.stage(step.name, reason)
    # Written before the work begins: if the process is killed, the next start finds what it was about, and goes on.
    entry = {
        "status": "running",
        "fingerprint": step.fingerprint,
        "settings": step.settings,
        "reason": reason,
        "upstream": {s.name: s.fingerprint for s in steps if s.name in step.upstream},
    }
    workspace.update_manifest(lambda manifest: manifest["stages"].update({step.name: entry}))
    return reason


def view_for(stage: str, source: DataSource, real: Collection[str]) -> DataSource:
    """The data as a stage may see it: with masks for those that need them, with those in ``real`` for two more.

    The one place where supervision could leak: all other stages are handed a source that has no masks.
    """
    if sees_truth(stage):
        return source
    return source.weak(real if family(stage) in (REFINE, SEGMENT) else ())


def _run_step(
    recipe: Recipe,
    workspace: Workspace,
    engine: Any,
    source: DataSource,
    voice: Progress,
    step: Step,
    reason: str,
) -> None:
    from tagmask.runs.context import Context

    context = Context(recipe, workspace, engine, source, voice)
    reset_peak()
    begun = time.monotonic()
    problems = kind_of(step.name).run(context, step.name)
    if not engine.is_main:
        return
    for name in {step.name, *(problem.stage for problem in problems)}:
        workspace.write_problems(name, [problem for problem in problems if problem.stage == name])
    context.report_skipped(step.name, problems)
    seconds = time.monotonic() - begun

    def done(manifest: dict[str, Any]) -> None:
        manifest["stages"][step.name].update(
            status="done",
            seconds=round(seconds, 2),
            peak_memory_mb=round(peak_megabytes(), 1),
            problems=len(problems),
            files=workspace.count_files(step.name),
            finished=_now(),
            reason=reason,
        )

    workspace.update_manifest(done)
    # Last: a kill between the two leaves a checkpoint too many, not one too few.
    (workspace.stage(step.name) / "state.ckpt").unlink(missing_ok=True)


def _what_changed(workspace: Workspace, step: Step, record: Mapping[str, Any]) -> str:
    """In words: the first settings that differ, else what upstream brings."""
    changes = [text.removeprefix("settings.") for text in differences(record.get("settings", {}), step.settings)]
    if changes:
        more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
        return "changed: " + ", ".join(changes[:3]) + more
    now = workspace.manifest()["stages"]
    for name, fingerprint in record.get("upstream", {}).items():
        if now.get(name, {}).get("fingerprint") != fingerprint:
            return f"changed: {name} was redone"
    return "changed: data"


def _link_stage(other: Workspace, workspace: Workspace, step: Step) -> bool:
    """Hard-link (or copy) a finished stage of another run if its fingerprint is the same and no file is gone."""
    manifest = other.manifest()
    record = manifest["stages"].get(step.name, {})
    if record.get("fingerprint") != step.fingerprint or record.get("status") != "done" or step.name == EVALUATE:
        return False
    if other.count_files(step.name) < record.get("files", 0):
        return False
    if step.name == REFINE and edited_masks(other):
        return False  # a person's masks are corrections of that run, and would be taken for the stage's here
    workspace.link_artifacts(other, step.name)
    problems = [p for p in other.problems() if p.stage in (step.name, f"{step.name} (training)")]
    for stage in {problem.stage for problem in problems}:
        workspace.write_problems(stage, [problem for problem in problems if problem.stage == stage])
    workspace.update_manifest(
        lambda m: m["stages"].update({step.name: {**record, "reason": f"reused from {other.root}"}})
    )
    return True


def _open_manifest(recipe: Recipe, workspace: Workspace, engine: Any, source: DataSource) -> None:
    import torch

    from tagmask.version import version

    environment = {
        "tagmask": version(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": str(engine.device),
        "precision": engine.precision,
        "threads": torch.get_num_threads(),
        "processes": engine.fabric.world_size,
        "platform": platform.platform(),
    }
    data = {
        "format": source.format,
        "fingerprint": source.fingerprint,
        "classes": list(source.classes.names),
        "images": {split: len(samples) for split, samples in source.splits.items()},
    }

    def change(manifest: dict[str, Any]) -> None:
        manifest.update(schema=SCHEMA, name=recipe.name, seed=recipe.seed, environment=environment, data=data)
        manifest["result_stage"] = recipe.segment.stages[-1] if recipe.segment else None
        manifest.setdefault("created", _now())

    workspace.update_manifest(change)
    with atomic_write(workspace.root / "recipe.yaml", "w") as stream:
        stream.write(recipe.to_yaml())


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def status(path: Path | str) -> list[dict[str, Any]]:
    """One row per stage of a run directory: name, status, seconds, reason, artifacts so far.

    Raises:
        InputError: not a run directory.
    """
    workspace = Workspace(path)
    if not (workspace.root / "manifest.json").exists():
        msg = f"{path}: not a run directory (no manifest.json in it)"
        raise InputError(msg)
    stages = workspace.manifest()["stages"]
    rows = []
    keys = ("status", "seconds", "peak_memory_mb", "problems", "reason")
    for name in sorted(stages, key=lambda name: (STAGES.index(family(name)), name)):
        rows.append({"stage": name, **{key: stages[name].get(key) for key in keys}})
    return rows
