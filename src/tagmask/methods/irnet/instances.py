"""Instance masks from IRNet's displacement field: centroids without classes, and one walk for each.

Source: Ahn, Cho, Kwak, CVPR 2019 (IRNet), section 5 and supplement; ``step/make_ins_seg_labels.py`` of
jiwoon-ahn/irn.

Deliberate deviations: fragments below the smallest area are left out (the published code keeps them with score 0);
pairs of class and centroid that cannot exceed the background are not stretched to the image, which changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tagmask.contracts.refiner import Instance, Instances
from tagmask.methods.irnet.model import FINE
from tagmask.ops.map_grids import MapGrids
from tagmask.types import BACKGROUND

MOST = 254  # ids of an 8-bit mask


def find_centroids(displacement: Tensor, *, iterations: int = 300) -> Tensor:
    """Where each pixel ends that follows the displacement field again and again, read bilinearly.

    Args:
        displacement: [2, h, w] float, (dy, dx) from each pixel to its object's centre.
        iterations: how often it moves.

    Returns:
        int64 [2, h, w]: row and column of the cell it ends in.
    """
    _, height, width = displacement.shape
    field = displacement.float()
    limits = torch.tensor([height - 1, width - 1], dtype=field.dtype, device=field.device).view(2, 1, 1)
    rows, columns = (torch.arange(n, dtype=field.dtype, device=field.device) for n in (height, width))
    place = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
    for _ in range(iterations):
        low = place.floor()
        share, start, stop = place - low, low.long(), place.ceil().long()
        shift = torch.zeros_like(place)
        for y, wy in ((stop[0], share[0]), (start[0], 1 - share[0])):
            for x, wx in ((stop[1], share[1]), (start[1], 1 - share[1])):
                shift += field[:, y, x] * (wy * wx)
        place = torch.minimum((place + shift).clamp(min=0), limits)
    return place.round().long()


def connected_components(values: NDArray[np.integer]) -> NDArray[np.int64]:
    """Numbers 1, 2, ... of the regions of equal values that hang together over edges; 0 stays 0.

    Args:
        values: int [h, w].

    Returns:
        int64 [h, w], numbered row by row by each region's first pixel.
    """
    grid = np.arange(values.size).reshape(values.shape)
    pairs = [
        (grid[:, 1:], grid[:, :-1], (values[:, 1:] == values[:, :-1]) & (values[:, 1:] != 0)),
        (grid[1:], grid[:-1], (values[1:] == values[:-1]) & (values[1:] != 0)),
    ]
    one, other = (np.concatenate([pair[k][pair[2]] for pair in pairs]) for k in (0, 1))
    # Every pixel takes the smallest index of its region: joined pairs are lowered together and paths shortened until
    # nothing changes, a few operations on the whole grid instead of a loop over pixels.
    root = grid.ravel().copy()
    while (apart := root[one] != root[other]).any():
        one, other = one[apart], other[apart]
        a, b = root[one], root[other]
        np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(root, further := root[root]):
            root = further
    there = values.ravel() != 0
    numbers = np.zeros(values.size, np.int64)
    numbers[there] = np.unique(root[there], return_inverse=True)[1] + 1
    return numbers.reshape(values.shape)


def cluster_centroids(centroids: Tensor, displacement: Tensor, *, threshold: float = 2.5) -> NDArray[np.int64]:
    """Which pixels belong together: their centroids lie in one region in which the field is weak.

    Args:
        centroids: int64 [2, h, w] of :func:`find_centroids`.
        displacement: [2, h, w] float.
        threshold: length below which the field is weak, in cells.

    Returns:
        int64 [h, w], clusters 0..N-1; all centroids outside weak regions are one cluster.
    """
    weak = (displacement.float().square().sum(dim=0).sqrt() < threshold).cpu().numpy()
    # Region 0 is where the field is strong: pixels that ended there never came to rest, and stay together.
    regions = connected_components(weak.astype(np.int64))
    y, x = centroids.cpu().numpy()
    return np.unique(regions[y, x], return_inverse=True)[1].reshape(regions.shape).astype(np.int64)


def split_maps(maps: Tensor, clusters: NDArray[np.int64]) -> Tensor:
    """Each map cut to each cluster: [K, h, w] and clusters 0..N-1 [h, w] -> [K * N, h, w], map by map."""
    numbers = torch.arange(int(clusters.max()) + 1, device=maps.device).view(-1, 1, 1)
    member = torch.from_numpy(clusters).to(maps.device) == numbers
    return (maps[:, None] * member).flatten(0, 1)


def instance_masks(
    walked: Tensor, labels: Sequence[int], size: tuple[int, int], *, background: float = 0.25, min_area: float = 0.01
) -> Instances:
    """Objects from the refined map of every pair of class and cluster.

    A pixel belongs to the pair with the highest map if that exceeds the background; a pair's pixels that do not hang
    together are objects of their own.

    Args:
        walked: [K * N, h, w] float >= 0, the pairs after the walk, in the order of :func:`split_maps`.
        labels: the K mask labels.
        size: (H, W) of the image.
        background: threshold after division by the maximum of all pairs.
        min_area: smaller objects are left out, as a share of the image.

    Returns:
        at most 254 objects, the ones with the highest scores.
    """
    peak = float(walked.max()) if walked.numel() else 0.0
    best = torch.full(size, background)
    owner = torch.zeros(size, dtype=torch.int64)
    for number in range(len(walked) if peak > 0 else 0):
        # Stretched one by one, only the best kept: all pairs at the image's size would be gigabytes.
        if float(walked[number].max()) > background * peak:
            plane = MapGrids.of_cells(walked[number][None] / peak, size, FINE).at(size)[0].cpu()
            higher = plane > best
            best, owner = torch.where(higher, plane, best), torch.where(higher, number + 1, owner)
    clusters = len(walked) // max(len(labels), 1)
    regions, pairs, scores = connected_components(owner.numpy()), owner.numpy(), best.numpy()
    instances = []
    for region in range(1, int(regions.max()) + 1):
        rows, columns = np.nonzero(regions == region)
        if len(rows) >= min_area * size[0] * size[1]:
            # Map k of cluster n is plane k * clusters + n, and owner counts from 1.
            label = labels[(int(pairs[rows[0], columns[0]]) - 1) // clusters]
            box = int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1
            instances.append(Instance(region, label, float(scores[rows, columns].max()), len(rows), box))
    instances = sorted(instances, key=lambda instance: -instance.score)[:MOST]
    ids = np.full(size, BACKGROUND, np.uint8)
    for number, instance in enumerate(instances, start=1):
        ids[regions == instance.id] = number
    renumbered = tuple(
        Instance(number, one.label, one.score, one.area, one.box) for number, one in enumerate(instances, start=1)
    )
    return Instances(ids, renumbered)
