"""Draw docs/pictures/house.svg, the packages of tagmask by floors, from their imports: python docs/pictures/house.py

A package stands one floor above the highest one that it imports. Arrows that a longer way implies are left out.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests" / "support"))

from imports import FLOORS, GROUND, ROOF, graph, inside, modules, room  # noqa: E402

PICTURE = HERE / "house.svg"
#: Where in its floor a room stands, in widths of a room; others come after the last one.
COLUMNS = {
    "cli": 2.5, "experiments": 1.7, "pipeline": 1.7, "report": 0.9, "stages": 2.1, "predict": 3.4, "export": 4.6,
    "runs": 2.1, "engine": 1.3, "models": 3.6, "settings": 2.8, "data": 2.4, "methods": 3.6, "contracts": 3.0,
    "metrics": 1.1, "backbones": 3.1, "progress": 0.4, "registry": 1.6, "storage": 2.7, "ops": 3.7,
}  # fmt: skip
WIDTH, HEIGHT, STEP, COLUMN, MARGIN = 96, 34, 62, 124, 14
BOX, LINE, TEXT, PALE = "#f3efe4", "#8a7f63", "#222222", "#6b6b6b"


@cache
def arrows() -> Counter[tuple[str, str]]:
    """How many modules of one room import how many of another; loose files are no rooms."""
    loose = {*ROOF, *GROUND}
    pairs = ((room(module), room(target)) for module, targets in graph().items() for target in inside(targets))
    return Counter(pair for pair in pairs if pair[0] != pair[1] and not loose & {*pair})


@cache
def below(name: str) -> frozenset[str]:
    """All rooms that a room leads to, on any way."""
    return frozenset(inner for first, last in arrows() if first == name for inner in (last, *below(last)))


@cache
def level(name: str) -> int:
    """Floor of a room: 0 imports no other."""
    return 1 + max((level(last) for first, last in arrows() if first == name), default=-1)


def drawn() -> dict[tuple[str, str], int]:
    """The arrows that no longer way implies."""
    near = defaultdict(set)
    for first, last in arrows():
        near[first].add(last)
    return {
        (first, last): number
        for (first, last), number in sorted(arrows().items())
        if not any(last in below(other) for other in near[first] - {last})
    }


def places() -> dict[str, tuple[float, float]]:
    """Centre of every room."""
    top = max(map(level, FLOORS))
    found: dict[str, tuple[float, float]] = {}
    for name in FLOORS:
        column = COLUMNS.get(name)
        if column is None:
            column = 1 + max((x for other, (x, _) in found.items() if level(other) == level(name)), default=0.0)
        found[name] = (column, 1 + top - level(name))
    return {name: (MARGIN + COLUMN * x, MARGIN + STEP * y + HEIGHT / 2) for name, (x, y) in found.items()}


def draw() -> str:
    """The picture as SVG."""
    where, files = places(), Counter(room(module) for module in modules())
    right = MARGIN + max(x for x, _ in where.values()) + WIDTH / 2
    bottom = MARGIN + max(y for _, y in where.values()) + STEP
    ends = f"{len(drawn())} of {len(arrows())} arrows; the others follow from these"
    parts = [strip("tagmask   functional", MARGIN, right), strip("   ".join(GROUND), bottom - HEIGHT / 2, right)]
    parts += [arrow(where[first], where[last], number) for (first, last), number in drawn().items()]
    parts += [box(name, *where[name], files[name]) for name in FLOORS]
    parts.append(text(right - 2, MARGIN + STEP - 4, ends, 11, PALE, "end"))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {right + MARGIN:.0f} {bottom + HEIGHT:.0f}" '
    head += f'width="{right + MARGIN:.0f}" font-family="sans-serif">\n<rect width="100%" height="100%" fill="white"/>\n'
    marker = f'<path d="M0,0 L8,4 L0,8 z" fill="{LINE}"/>'
    head += (
        f'<marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">{marker}'
    )
    return head + "</marker>\n" + "\n".join(parts) + "\n</svg>\n"


def strip(label: str, top: float, right: float) -> str:
    """The roof or the ground: loose files, over the whole width."""
    shape = f'<rect x="{MARGIN}" y="{top:.0f}" width="{right - MARGIN:.0f}" height="{HEIGHT - 8}" fill="#e4ddc9"/>'
    return shape + text((MARGIN + right) / 2, top + 18, label, 13, TEXT, "middle")


def box(name: str, x: float, y: float, files: int) -> str:
    """A room: its name and how many files are in it."""
    left, top = x - WIDTH / 2, y - HEIGHT / 2
    shape = (
        f'<rect x="{left:.0f}" y="{top:.0f}" width="{WIDTH}" height="{HEIGHT}" rx="4" fill="{BOX}" stroke="{LINE}"/>'
    )
    return shape + text(x, y - 1, name, 13, TEXT, "middle") + text(x, y + 12, f"{files} files", 10, PALE, "middle")


def arrow(start: tuple[float, float], end: tuple[float, float], number: int) -> str:
    """From the lower edge of a room to the upper one of another, with how many imports there are."""
    (x, y), (to_x, to_y) = (start[0], start[1] + HEIGHT / 2), (end[0], end[1] - HEIGHT / 2)
    slope = (to_x - x) / (to_y - y)
    shift = max(-WIDTH / 2 + 12, min(WIDTH / 2 - 12, slope * 12))  # where several leave, they leave apart
    x, to_x = x + shift, to_x - shift
    share = min(0.5, 15 / (to_y - y))  # the number stands near the start
    line = f'<line x1="{x:.0f}" y1="{y:.0f}" x2="{to_x:.0f}" y2="{to_y:.0f}" stroke="{LINE}" marker-end="url(#tip)"/>'
    return line + text(x + share * (to_x - x) + 4, y + share * (to_y - y) + 4, str(number), 10, PALE, "start")


def text(x: float, y: float, label: str, size: int, colour: str, anchor: str) -> str:
    """A line of text."""
    return f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" fill="{colour}" text-anchor="{anchor}">{label}</text>'


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
