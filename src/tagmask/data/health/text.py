"""The health report in words: warnings that name the remedy, and a plain-text table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

from tagmask.data.tags import joined_hint
from tagmask.types import DataSource, Problem

if TYPE_CHECKING:
    from tagmask.data.health.report import HealthReport

FEW_IMAGES = 5
ALWAYS_TOGETHER = 0.9
SHOWN = 10


def warnings_of(report: HealthReport, source: DataSource) -> Iterator[str]:
    """What is likely to spoil a run, one sentence each."""
    yield from _rare_classes(report)
    if not report.images.get("val"):
        yield "there is no validation image: no validation scores. Set data.val_fraction or name a validation split."
    yield from _inseparable(report)
    yield from _suspicious_names(report.classes[1:])
    yield from _copies(report, source)
    yield from _near_copies(report, source)
    if report.unreadable:
        yield f"{len(report.unreadable)} of {sum(report.images.values())} images cannot be read: they will be skipped."
    if report.broken_masks:
        yield f"{len(report.broken_masks)} masks cannot be used: their images will not be scored."
    yield from report.mask_doubts
    if report.dark:
        yield (
            f"{len(report.dark)} images are all but black, such as {report.dark[0]}. If their values are of "
            "another range than the others', set data.value_range, or scale them."
        )
    if report.missing_masks and any(report.missing_masks.values()):
        parts = ", ".join(f"{n} of {report.images[split]} {split}" for split, n in report.missing_masks.items() if n)
        yield f"images without a mask ({parts}) will not be scored."


def _rare_classes(report: HealthReport) -> Iterator[str]:
    train = {name: counts.get("train", 0) for name, counts in report.class_counts.items()}
    none = [name for name, n in train.items() if n == 0]
    few = [f"{name} ({n})" for name, n in train.items() if 0 < n < FEW_IMAGES]
    unscored = [name for name, counts in report.class_counts.items() if not counts.get("val", 0)]
    if none:
        yield f"no train image, cannot be learnt: {', '.join(none)}. Add images, or leave them out of the classes."
    if few:
        yield f"fewer than {FEW_IMAGES} train images, expect poor masks: {', '.join(few)}. Add images."
    if unscored and report.images.get("val"):
        yield f"no val image, no score on val: {', '.join(unscored)}."


def _inseparable(report: HealthReport) -> Iterator[str]:
    """Tags alone cannot tell two classes apart that always come together."""
    names = report.classes[1:]
    for i, name in enumerate(names):
        own = report.co_occurrence[i][i]
        for j, other in enumerate(names):
            both = report.co_occurrence[i][j]
            if i == j or own < FEW_IMAGES or both < ALWAYS_TOGETHER * own:
                continue
            if j > i or report.co_occurrence[j][j] > both / ALWAYS_TOGETHER:
                yield (
                    f"'{name}' appears with '{other}' in {both} of its {own} images: tags cannot tell their pixels "
                    f"apart. Add images of '{name}' alone."
                )


def _suspicious_names(names: Sequence[str]) -> Iterator[str]:
    hint = joined_hint(names)
    if hint:
        yield f"{hint}."
    by_fold: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        by_fold[" ".join(name.casefold().replace("_", " ").replace("-", " ").split())].append(name)
    for same in by_fold.values():
        if len(same) > 1:
            yield f"classes {' and '.join(map(repr, same))} differ only in spelling: are they one class?"


def _copies(report: HealthReport, source: DataSource) -> Iterator[str]:
    where = {sample.id: (split, sample.tags) for split, rows in source.splits.items() for sample in rows}
    across = [ids for ids in report.duplicates if len({where[key][0] for key in ids}) > 1]
    contradicting = [ids for ids in report.duplicates if len({where[key][1] for key in ids}) > 1]
    if report.duplicates:
        yield f"{sum(len(ids) - 1 for ids in report.duplicates)} images are exact copies of others. Remove them."
    if across:
        yield f"the same picture is in several splits, e.g. {' = '.join(across[0][:3])}: validation is too kind."
    if contradicting:
        yield f"the same picture has different tags, e.g. {' = '.join(contradicting[0][:3])}. Merge its tags."


def _near_copies(report: HealthReport, source: DataSource) -> Iterator[str]:
    """Near duplicates that are in several splits, or have different tags."""
    where = {sample.id: (split, sample.tags) for split, rows in source.splits.items() for sample in rows}
    across = [ids for ids in report.near_duplicates if len({where[key][0] for key in ids}) > 1]
    contradicting = [ids for ids in report.near_duplicates if len({where[key][1] for key in ids}) > 1]
    if across:
        example = " ~ ".join(across[0][:3])
        yield (
            f"{len(across)} groups of near duplicates are in several splits, e.g. {example}: validation is too kind. "
            "data.near_duplicates=true keeps them together where the split is made here."
        )
    if contradicting:
        example = " ~ ".join(contradicting[0][:3])
        yield f"{len(contradicting)} groups of near duplicates have different tags, e.g. {example}. Look at them."


def health_lines(report: HealthReport) -> list[str]:
    """Plain text: sizes, a table of classes, pairs of classes, problems, warnings."""
    splits = list(report.images)
    total = ", ".join(f"{n} {split}" for split, n in report.images.items())
    lines = [f"format {report.format}: {total} images, {len(report.classes) - 1} classes"]
    if report.sizes is not None:
        height, width = report.sizes.height, report.sizes.width
        lines.append(
            f"sizes (min / median / max): width {width[0]} / {width[1]} / {width[2]}, "
            f"height {height[0]} / {height[1]} / {height[2]}, {report.sizes.distinct} different"
        )
    lines += [report.pixels] * bool(report.pixels)
    lines += ["", *_table(report, splits)]
    pairs = _pairs(report)
    if pairs:
        lines += ["", "tags that appear together", *(f"  {text}" for text in pairs)]
    for title, entries in (
        ("left out while loading", [problem for problem in report.problems if problem.left_out]),
        ("how it was read", [problem for problem in report.problems if not problem.left_out]),
        ("unreadable images", report.unreadable),
        ("unusable masks", report.broken_masks),
    ):
        if entries:
            lines += [
                "",
                f"{title}: {len(entries)}",
                *(f"  {_name(entry)}: {entry.reason}" for entry in entries[:SHOWN]),
            ]
            lines += [f"  ... and {len(entries) - SHOWN} more"] * (len(entries) > SHOWN)
    if report.duplicates:
        lines += ["", f"exact copies: {len(report.duplicates)} groups"]
        lines += [f"  {' = '.join(ids)}" for ids in report.duplicates[:SHOWN]]
    if report.near_duplicates:
        lines += ["", f"near duplicates: {len(report.near_duplicates)} groups"]
        lines += [f"  {' ~ '.join(ids[:SHOWN])}" for ids in report.near_duplicates[:SHOWN]]
    lines += ["", masks_line(report)]
    if report.warnings:
        lines += ["", "warnings", *(f"  {text}" for text in report.warnings)]
    return lines


def _name(problem: Problem) -> str:
    """The image, or the file where the whole of it is spoken of."""
    return problem.id or PurePath(problem.path).name


def masks_line(report: HealthReport) -> str:
    """One sentence on masks."""
    if report.missing_masks is None:
        return "masks: none. Everything runs; only the evaluation has no mIoU."
    have = ", ".join(
        f"{report.images[split] - n} of {report.images[split]} {split}" for split, n in report.missing_masks.items()
    )
    return f"masks: {have}"


def _table(report: HealthReport, splits: list[str]) -> list[str]:
    rows = [["class", *splits]]
    rows += [[name, *(str(counts[split]) for split in splits)] for name, counts in report.class_counts.items()]
    rows.append(["(no tag)", *(str(report.untagged[split]) for split in splits)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]


def _pairs(report: HealthReport) -> list[str]:
    names = report.classes[1:]
    pairs = sorted(
        ((report.co_occurrence[i][j], names[i], names[j]) for i in range(len(names)) for j in range(i)),
        key=lambda pair: (-pair[0], pair[1:]),
    )
    return [f"{second} + {first}: {n} images" for n, first, second in pairs[:SHOWN] if n]
