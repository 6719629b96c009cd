"""Object localisation on the page and in tables: what metrics.json holds under ``localization``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tagmask.report.metrics_file import ERRORS, dig, localization_of, mapping, number, percent
from tagmask.report.run.charts import Chart
from tagmask.report.svg import Marker, Series, line_chart

COMPONENTS: Mapping[str, str] = {
    "union": "all above the threshold",
    "largest": "largest component",
    "contour": "largest outline",
}
_COLOURS = {"gt_known": "var(--maps)", "top1": "var(--seg)", "top5": "var(--pseudo)"}


@dataclass(frozen=True, slots=True)
class Objects:
    """The section of a page: its split, lines of scores, a table of errors by kind of box, and curves."""

    split: str
    lines: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, str, tuple[str, ...]], ...]  # kind of box, threshold, errors
    charts: tuple[Chart, ...]


def objects(metrics: Any) -> Objects | None:
    """The section, None where nothing was localised."""
    split, localization = localization_of(metrics)
    if not split:
        return None
    v2 = mapping(localization.get("max_box_acc_v2"))
    deltas = ", ".join(f"{percent(number(v2.get(key)))} at IoU {key}" for key in v2 if key != "mean")
    lines = [
        ("images with one class and a box of it", f"{number(localization.get('n_images')) or 0:.0f}"),
        ("MaxBoxAcc", percent(number(localization.get("max_box_acc")))),
        ("MaxBoxAccV2", f"{percent(number(v2.get('mean')))} ({deltas})"),
    ]
    classes = mapping(localization.get("classification"))
    if classes:
        both = " / ".join(percent(number(classes.get(key))) for key in ("top1", "top5"))
        lines.append(("classification error, Top-1 / Top-5", both))
    if number(localization.get("pxap")) is not None:
        lines.append(("PxAP", percent(number(localization.get("pxap")))))
    overlap = mapping(localization.get("iou_curve"))
    if overlap:
        at = number(overlap.get("threshold")) or 0.0
        lines.append(("peak IoU of the maps", f"{percent(number(overlap.get('peak')))} at {at:.2f}"))
    rows = tuple(
        (name, f"{number(dig(part, 'threshold')) or 0:.2f}", tuple(percent(number(dig(part, key))) for key in ERRORS))
        for kind, name in COMPONENTS.items()
        if (part := mapping(dig(localization, "by_component", kind)))
    )
    charts = [chart for chart in (_errors_chart(localization), _overlap_chart(overlap)) if chart is not None]
    return Objects(split, tuple(lines), rows, tuple(charts))


def _points(curve: Any, name: str) -> tuple[list[float], list[float]]:
    pairs = zip(mapping(curve).get("thresholds") or (), mapping(curve).get(name) or (), strict=False)
    known = [(number(x), number(y)) for x, y in pairs]
    both = [(x, 100 * y) for x, y in known if x is not None and y is not None]
    return [x for x, _ in both], [y for _, y in both]


def _errors_chart(localization: Mapping[str, Any]) -> Chart | None:
    """Errors of the chosen kind of box over the threshold."""
    kind = str(localization.get("component"))
    curve = dig(localization, "by_component", kind, "curve")
    series, markers, legend = [], [], []
    at = number(localization.get("threshold")) or 0.0
    for name, title in ERRORS.items():
        x, y = _points(curve, name)
        if x:
            value = number(localization.get(name)) or 0.0
            series.append(Series(title, x, y, _COLOURS[name]))
            markers.append(Marker(at, f"{title} {percent(value)} at {at:.2f}", _COLOURS[name], 100 * value))
            legend.append((_COLOURS[name], f"{title}: {percent(value)}"))
    if not series:
        return None
    svg = line_chart(
        series,
        label="localisation error at each threshold",
        x_label="threshold of the map",
        y_label="error (%)",
        markers=markers,
        y_range=(0.0, 104.0),
    )
    return Chart(f"Errors of the box around {COMPONENTS.get(kind, kind)}", svg, tuple(legend))


def _overlap_chart(overlap: Mapping[str, Any]) -> Chart | None:
    """IoU between what is above the threshold and the object, over the threshold."""
    x, y = _points(overlap.get("curve"), "iou")
    if not x:
        return None
    at, peak = number(overlap.get("threshold")) or 0.0, 100 * (number(overlap.get("peak")) or 0.0)
    svg = line_chart(
        [Series("IoU", x, y, "var(--maps)")],
        label="IoU of the thresholded maps with the objects",
        x_label="threshold of the map",
        y_label="IoU (%)",
        markers=[Marker(at, f"peak {peak:.1f} at {at:.2f}", "var(--maps)", peak)],
        y_range=(0.0, max(y) * 1.12 + 1),
    )
    return Chart("IoU curve", svg, (("var(--maps)", f"peak {peak:.1f} at {at:.2f}"),))
