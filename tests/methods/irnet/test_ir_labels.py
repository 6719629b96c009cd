"""IR labels: the rule of three cases, with CRFs whose answer is known."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from tagmask import functional
from tagmask.errors import DataError
from tagmask.methods.irnet.labels import ir_labels


def identity(labels, *, n_labels):
    return np.eye(n_labels, dtype=np.float32)[labels].transpose(2, 0, 1)


MAPS = np.array([[[0.9, 0.2, 0.01, 0.2]], [[0.1, 0.1, 0.02, 0.31]]], np.float32)


def test_without_a_crf():
    assert ir_labels(MAPS, [7, 20], identity).tolist() == [[7, 255, 0, 20]]
    assert ir_labels(torch.tensor(MAPS), torch.tensor([7, 20]), identity).dtype == np.uint8
    assert ir_labels(MAPS, [7, 20], identity, foreground=0.95, background=0.15).tolist() == [[255, 255, 0, 255]]
    assert ir_labels(MAPS, [7, 20], identity, foreground=0.15, background=0.15).tolist() == [[7, 7, 0, 20]]


def test_the_crf_sees_both_local_label_maps_and_has_the_last_word():
    seen = []

    def crf(labels, *, n_labels):
        seen.append((labels.tolist(), n_labels))
        answer = [[0, 1, 2, 0]] if len(seen) == 1 else [[0, 1, 0, 2]]
        return torch.tensor(identity(np.array(answer), n_labels=n_labels))

    # The third pixel is foreground at the high threshold and background at the low one: foreground wins.
    assert ir_labels(MAPS, [7, 20], crf).tolist() == [[0, 7, 20, 255]]
    assert seen == [([[1, 0, 0, 2]], 3), ([[1, 1, 0, 2]], 3)]


def test_equal_label_maps_need_one_crf():
    calls = []

    def crf(labels, *, n_labels):
        calls.append(labels)
        return identity(labels, n_labels=n_labels)

    assert ir_labels(np.array([[[1.0, 0.0]]], np.float32), [3], crf).tolist() == [[3, 0]]
    assert len(calls) == 1


def test_no_maps():
    def crf(labels, *, n_labels):
        raise AssertionError

    assert ir_labels(np.zeros((0, 3, 5), np.float32), [], crf).tolist() == [[0] * 5] * 3


def test_bad_input():
    with pytest.raises(ValueError, match=r"0\.1, is below that of the background, 0\.2"):
        ir_labels(MAPS, [7, 20], identity, foreground=0.1, background=0.2)
    with pytest.raises(DataError, match="not finite"):
        ir_labels(np.full((1, 2, 2), np.nan, np.float32), [1], identity)
    with pytest.raises(DataError, match="do not fit"):
        ir_labels(MAPS, [7], identity)
    with pytest.raises(DataError, match=r"1\.\.254"):
        ir_labels(MAPS, [7, 255], identity)
    with pytest.raises(DataError, match=r"the CRF gave \[2, 1, 4\] for 3 labels of \[1, 4\]"):
        ir_labels(MAPS, [7, 20], lambda labels, *, n_labels: np.zeros((2, *labels.shape), np.float32))


def test_with_the_dense_crf():
    image = np.zeros((16, 24, 3), np.uint8)
    image[:, 12:] = 200
    maps = np.zeros((1, 16, 24), np.float32)
    maps[:, :, 12:] = 0.8
    maps[0, 5, 18] = 0.2  # a hole in the object, filled by the CRF
    crf = partial(functional.dense_crf_labels, image, bilateral_sxy=50, bilateral_srgb=5)
    wanted = np.zeros((16, 24), np.uint8)
    wanted[:, 12:] = 9
    np.testing.assert_array_equal(ir_labels(maps, [9], crf), wanted)
