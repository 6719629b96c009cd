"""Connected components of a map at every threshold in one pass, by union-find over pixels sorted by value.

A map is given by its *levels*: the number of (ascending) thresholds at which a pixel is foreground, so that pixel p
is foreground at threshold i iff i < level(p). Going down the thresholds, components only grow and merge; what holds
for them at one threshold is brought up to date from the pixels that come in. Boxes are half-open: x0, y0, x1, y1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagmask.ops.compiling import compiled

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
def _enter(parent: Ints, box: Ints, p: Any, width: Any, steps: Ints) -> None:
    """Make a pixel foreground and merge its foreground neighbours' components (parent < 0: background).

    A component's root is its first pixel in reading order; its box stands in the root's row.
    """
    root = p
    parent[p] = p
    x0, y0 = p % width, p // width
    x1, y1 = x0 + 1, y0 + 1
    for step in steps:
        if parent[p + step] < 0:
            continue
        other = _find(parent, p + step)
        if other == root:
            continue
        x0, y0 = min(x0, box[other, 0]), min(y0, box[other, 1])
        x1, y1 = max(x1, box[other, 2]), max(y1, box[other, 3])
        # The smaller index is the root: which pixel that is does not depend on the order of merging.
        if other < root:
            parent[root] = other
            root = other
        else:
            parent[other] = root
    box[root, 0], box[root, 1], box[root, 2], box[root, 3] = x0, y0, x1, y1


@compiled
def _framed(levels: Ints) -> Ints:
    """Levels with a frame of 0, one pixel wide, so that every pixel has its neighbours."""
    framed = np.zeros((levels.shape[0] + 2, levels.shape[1] + 2), np.int32)
    framed[1:-1, 1:-1] = levels
    return framed


@compiled
def _steps(width: Any, eight: Any) -> Ints:
    """Where the neighbours of a pixel are, as distances in a flat image."""
    steps: Ints = _DY * width + _DX
    return steps if eight else steps[::2].copy()


@compiled
def _by_level(flat: Ints, n: Any) -> Ints:
    """Foreground pixels by falling level, in reading order where it is the same."""
    # Sorting by counting: levels are few, pixels many, and equal levels keep the reading order.
    start = np.zeros(n + 2, np.int64)
    for level in flat:
        start[n - level + 1] += 1
    start = np.cumsum(start)
    order = np.empty(start[n], np.int32)
    for p in range(flat.size):
        place = n - flat[p]
        if place < n:
            order[start[place]] = p
            start[place] += 1
    return order


@compiled
def _contour_area(levels: Ints, i: Any, y: Any, x: Any) -> Any:
    """Area of the polygon through the outermost pixels of one 8-connected component at threshold i.

    The border is followed as by Suzuki & Abe, "Topological structural analysis of digitized binary images by border
    following", CVGIP 1985 (OpenCV's findContours); (y, x) is the component's first pixel in reading order. The levels
    have a frame of 0.
    """
    last = -1  # clockwise from the west, the first neighbour: the border's last pixel
    for turn in range(8):
        direction = (4 + turn) % 8
        near_y, near_x = y + _DY[direction], x + _DX[direction]
        if levels[near_y, near_x] > i:
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
            if levels[next_y, next_x] > i:
                break
        # The shoelace formula: twice the area inside the outline.
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
        by_contour: the largest by the area inside its outline (8-connected), not by its box. Among equals the one
            whose first pixel in reading order comes first.
    """
    framed = _framed(levels)
    width, flat = framed.shape[1], framed.ravel()
    order, steps = _by_level(flat, n), _steps(framed.shape[1], eight)
    parent, seen = np.full(flat.size, -1, np.int32), np.full(flat.size, -1, np.int32)
    box, largest = np.empty((flat.size, 4), np.int32), np.zeros((n, 4), np.int64)
    best, size, done = -1, -1.0, 0
    for i in range(n - 1, -1, -1):
        begun = done
        while done < order.size and flat[order[done]] > i:
            _enter(parent, box, order[done], width, steps)
            done += 1
        for place in range(begun, done):
            root = _find(parent, order[place])
            if seen[root] == i:
                continue
            seen[root] = i
            if by_contour:
                own = _contour_area(framed, i, root // width, root % width)
            else:
                own = float((box[root, 2] - box[root, 0]) * (box[root, 3] - box[root, 1]))
            # Components grow, so the one that was largest is still there, or part of one that is seen here.
            if own > size or (own == size and root <= best):
                best, size = root, own
        if best >= 0:
            largest[i] = box[_find(parent, best)] - 1  # of the frame
    return largest


@compiled
def all_components(levels: Ints, n: Any, eight: Any) -> tuple[Ints, Ints]:
    """Boxes of all components at each of n thresholds.

    Returns:
        int64 [M, 4] boxes by falling threshold, and int64 [n]: how many belong to each threshold.
    """
    framed = _framed(levels)
    width, flat = framed.shape[1], framed.ravel()
    order, steps = _by_level(flat, n), _steps(framed.shape[1], eight)
    parent, seen = np.full(flat.size, -1, np.int32), np.full(flat.size, -1, np.int32)
    box, boxes = np.empty((flat.size, 4), np.int32), np.zeros((64, 4), np.int64)
    counts, roots = np.zeros(n, np.int64), np.zeros(flat.size, np.int32)
    alive, done, total = 0, 0, 0
    for i in range(n - 1, -1, -1):
        while done < order.size and flat[order[done]] > i:
            _enter(parent, box, order[done], width, steps)
            roots[alive] = order[done]
            alive += 1
            done += 1
        count = 0
        for place in range(alive):
            root = _find(parent, roots[place])
            if seen[root] != i:
                seen[root] = i
                roots[count] = root
                count += 1
        alive = count
        counts[i] = alive
        while total + alive > len(boxes):
            more = np.zeros((2 * len(boxes), 4), np.int64)
            more[:total] = boxes[:total]
            boxes = more
        for place in range(alive):
            boxes[total + place] = box[roots[place]] - 1  # of the frame
        total += alive
    return boxes[:total], counts
