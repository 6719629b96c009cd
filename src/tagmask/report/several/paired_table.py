"""A paired comparison as rows, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import dataclass, field
from typing import Any

from tagmask.metrics.paired import Interval, PairedDifference
from tagmask.metrics.segmentation import json_number
from tagmask.report.metrics_file import ABSENT, percent

CLASS_HEADER = ("class", "first", "second", "difference", "interval")
IMAGE_HEADER = ("image", "first", "second", "difference")
_EXTREMES = 10


@dataclass(frozen=True)
class PairedTable:
    """Two predictions of the same images: ``names`` of both, ``what`` was compared in words, ``notes``."""

    names: tuple[str, str]
    what: str
    classes: tuple[str, ...]
    comparison: PairedDifference
    notes: tuple[str, ...] = field(default=())

    def sentence(self) -> str:
        """The result in a line."""
        comparison, difference = self.comparison, self.comparison.difference
        level = f"{100 * comparison.level:g} %"
        if math.isnan(difference.value):
            return "There is nothing to compare: no class occurs in the images."
        verdict = "outside of chance" if difference.excludes_zero else "within chance"
        return (
            f"{percent(comparison.miou[0])} -> {percent(comparison.miou[1])} mIoU, {signed(difference.value)} "
            f"{span(difference)} ({level} of {comparison.draws} draws of the {len(comparison.ids)} images): {verdict}."
        )

    def counts(self) -> str:
        """How many images gained and lost."""
        differences = self.comparison.image_differences
        better, worse = int((differences > 0).sum()), int((differences < 0).sum())
        rest = len(differences) - better - worse
        return f"Image by image the second is better on {better}, worse on {worse}, equal on {rest}."

    def class_rows(self) -> list[tuple[str, ...]]:
        """IoU of each class, difference and interval, in percent; the mean last."""
        comparison = self.comparison
        rows = [
            (name, _percent(comparison.iou[0, place]), _percent(comparison.iou[1, place]), signed(own.value), span(own))
            for place, (name, own) in enumerate(zip(self.classes, comparison.by_class, strict=True))
        ]
        mean = (signed(comparison.difference.value), span(comparison.difference))
        return [*rows, ("mean", _percent(comparison.miou[0]), _percent(comparison.miou[1]), *mean)]

    def image_rows(self, places: Any) -> list[tuple[str, ...]]:
        """Mean IoU of these images and their differences, in percent."""
        images, comparison = self.comparison.images, self.comparison
        differences = comparison.image_differences
        return [
            (comparison.ids[i], _percent(images[i, 0]), _percent(images[i, 1]), signed(differences[i])) for i in places
        ]

    def extremes(self, count: int = _EXTREMES) -> tuple[list[int], list[int]]:
        """Places of the images that lost most and gained most; none that did not change."""
        order, differences = self.comparison.order(), self.comparison.image_differences
        losses = [int(place) for place in order[:count] if differences[place] < 0]
        gains = [int(place) for place in order[::-1][:count] if differences[place] > 0]
        return losses, gains

    def to_markdown(self) -> str:
        """For a README or an issue; '|' in names is escaped."""
        losses, gains = self.extremes()
        blocks = [f"**{self.what}**: {self.names[0]} (first) and {self.names[1]} (second)", self.sentence()]
        blocks += [self.counts(), _markdown(CLASS_HEADER, self.class_rows())]
        for title, places in (("Largest losses", losses), ("Largest gains", gains)):
            if places:
                blocks += [f"**{title}**", _markdown(IMAGE_HEADER, self.image_rows(places))]
        return "\n\n".join([*blocks, *self.notes]) + "\n"

    def to_csv(self) -> str:
        """Every image, the largest loss first; scores as fractions, empty where all of it is void."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(IMAGE_HEADER)
        order = self.comparison.order()
        rest = [place for place in range(len(self.comparison.ids)) if place not in set(order.tolist())]
        for place in [*order, *rest]:
            values = (*self.comparison.images[place], self.comparison.image_differences[place])
            writer.writerow([self.comparison.ids[place], *("" if math.isnan(v) else f"{v:.6f}" for v in values)])
        return stream.getvalue()

    def to_json(self) -> str:
        """All of it; absent values are null."""
        comparison, images, iou = self.comparison, self.comparison.images, self.comparison.iou
        by_image = [
            {"id": comparison.ids[i], **_pair(*images[i]), "difference": json_number(comparison.image_differences[i])}
            for i in comparison.order()
        ]
        by_class = {
            name: {**_pair(*iou[:, i]), **_interval(comparison.by_class[i])} for i, name in enumerate(self.classes)
        }
        value = {
            "first": self.names[0],
            "second": self.names[1],
            "what": self.what,
            "miou": {**_pair(*comparison.miou), **_interval(comparison.difference)},
            "draws": comparison.draws,
            "level": comparison.level,
            "by_class": by_class,
            "images": by_image,
            "notes": list(self.notes),
        }
        return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def signed(value: float) -> str:
    """Points with their sign: 0.012 -> '+1.2', 'n/a' for NaN."""
    if math.isnan(value):
        return ABSENT
    text = f"{100 * value:+.1f}"
    return text if float(text) else "0.0"


def span(interval: Interval) -> str:
    """'[-0.3, +1.2]', 'n/a' if there is none."""
    return ABSENT if math.isnan(interval.low) else f"[{signed(interval.low)}, {signed(interval.high)}]"


def _percent(value: float) -> str:
    return percent(json_number(value))


def _pair(first: float, second: float) -> dict[str, float | None]:
    return {"first": json_number(first), "second": json_number(second)}


def _interval(interval: Interval) -> dict[str, float | None]:
    return {
        "difference": json_number(interval.value),
        "low": json_number(interval.low),
        "high": json_number(interval.high),
    }


def _markdown(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, ("---", *("---:" for _ in header[1:])), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
