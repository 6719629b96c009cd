"""What makes labels looks at the maps at full size, not at the strided ones: here the two say opposite things."""

from __future__ import annotations

import numpy as np
import torch

from tagmask.contracts.labeller import LabelRequest
from tagmask.contracts.refiner import RefineRequest
from tagmask.methods.affinitynet.refiner import AffinityNet
from tagmask.methods.dense_crf.refiner import DenseCrf
from tagmask.methods.irnet.refiner import IRNet
from tagmask.methods.threshold.refiner import Threshold
from tagmask.ops.map_grids import MapGrids

SIZE = (40, 60)
CLASSES = torch.tensor([3])


def left_at_full_size() -> tuple[torch.Tensor, MapGrids]:
    """Strided maps with the object on the right, grids with it on the left."""
    strided = torch.zeros(1, 10, 15)
    strided[..., 8:] = 0.9
    grid = torch.zeros(1, 3, 4)
    grid[..., :2] = 0.45
    return strided, MapGrids((grid, grid), (48, 64), SIZE)


def halves() -> np.ndarray:  # type: ignore[type-arg]
    image = np.full((*SIZE, 3), 40, np.uint8)
    image[:, 30:] = 200
    return image


def test_the_threshold_labels_full_size_maps() -> None:
    strided, grids = left_at_full_size()
    mask = Threshold(value=0.3).labels(LabelRequest(strided, CLASSES, SIZE, 0.3, grids=grids))
    assert (mask[:, :20] == 3).all()
    assert (mask[:, 50:] == 0).all()
    stretched = Threshold(value=0.3).labels(LabelRequest(strided, CLASSES, SIZE, 0.3))
    assert (stretched[:, :20] == 0).all()
    assert (stretched[:, 50:] == 3).all()


def test_refiners_learn_from_full_size_maps() -> None:
    strided, grids = left_at_full_size()
    request = RefineRequest(halves(), strided, CLASSES, grids=grids)
    labels = IRNet().targets(request)
    assert (labels[:, :20] == 3).all()
    assert (labels[:, 50:] == 0).all()
    planes = AffinityNet().targets(request)  # background and class of the low alpha, then of the high one
    assert (planes[1, :, :20] > planes[0, :, :20]).all()
    assert (planes[2, :, 50:] > planes[3, :, 50:]).all()


def test_dense_crf_starts_from_full_size_maps() -> None:
    strided, grids = left_at_full_size()
    refined = DenseCrf().refine(RefineRequest(halves(), strided, CLASSES, grids=grids))[0]
    assert refined.shape == strided.shape[1:]
    assert float(refined[:, :5].min()) > float(refined[:, 12:].max())


def test_refined_maps_are_full_size_maps_themselves() -> None:
    """Whoever changes the strided maps changes what they are at full size."""
    strided, _ = left_at_full_size()
    assert torch.equal(RefineRequest(halves(), strided, CLASSES).full(SIZE), MapGrids.stretched(strided, SIZE).at(SIZE))
