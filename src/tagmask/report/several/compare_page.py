"""The page of a comparison: its tables, and the maps of all methods side by side for the same images."""

from __future__ import annotations

from collections.abc import Sequence

from tagmask.report.metrics_file import percent
from tagmask.report.pages import class_colours, environment, page_css
from tagmask.report.several.score_table import Members, ScoreTable
from tagmask.report.several.side_by_side import SideBySide, build_side_by_side
from tagmask.types import DataSource


def compare_html(
    table: ScoreTable,
    groups: Sequence[Members] = (),
    source: DataSource | None = None,
    *,
    notes: Sequence[str] = (),
    images: int = 12,
) -> str:
    """A self-contained page.

    Args:
        table: of :func:`tagmask.report.several.groups.compare_runs`.
        groups: the groups behind it; the pictures are those of each group's first run on the source's data.
        source: where images and real masks come from; None leaves the pictures out.
        notes: what else to say.
        images: how many images to show.
    """
    pictures, remarks = SideBySide(), list(notes)
    if source is not None:
        firsts = [
            (", ".join(labels), next((run for run in runs if run.data == source.fingerprint), None))
            for labels, runs in groups
        ]
        elsewhere = [name for name, run in firsts if run is None]
        if elsewhere:
            remarks.append(f"No pictures of runs on other data: {', '.join(elsewhere)}.")
        pictures = build_side_by_side([(name, run) for name, run in firsts if run is not None], source, images=images)
    return (
        environment()
        .get_template("compare.html.j2")
        .render(
            parts=table.parts(),
            label_count=len(table.label_names),
            scenes=pictures.scenes,
            names=() if source is None else source.classes.names,
            colours=class_colours(),
            percent=percent,
            notes=[*table.notes, *remarks, *dict.fromkeys(pictures.notes)],
            css=page_css(),
        )
    )
