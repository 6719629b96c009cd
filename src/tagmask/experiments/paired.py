"""Two runs, or folders of scored masks, on the same images: paired comparison of what the evaluate stage counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

from tagmask.errors import DataError, InputError, UnknownNameError
from tagmask.experiments.compare import open_source
from tagmask.experiments.rescore import PREDICTIONS
from tagmask.metrics.counting import VOID_RULES, Void
from tagmask.metrics.image_counts import ImageCounts
from tagmask.metrics.paired import paired_bootstrap
from tagmask.metrics.segmentation import Average
from tagmask.report.metrics_file import MEASURES, RULES, dig
from tagmask.report.run.headline import FURTHEST
from tagmask.report.several.paired_page import PairedSide, paired_html
from tagmask.report.several.paired_table import PairedTable
from tagmask.report.several.run_scores import read_run
from tagmask.runs.image_counts import SplitCounts, read_split_counts
from tagmask.runs.workspace import Workspace
from tagmask.storage.files import atomic_write
from tagmask.storage.records import read_json

_RULE_OF: dict[Void, str] = {void: rule for rule, void in VOID_RULES}


@dataclass(frozen=True)
class Pair:
    """A paired comparison: its scores, and where the two came from."""

    table: PairedTable
    sides: tuple[PairedSide, PairedSide] = field(repr=False)
    split: str = "val"

    def to_html(self) -> str:
        """A self-contained page: scores, every image's difference, the images that changed most."""
        source, note = open_source([side.root for side in self.sides])
        return paired_html(self.table, self.sides, source, self.split, notes=[note] if note else [])


def pair(
    first: Path | str,
    second: Path | str,
    *,
    split: str = "val",
    measures: Sequence[str] = (),
    void: Void = "ignored",
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Pair:
    """Compare two runs on the images that both have scored.

    Args:
        first: a run that was evaluated, or the ``--output`` of ``tagmask evaluate --predictions``.
        second: another one, or the same with other ``measures``.
        split: which split.
        measures: what to compare: one name for both, or one for each (``segmentation``, ``pseudo_masks``,
            ``refined_maps``, ``maps``, ``segmentation_full``, ``predictions``); default the last of the pipeline that
            both have.
        void: ``ignored`` or ``background``.
        draws: how many bootstrap samples of the images.
        level: of the percentile interval.
        seed: of the draws.

    Raises:
        InputError: not evaluated, no such split or measure, other classes, or no image in common.
        RunError: a file is broken.
    """
    roots = Path(first), Path(second)
    split_counts = _read(roots[0], split), _read(roots[1], split)
    if split_counts[0].classes != split_counts[1].classes:
        msg = f"{roots[0]} and {roots[1]} have other classes, so they cannot be compared image by image"
        raise InputError(msg)
    pair_measures = _measures(roots, split_counts, measures)
    counts = [part.measures[measure] for part, measure in zip(split_counts, pair_measures, strict=True)]
    try:
        difference = paired_bootstrap(
            *counts, void=void, average=_average(roots[0], split, pair_measures[0]), draws=draws, level=level, seed=seed
        )
    except DataError as error:
        msg = f"{roots[0]} and {roots[1]}: {error}"
        raise InputError(msg) from error
    names = _names(roots, pair_measures)
    titles = [_title(measure) for measure in dict.fromkeys(pair_measures)]
    what = f"{' and '.join(titles)} on {split}, {len(difference.ids)} images, {RULES[_RULE_OF[void]]}"
    table = PairedTable(
        names,
        what,
        split_counts[0].classes,
        difference,
        tuple(_notes(names, split_counts, counts, len(difference.ids))),
    )
    first_side, second_side = (
        PairedSide(name, root, measure, _threshold(root, split, measure))
        for name, root, measure in zip(names, roots, pair_measures, strict=True)
    )
    return Pair(table, (first_side, second_side), split)


def write_pair(result: Pair, kind: Literal["md", "csv", "json", "html"], path: Path) -> None:
    """Write the comparison: Markdown, CSV (every image), JSON, or the page."""
    table = result.table
    make = {"md": table.to_markdown, "csv": table.to_csv, "json": table.to_json, "html": result.to_html}[kind]
    with atomic_write(path, "w") as stream:
        stream.write(make())


def _read(root: Path, split: str) -> SplitCounts:
    path = Workspace(root).image_counts_path(split)
    if path.is_file():
        return read_split_counts(path)
    splits = sorted(file.name.removesuffix("-images.npz") for file in path.parent.glob("*-images.npz"))
    if splits:
        raise UnknownNameError("split", split, splits, str(root))
    msg = f"{root}: holds no counts of single images. Run `tagmask evaluate {root}` first."
    raise InputError(msg)


def _measures(
    roots: tuple[Path, Path], split_counts: tuple[SplitCounts, SplitCounts], names: Sequence[str]
) -> list[str]:
    """One measure for each."""
    if len(names) > 2:
        msg = f"--measure {','.join(names)}: name one measure for both, or one for each"
        raise InputError(msg)
    if names:
        selection = [names[0], names[-1]]
        for root, part, measure in zip(roots, split_counts, selection, strict=True):
            if measure not in part.measures:
                raise UnknownNameError("measure", measure, list(part.measures), str(root))
        return selection
    order = (*FURTHEST, PREDICTIONS)
    # Where the two have nothing in common (masks of another tool, say), each is taken at its own last measure.
    both = [measure for measure in order if all(measure in part.measures for part in split_counts)]
    return both[:1] * 2 or [
        next((m for m in order if m in part.measures), next(iter(part.measures))) for part in split_counts
    ]


def _average(root: Path, split: str, measure: str) -> Average:
    """The average that the first one's scores were made with."""
    path = root / "metrics.json"
    average = dig(read_json(path), "splits", split, measure, "void_ignored", "average") if path.is_file() else None
    return cast(Average, average) if average in ("occurring", "union") else "occurring"


def _threshold(root: Path, split: str, measure: str) -> float | None:
    path = root / "metrics.json"
    value = dig(read_json(path), "splits", split, measure, "void_ignored", "threshold") if path.is_file() else None
    return float(value) if isinstance(value, int | float) else None


def _names(roots: tuple[Path, Path], measures: Sequence[str]) -> tuple[str, str]:
    """What to call them: the runs' names, or the folders', or what was compared, whichever differs first."""
    runs = [
        read_run(root, need_scores=False).name if (root / "manifest.json").is_file() else root.resolve().name
        for root in roots
    ]
    folders = [root.resolve().name for root in roots]
    titles = [_title(measure) for measure in measures]
    for names in (runs, folders, titles, [str(root) for root in roots]):
        if names[0] != names[1]:
            return names[0], names[1]
    return runs[0], runs[1]


def _title(measure: str) -> str:
    return MEASURES.get(measure, measure.capitalize())


def _notes(
    names: tuple[str, str], split_counts: Sequence[SplitCounts], counts: Sequence[ImageCounts], n_common: int
) -> list[str]:
    notes = ["The interval holds the choice of images, not that of seeds; compare several seeds for that."]
    if split_counts[0].data != split_counts[1].data:
        notes.append("The two were scored on data that differs; images are matched by their names.")
    for name, images in zip(names, counts, strict=True):
        n_alone = int(images.scored.sum()) - n_common
        if n_alone:
            notes.append(f"{n_alone} images of {name} are not in the other one and were left out.")
    return notes
