"""Connected components of a map at every threshold in one pass, by union-find over pixels sorted by value.

A map is given by its *levels*: the number of (ascending) thresholds at which a pixel is foreground, so that pixel p
is foreground at threshold i iff i < level(p). Going down the thresholds, components only grow and merge; what holds
for them at one threshold is brought up to date from the pixels that come in. Boxes are half-open: x0, y0, x1, y1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagmask.refine.compiling import compiled

Ints = NDArray[Any]

# E, SE, S, SW, W, NW, N, NE: clockwise on the screen, where y points down.
_DX = np.array([1, 1, 0, -1, -1, -1, 0, 1], np.int64)
_DY = np.array([0, 1, 1, 1, 0, -1, -1, -1], np.int64)


@compiled
def _find(parent: Ints, p: Any) -> Any:
    while parent[p] != p:
        parent[p] = parent[parent[p]]
        p = parent[p]
    return p


@compiled
def _join(parent: Ints, box: Ints, first: Ints, p: Any, q: Any) -> None:
    """Merge the components of two pixels; the root keeps the common box and the first pixel in reading order."""
    a, b = _find(parent, p), _find(parent, q)
    if a == b:
        return
    if first[b] < first[a]:
        a, b = b, a
    parent[b] = a
    box[a, 0], box[a, 1] = min(box[a, 0], box[b, 0]), min(box[a, 1], box[b, 1])
    box[a, 2], box[a, 3] = max(box[a, 2], box[b, 2]), max(box[a, 3], box[b, 3])


@compiled
def _enter(parent: Ints, box: Ints, first: Ints, p: Any, height: Any, width: Any, eight: Any) -> None:
    """Make a pixel foreground and join it to its foreground neighbours (parent < 0: background)."""
    y, x = p // width, p % width
    parent[p], first[p] = p, p
    box[p, 0], box[p, 1], box[p, 2], box[p, 3] = x, y, x + 1, y + 1
    for direction in range(8):
        if not eight and direction % 2 == 1:
            continue
        near_y, near_x = y + _DY[direction], x + _DX[direction]
        if 0 <= near_y < height and 0 <= near_x < width and parent[near_y * width + near_x] >= 0:
            _join(parent, box, first, p, near_y * width + near_x)


@compiled
def _by_level(flat: Ints, n: Any) -> Ints:
    """Pixels by falling level, in reading order where it is the same."""
    start = np.zeros(n + 2, np.int64)
    for level in flat:
        start[n - level + 1] += 1
    start = np.cumsum(start)
    order = np.empty(flat.size, np.int64)
    for p in range(flat.size):
        place = n - flat[p]
        order[start[place]] = p
        start[place] += 1
    return order


@compiled
def contour_area(levels: Ints, i: Any, y: Any, x: Any) -> Any:
    """Area of the polygon through the outermost pixels of one 8-connected component at threshold i.

    The border is followed as by Suzuki & Abe, "Topological structural analysis of digitized binary images by border
    following", CVGIP 1985 (OpenCV's findContours); (y, x) is the component's first pixel in reading order.
    """
    height, width = levels.shape
    last = -1  # clockwise from the west, the first neighbour: the border's last pixel
    for turn in range(8):
        direction = (4 + turn) % 8
        near_y, near_x = y + _DY[direction], x + _DX[direction]
        if 0 <= near_y < height and 0 <= near_x < width and levels[near_y, near_x] > i:
            last = direction
            break
    if last < 0:
        return 0.0
    end_y, end_x = y + _DY[last], x + _DX[last]
    here_y, here_x, back, twice = y, x, last, 0
    while True:
        next_y, next_x, ahead = here_y, here_x, back
        for turn in range(1, 9):
            ahead = (back - turn) % 8
            next_y, next_x = here_y + _DY[ahead], here_x + _DX[ahead]
            if 0 <= next_y < height and 0 <= next_x < width and levels[next_y, next_x] > i:
                break
        twice += here_x * next_y - next_x * here_y
        if next_y == y and next_x == x and here_y == end_y and here_x == end_x:
            return abs(twice) / 2
        here_y, here_x, back = next_y, next_x, (ahead + 4) % 8


@compiled
def largest_components(levels: Ints, n: Any, eight: Any, by_contour: Any) -> Ints:
    """Box of the largest component at each of n thresholds, int64 [n, 4]; zeros where there is none.

    Args:
        levels: int [H, W], 0..n.
        n: number of thresholds.
        eight: neighbours share an edge or a corner; False: an edge.
        by_contour: the largest by :func:`contour_area` (8-connected), not by its box. Among equals the one whose
            first pixel in reading order comes first.
    """
    height, width = levels.shape
    flat = levels.ravel()
    order = _by_level(flat, n)
    parent = np.full(flat.size, -1, np.int64)
    first, seen = np.zeros(flat.size, np.int64), np.full(flat.size, -1, np.int64)
    box, found = np.zeros((flat.size, 4), np.int64), np.zeros((n, 4), np.int64)
    best, size, done = -1, -1.0, 0
    for i in range(n - 1, -1, -1):
        begun = done
        while done < flat.size and flat[order[done]] > i:
            _enter(parent, box, first, order[done], height, width, eight)
            done += 1
        for place in range(begun, done):
            root = _find(parent, order[place])
            if seen[root] == i:
                continue
            seen[root] = i
            if by_contour:
                own = contour_area(levels, i, first[root] // width, first[root] % width)
            else:
                own = float((box[root, 2] - box[root, 0]) * (box[root, 3] - box[root, 1]))
            # Components grow, so the one that was largest is still there, or part of one that is seen here.
            if own > size or (own == size and first[root] <= first[best]):
                best, size = root, own
        if best >= 0:
            found[i] = box[_find(parent, best)]
    return found


@compiled
def all_components(levels: Ints, n: Any, eight: Any) -> tuple[Ints, Ints]:
    """Boxes of all components at each of n thresholds.

    Returns:
        int64 [M, 4] boxes by falling threshold, and int64 [n]: how many belong to each threshold.
    """
    height, width = levels.shape
    flat = levels.ravel()
    order = _by_level(flat, n)
    parent = np.full(flat.size, -1, np.int64)
    first, seen = np.zeros(flat.size, np.int64), np.full(flat.size, -1, np.int64)
    box, boxes = np.zeros((flat.size, 4), np.int64), np.zeros((64, 4), np.int64)
    counts, roots = np.zeros(n, np.int64), np.zeros(flat.size, np.int64)
    alive, done, total = 0, 0, 0
    for i in range(n - 1, -1, -1):
        while done < flat.size and flat[order[done]] > i:
            _enter(parent, box, first, order[done], height, width, eight)
            roots[alive] = order[done]
            alive += 1
            done += 1
        kept = 0
        for place in range(alive):
            root = _find(parent, roots[place])
            if seen[root] != i:
                seen[root] = i
                roots[kept] = root
                kept += 1
        alive = kept
        counts[i] = alive
        while total + alive > len(boxes):
            more = np.zeros((2 * len(boxes), 4), np.int64)
            more[:total] = boxes[:total]
            boxes = more
        for place in range(alive):
            boxes[total + place] = box[roots[place]]
        total += alive
    return boxes[:total], counts
