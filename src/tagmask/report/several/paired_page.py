"""The page of a paired comparison: scores, every image's difference as a curve, the images that changed most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tagmask.report.metrics_file import percent
from tagmask.report.pages import class_colours, environment, page_css
from tagmask.report.run.charts import Chart
from tagmask.report.run.layers import READ_ERRORS, Layer, result_stage, threshold_maps, visible
from tagmask.report.several.paired_table import CLASS_HEADER, IMAGE_HEADER, PairedTable, signed
from tagmask.report.several.score_table import Part
from tagmask.report.svg import Marker, Series, line_chart
from tagmask.report.thumbnails import mask_uri, photo_uri
from tagmask.runs.stage_names import LOCALIZE, REFINE, SEGMENT_FULL
from tagmask.runs.workspace import Workspace
from tagmask.storage.pictures import load_mask
from tagmask.types import DataSource, Sample, UInt8Array

_SIDE = 240
_MOST_POINTS = 2000


@dataclass(frozen=True)
class PairedSide:
    """One of the two: its name, its folder, what of it is compared, the threshold if these are maps."""

    name: str
    root: Path
    measure: str
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One image: photograph, and the ground truth and both masks as layers with what stands below them."""

    id: str
    tags: tuple[int, ...]
    width: int
    height: int
    photo: str
    difference: str
    views: tuple[tuple[Layer | None, str], ...]


def difference_chart(table: PairedTable) -> Chart:
    """Every image's difference, in order: how many gained, how many lost, and how much."""
    comparison = table.comparison
    values = [100 * float(comparison.image_differences[place]) for place in comparison.order()]
    step = max(1, -(-len(values) // _MOST_POINTS))
    indices = range(0, len(values), step)
    markers = []
    for place, text in ((0, "largest loss"), (len(values) - 1, "largest gain")):
        if values:
            image = comparison.ids[comparison.order()[place]]
            markers.append(Marker(place + 1, f"{text}: {image}, {values[place]:+.1f}", "var(--seg)", values[place]))
    svg = line_chart(
        [
            Series("difference", [place + 1 for place in indices], [values[place] for place in indices], "var(--seg)"),
            Series("none", [1, max(len(values), 2)], [0, 0], "var(--ink-2)", faint=True, dashed=True),
        ],
        label="difference of the mean IoU of each image, sorted",
        x_label="images in order",
        y_label="points of mean IoU, second minus first",
        markers=markers,
    )
    return Chart("Every image's difference", svg, (("var(--seg)", table.counts()),))


def paired_html(
    table: PairedTable,
    sides: tuple[PairedSide, PairedSide],
    source: DataSource | None,
    split: str,
    *,
    notes: Sequence[str] = (),
    images: int = 8,
) -> str:
    """A self-contained page.

    Args:
        table: the comparison.
        sides: where the masks of both are.
        source: where images and real masks come from; None leaves the pictures out.
        split: whose images they are.
        notes: what else to say.
        images: how many losses and gains to show, of each.
    """
    remarks = list(notes)
    losses, gains = table.extremes(images)
    places_of = {"Largest losses": losses, "Largest gains": gains}
    samples = {sample.id: sample for sample in source.splits.get(split, ())} if source is not None else {}
    pictures = {
        title: [
            change
            for place in places
            if table.comparison.ids[place] in samples and source is not None
            for change in [_draw(table, sides, source, samples[table.comparison.ids[place]], place, remarks)]
            if change is not None
        ]
        for title, places in places_of.items()
    }
    parts = [Part("IoU of the classes", CLASS_HEADER, tuple(table.class_rows()))]
    parts += [
        Part(title, IMAGE_HEADER, tuple(table.image_rows(places))) for title, places in places_of.items() if places
    ]
    return (
        environment()
        .get_template("paired.html.j2")
        .render(
            table=table,
            chart=difference_chart(table),
            parts=parts,
            pictures=pictures,
            colours=class_colours(),
            notes=[*table.notes, *dict.fromkeys(remarks)],
            css=page_css(),
        )
    )


def _draw(
    table: PairedTable,
    sides: tuple[PairedSide, PairedSide],
    source: DataSource,
    sample: Sample,
    place: int,
    notes: list[str],
) -> Change | None:
    try:
        photo, width, height = photo_uri(sample.image_path, _SIDE, source.pixels)
        truth = source.read_mask(sample)
    except READ_ERRORS as error:
        notes.append(str(error))
        return None
    views: list[tuple[Layer | None, str]] = [
        (None, "photo"),
        (Layer("truth", "ground truth", mask_uri(truth, width, height), visible(truth)), "ground truth"),
    ]
    for index, side in enumerate(sides):
        try:
            mask = _mask_of(side, sample)
        except READ_ERRORS as error:
            notes.append(f"{side.name}: {error}")
            mask = None
        value = float(table.comparison.images[place, index])
        layer = None if mask is None else Layer("pseudo", side.name, mask_uri(mask, width, height), visible(mask))
        if layer is not None:
            views.append((layer, f"{side.name}: {percent(value)}"))
    difference = signed(float(table.comparison.image_differences[place]))
    return Change(sample.id, sample.tags, width, height, photo, difference, tuple(views))


def _mask_of(side: PairedSide, sample: Sample) -> UInt8Array | None:
    """The mask that was scored, None if it is not in the folder (the masks of other tools are not)."""
    space = Workspace(side.root)
    if side.measure in ("maps", "refined_maps"):
        stage = LOCALIZE if side.measure == "maps" else REFINE
        return threshold_maps(space, sample, side.threshold, stage)
    path = {
        "pseudo_masks": space.mask_path(sample.id),
        "segmentation": space.prediction_path(sample.id, result_stage(space)),
        "segmentation_full": space.prediction_path(sample.id, SEGMENT_FULL),
    }.get(side.measure)
    return load_mask(path) if path is not None and path.exists() else None
