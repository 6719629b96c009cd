"""A paired comparison as rows, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import dataclass, field
from typing import Any

from tagmask.metrics.paired import Interval, PairedDifference
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
    found: PairedDifference
    notes: tuple[str, ...] = field(default=())

    def sentence(self) -> str:
        """The result in a line."""
        found, difference = self.found, self.found.difference
        level = f"{100 * found.level:g} %"
        if math.isnan(difference.value):
            return "There is nothing to compare: no class occurs in the images."
        verdict = "outside of chance" if difference.excludes_zero else "within chance"
        return (
            f"{percent(found.miou[0])} -> {percent(found.miou[1])} mIoU, {signed(difference.value)} "
            f"{span(difference)} ({level} of {found.draws} draws of the {len(found.ids)} images): {verdict}."
        )

    def counts(self) -> str:
        """How many images gained and lost."""
        differences = self.found.image_differences
        better, worse = int((differences > 0).sum()), int((differences < 0).sum())
        rest = len(differences) - better - worse
        return f"Image by image the second is better on {better}, worse on {worse}, equal on {rest}."

    def class_rows(self) -> list[tuple[str, ...]]:
        """IoU of each class, difference and interval, in percent; the mean last."""
        found = self.found
        rows = [
            (name, _percent(found.iou[0, place]), _percent(found.iou[1, place]), signed(own.value), span(own))
            for place, (name, own) in enumerate(zip(self.classes, found.by_class, strict=True))
        ]
        mean = (signed(found.difference.value), span(found.difference))
        return [*rows, ("mean", _percent(found.miou[0]), _percent(found.miou[1]), *mean)]

    def image_rows(self, places: Any) -> list[tuple[str, ...]]:
        """Mean IoU of these images and their differences, in percent."""
        images, found = self.found.images, self.found
        differences = found.image_differences
        return [(found.ids[i], _percent(images[i, 0]), _percent(images[i, 1]), signed(differences[i])) for i in places]

    def extremes(self, count: int = _EXTREMES) -> tuple[list[int], list[int]]:
        """Places of the images that lost most and gained most; none that did not change."""
        order, differences = self.found.order(), self.found.image_differences
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
        order = self.found.order()
        rest = [place for place in range(len(self.found.ids)) if place not in set(order.tolist())]
        for place in [*order, *rest]:
            values = (*self.found.images[place], self.found.image_differences[place])
            writer.writerow([self.found.ids[place], *("" if math.isnan(v) else f"{v:.6f}" for v in values)])
        return stream.getvalue()

    def to_json(self) -> str:
        """All of it; absent values are null."""
        found = self.found
        images = [
            {"id": found.ids[i], "first": _json(found.images[i, 0]), "second": _json(found.images[i, 1]),
             "difference": _json(found.image_differences[i])}
            for i in found.order()
        ]  # fmt: skip
        by_class = {
            name: {"first": _json(found.iou[0, i]), "second": _json(found.iou[1, i]), **_interval(found.by_class[i])}
            for i, name in enumerate(self.classes)
        }
        value = {
            "first": self.names[0], "second": self.names[1], "what": self.what,
            "miou": {"first": _json(found.miou[0]), "second": _json(found.miou[1]), **_interval(found.difference)},
            "draws": found.draws, "level": found.level, "by_class": by_class, "images": images,
            "notes": list(self.notes),
        }  # fmt: skip
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
    return percent(_json(value))


def _json(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _interval(interval: Interval) -> dict[str, float | None]:
    return {"difference": _json(interval.value), "low": _json(interval.low), "high": _json(interval.high)}


def _markdown(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, ("---", *("---:" for _ in header[1:])), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
