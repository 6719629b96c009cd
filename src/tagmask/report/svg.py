"""Charts as inline SVG. Pure: numbers in, an SVG string out. Colours are CSS variables of the page.

All charts share one drawing width, so that text has the same size everywhere; hovering shows the numbers
through ``<title>``, which needs no script.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate, pairwise

WIDTH, HEIGHT = 360, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 10, 16, 38
_HOVER_COLUMNS = 60
_SMALL_MATRIX = 32


@dataclass(frozen=True, slots=True)
class Series:
    """One line: its name, points (x ascending, same length), CSS colour; ``faint`` draws it thin and pale.

    ``spread`` draws a bar of this half-length around each point (0 for none).
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str
    faint: bool = False
    dashed: bool = False
    spread: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Marker:
    """A point of interest: a dot at (x, y), or a vertical line with a label when ``y`` is None."""

    x: float
    label: str
    colour: str
    y: float | None = None


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) inside [low, high], about ``count`` of them."""
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [low]
    raw = span / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def thin(x: Sequence[float], y: Sequence[float], limit: int = 240) -> tuple[list[float], list[float]]:
    """At most ``limit`` points: means over equal runs of neighbours (the whole curve stays in sight)."""
    if len(x) <= limit:
        return list(x), list(y)
    edges = [round(index * len(x) / limit) for index in range(limit + 1)]
    runs = [slice(a, b) for a, b in pairwise(edges)]
    return [_mean(x[run]) for run in runs], [_mean(y[run]) for run in runs]


def smooth(y: Sequence[float], share: float = 0.08) -> list[float]:
    """Centred moving mean over ``share`` of the curve; no lag, so a falling loss is not drawn too high."""
    reach = int(len(y) * share / 2)
    sums = [0.0, *accumulate(y)]
    out = []
    for index in range(len(y)):
        near = min(reach, index, len(y) - 1 - index)
        out.append((sums[index + near + 1] - sums[index - near]) / (2 * near + 1))
    return out


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _short(value: float) -> str:
    """A tick label: 1500 -> 1.5k, 0.1 -> 0.1, 5 -> 5."""
    if abs(value) >= 1_000_000:
        return f"{value / 1_000_000:g}M"
    if abs(value) >= 1000:
        return f"{value / 1000:g}k"
    return f"{value:.4g}"


@dataclass(frozen=True, slots=True)
class _Frame:
    """The plotting rectangle and the two scales."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    height: int = HEIGHT

    def x(self, value: float) -> float:
        low, high = self.x_range
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * (value - low) / (high - low)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.height - _BOTTOM - (self.height - _BOTTOM - _TOP) * (value - low) / (high - low)


def _widen(low: float, high: float) -> tuple[float, float]:
    """A range that can be divided by: a flat one gets half a unit on both sides."""
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _open(label: str, width: int, height: int) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}" '
        f'preserveAspectRatio="xMidYMid meet">'
    )


def _y_axis(frame: _Frame, label: str) -> list[str]:
    parts = []
    for tick in nice_ticks(*frame.y_range, 4):
        y = frame.y(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{_short(tick)}</text>')
    parts.append(f'<text class="axis" x="{_LEFT}" y="9">{escape(label)}</text>')
    return parts


def _x_axis(frame: _Frame, label: str, ticks: Sequence[tuple[float, str]] = ()) -> list[str]:
    base = frame.height - _BOTTOM
    parts = [f'<line class="base" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{base}" y2="{base}"/>']
    for tick, text in ticks or [(tick, _short(tick)) for tick in nice_ticks(*frame.x_range, 6)]:
        x = frame.x(tick)
        parts.append(f'<text x="{x:.1f}" y="{base + 14}" text-anchor="middle">{escape(text)}</text>')
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(f'<text class="axis" x="{middle}" y="{frame.height - 5}" text-anchor="middle">{escape(label)}</text>')
    return parts


def _polyline(frame: _Frame, series: Series) -> str:
    points = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in zip(series.x, series.y, strict=True))
    style = f"stroke:{series.colour}"
    kind = "line faint" if series.faint else "line"
    dash = ' stroke-dasharray="5 4"' if series.dashed else ""
    if len(series.x) == 1:
        x, y = points.split(",")
        return f'<circle cx="{x}" cy="{y}" r="3.5" style="fill:{series.colour}"/>'
    return f'<polyline class="{kind}" points="{points}" style="{style}"{dash}/>'


def _error_bars(frame: _Frame, series: Series) -> list[str]:
    return [
        f'<line x1="{frame.x(x):.1f}" x2="{frame.x(x):.1f}" y1="{frame.y(y - half):.1f}" y2="{frame.y(y + half):.1f}" '
        f'style="stroke:{series.colour};stroke-width:1.5"/>'
        for x, y, half in zip(series.x, series.y, series.spread, strict=False)
        if half > 0
    ]


def _marker(frame: _Frame, marker: Marker) -> str:
    x = frame.x(marker.x)
    title = f"<title>{escape(marker.label)}</title>"
    if marker.y is not None:
        style = f"fill:{marker.colour}"
        return f'<circle class="dot" cx="{x:.1f}" cy="{frame.y(marker.y):.1f}" r="4.5" style="{style}">{title}</circle>'
    near_right = x > WIDTH * 0.7
    anchor, shift = ("end", -4) if near_right else ("start", 4)
    base = frame.height - _BOTTOM
    return (
        f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{base}" style="stroke:{marker.colour}">'
        f"{title}</line>"
        f'<text class="mark" x="{x + shift:.1f}" y="{base - 6}" text-anchor="{anchor}">{escape(marker.label)}</text>'
    )


def _hover(frame: _Frame, series: Sequence[Series], x_label: str, digits: int) -> list[str]:
    """Invisible columns that tell the values under the pointer."""
    hover_lines = [line for line in series if not line.faint and line.x]
    if not hover_lines:
        return []
    low, high = frame.x_range
    width = (high - low) / _HOVER_COLUMNS
    parts = []
    for column in range(_HOVER_COLUMNS):
        centre = low + (column + 0.5) * width
        lines = [f"{x_label} {centre:.4g}"]
        for line in hover_lines:
            nearest = min(range(len(line.x)), key=lambda index: abs(line.x[index] - centre))
            lines.append(f"{line.name}: {line.y[nearest]:.{digits}f}")
        x0 = frame.x(low + column * width)
        parts.append(
            f'<rect class="hover" x="{x0:.1f}" y="{_TOP}" width="{frame.x(low + (column + 1) * width) - x0:.1f}" '
            f'height="{frame.height - _TOP - _BOTTOM}"><title>{escape(chr(10).join(lines))}</title></rect>'
        )
    return parts


def line_chart(
    series: Sequence[Series],
    *,
    label: str,
    x_label: str,
    y_label: str,
    markers: Sequence[Marker] = (),
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    x_ticks: Sequence[tuple[float, str]] = (),
    digits: int = 1,
    hover: bool = True,
) -> str:
    """Lines over one x axis, with optional markers.

    Args:
        series: lines; empty ones are left out.
        label: what a screen reader says.
        x_label: name of the x axis, ``y_label`` of the y axis.
        markers: dots and labelled vertical lines.
        x_range: fixed range, default the data's; ``y_range`` too (then padded by 5 %).
        x_ticks: places and texts of the x axis, default round numbers.
        digits: decimals in the hover text.
        hover: whether columns under the pointer tell the values (markers tell their own in any case).

    Returns:
        SVG markup, '' when there is no point to draw.
    """
    lines = [line for line in series if len(line.x)]
    if not lines:
        return ""
    xs = [x for line in lines for x in line.x]
    ys = [y for line in lines for y in line.y] + [m.y for m in markers if m.y is not None]
    ys += [y + sign * half for line in lines for y, half in zip(line.y, line.spread, strict=False) for sign in (-1, 1)]
    if y_range is None:
        low, high = _widen(min(ys), max(ys))
        y_range = (max(low - 0.05 * (high - low), 0.0) if low >= 0 else low, high + 0.05 * (high - low))
    frame = _Frame(x_range or _widen(min(xs), max(xs)), _widen(*y_range))
    parts = [_open(label, WIDTH, HEIGHT), *_y_axis(frame, y_label), *_x_axis(frame, x_label, x_ticks)]
    parts += [bar for line in lines for bar in _error_bars(frame, line)]
    parts += [_polyline(frame, line) for line in sorted(lines, key=lambda line: not line.faint)]
    parts += _hover(frame, lines, x_label, digits) if hover else []
    parts += [_marker(frame, marker) for marker in markers]
    return "".join([*parts, "</svg>"])


def grouped_bars(
    groups: Sequence[str],
    series: Sequence[tuple[str, str, Sequence[float | None]]],
    *,
    label: str,
    x_label: str,
    y_label: str,
) -> str:
    """Vertical bars from 0 to 100, side by side per group.

    Args:
        groups: names under the x axis.
        series: (name, CSS colour, one value in percent or None per group).
        label: what a screen reader says.
        x_label: name of the x axis, ``y_label`` of the y axis.

    Returns:
        SVG markup, '' when there is nothing to draw.
    """
    if not groups or not any(value is not None for _, _, values in series for value in values):
        return ""
    frame = _Frame((0.0, float(len(groups))), (0.0, 100.0))
    base = HEIGHT - _BOTTOM
    parts = [_open(label, WIDTH, HEIGHT), *_y_axis(frame, y_label)]
    parts.append(f'<line class="base" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{base}" y2="{base}"/>')
    slot = (frame.x(1) - frame.x(0)) * 0.76
    bar = min(slot / len(series), 30.0)
    for place, group in enumerate(groups):
        middle = frame.x(place + 0.5)
        parts.append(f'<text x="{middle:.1f}" y="{base + 14}" text-anchor="middle">{escape(group)}</text>')
        for index, (name, colour, values) in enumerate(series):
            value = values[place]
            if value is None:
                continue
            x = middle + (index - len(series) / 2) * bar
            y = frame.y(value)
            title = escape(f"{name}, {group}: {value:.1f}")
            parts.append(
                f'<rect class="bar" x="{x + 1:.1f}" y="{y:.1f}" width="{bar - 2:.1f}" height="{base - y:.1f}" '
                f'rx="2" style="fill:{colour}"><title>{title}</title></rect>'
                f'<text class="value" x="{x + bar / 2:.1f}" y="{y - 3:.1f}" text-anchor="middle">{value:.0f}</text>'
            )
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(f'<text class="axis" x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">{escape(x_label)}</text>')
    return "".join([*parts, "</svg>"])


def heat_matrix(values: Sequence[Sequence[float | None]], names: Sequence[str], *, label: str) -> str:
    """A square of shares: row = true class, column = predicted class, each row in [0, 1].

    Diagonal cells and mistakes have two colours; darker is more. Names stand beside rows and columns; the picture of
    more than 32 classes is larger. Hovering names both classes.

    Args:
        values: [n][n] shares; a row of None belongs to a class that does not occur.
        names: n class names.
        label: what a screen reader says.

    Returns:
        SVG markup, '' for an empty matrix.
    """
    n = len(names)
    if n == 0 or len(values) != n:
        return ""
    # Up to 32 classes fit a picture of one size; for more it grows, so that names stay legible.
    whole = 420.0 if n <= _SMALL_MATRIX else 78.0 + n * 10.5
    gutter = 78.0
    side = whole - gutter
    cell = side / n
    font = min(11.0, cell * 0.82)
    parts = [_open(label, round(whole), round(whole))]
    parts.append(f'<rect class="plate" x="{gutter:.1f}" y="{gutter:.1f}" width="{side:.1f}" height="{side:.1f}"/>')
    for row in range(n):
        centre = gutter + (row + 0.5) * cell
        text = f'style="font-size:{font:.1f}px">{escape(_clip(names[row], int(gutter / (font * 0.53))))}</text>'
        parts.append(f'<text x="{gutter - 5:.1f}" y="{centre + font * 0.35:.1f}" text-anchor="end" {text}')
        parts.append(f'<text transform="translate({centre + font * 0.35:.1f} {gutter - 5:.1f}) rotate(-90)" {text}')
        for column in range(n):
            value = values[row][column]
            if value is None or value < 0.005:
                continue
            title = escape(f"true {names[row]}, predicted {names[column]}: {100 * value:.1f} %")
            kind = "hit" if row == column else "miss"
            parts.append(
                f'<rect class="{kind}" x="{gutter + column * cell:.2f}" y="{gutter + row * cell:.2f}" '
                f'width="{cell:.2f}" height="{cell:.2f}" fill-opacity="{0.08 + 0.92 * min(value, 1.0):.2f}">'
                f"<title>{title}</title></rect>"
            )
    return "".join([*parts, "</svg>"])


def _clip(text: str, length: int) -> str:
    """The text, or its beginning and an ellipsis."""
    return text if len(text) <= length else text[: max(length - 1, 1)] + "…"
