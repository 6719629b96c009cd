"""Masks and maps of one image to a mask, through the dense CRF."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tagmask.functional import dense_crf_labels, upsample_maps
from tagmask.methods.dense_crf.masks import refine_maps, refine_mask
from tagmask.methods.dense_crf.refiner import DenseCrf

CRF = DenseCrf(preset="irn_labels")


@pytest.fixture
def image():
    picture = np.zeros((20, 30, 3), np.uint8)
    picture[:, 15:] = 200
    return picture


def test_labels_move_to_the_edge_and_keep_their_numbers(image):
    mask = np.full((20, 30), 7, np.uint8)
    mask[:, 13:] = 40  # two columns over the edge
    found = refine_mask(CRF, image, mask)
    assert found.dtype == np.uint8
    assert (found[:, :15] == 7).all()
    assert (found[:, 15:] == 40).all()
    q = dense_crf_labels(image, (mask == 40).astype(int), n_labels=2)
    assert np.array_equal(found == 40, q.argmax(0).numpy() == 1)


def test_the_unsure_take_what_their_surroundings_have(image):
    mask = np.full((20, 30), 255, np.uint8)
    mask[5:8, 2:9], mask[4:9, 20:25] = 3, 9
    found = refine_mask(CRF, image, mask)
    assert (found[:, :15] == 3).all()
    assert (found[:, 15:] == 9).all()


@pytest.mark.parametrize("label", [0, 5, 255])
def test_one_label_comes_back_as_it_is(image, label):
    mask = np.full((20, 30), label, np.uint8)
    assert np.array_equal(refine_mask(CRF, image, mask), mask)


def test_a_large_image_is_worked_on_at_a_bounded_size(image):
    large, mask = image.repeat(4, 0).repeat(4, 1), np.full((80, 120), 1, np.uint8)
    mask[:, 52:] = 2
    found = refine_mask(DenseCrf(preset="irn_labels", max_pixels=600), large, mask)
    assert found.shape == mask.shape
    assert (found[:, :56] == 1).all()
    assert (found[:, 62:] == 2).all()


def test_maps_against_their_background(image):
    maps = torch.zeros(3, 5, 8)
    maps[0, :, 4:], maps[2, 0, 0] = 0.9, 0.2
    found = refine_maps(DenseCrf(), image, maps, np.array([4, 6, 9]))
    q = DenseCrf().probabilities(image, maps)
    assert q.shape == (4, 20, 30)
    assert np.array_equal(found, np.array([0, 4, 6, 9])[q.argmax(0).numpy()])
    assert set(np.unique(found)) == {0, 4}
    assert not refine_maps(DenseCrf(), image, maps[:0], np.array([], int)).any()
    small = refine_maps(DenseCrf(max_pixels=256), image, maps, np.array([4, 6, 9]))
    reduced = DenseCrf(max_pixels=256).probabilities(image, maps)
    assert np.array_equal(small, np.array([0, 4, 6, 9])[upsample_maps(reduced, (20, 30)).argmax(0).numpy()])


def test_refusals(image):
    with pytest.raises(ValueError, match=r"mask must be uint8 \[20, 30\]"):
        refine_mask(CRF, image, np.zeros((20, 31), np.uint8))
    with pytest.raises(ValueError, match="2 maps need as many labels"):
        refine_maps(CRF, image, torch.zeros(2, 5, 8), np.array([1, 255]))
    with pytest.raises(ValueError, match="finite"):
        refine_maps(CRF, image, torch.full((1, 5, 8), torch.nan), np.array([1]))
    with pytest.raises(ValueError, match="do not fit"):
        refine_maps(CRF, image, torch.zeros(1, 8, 5), np.array([1]))
