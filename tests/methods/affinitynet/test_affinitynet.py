"""AffinityNet's maths against its published code, the dense definition and hand figures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from tagmask.functional import affinity_random_walk
from tagmask.methods.affinitynet import losses as affinitynet
from tagmask.ops.random_walk import stencil_offsets


def dense(planes, size):
    """[N, N] symmetric affinity with a diagonal of 1, pair by pair."""
    height, width = size
    matrix = np.eye(height * width)
    for plane, (dy, dx) in zip(planes.numpy(), stencil_offsets(5), strict=True):
        for y in range(height - dy):
            for x in range(max(0, -dx), width - max(0, dx)):
                i, j = y * width + x, (y + dy) * width + x + dx
                matrix[i, j] = matrix[j, i] = plane[y, x]
    return matrix


@pytest.fixture
def psa(golden):
    return {name: torch.from_numpy(np.asarray(value)) for name, value in golden("psa_random_walk").items()}


def test_golden_affinity_of_features(psa):
    affinity = affinitynet.feature_affinity(psa["expected_feature"])
    torch.testing.assert_close(affinity, psa["expected_pair_affinity"], rtol=0, atol=1e-6)
    size = tuple(psa["grid_size"].tolist())
    planes = affinitynet.affinity_planes(psa["expected_pair_affinity"][0], size)
    np.testing.assert_allclose(dense(planes, size), psa["expected_affinity_matrix"].numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("alpha", "logt"), [(16, 8), (16, 4), (4, 8)])
def test_golden_of_the_walk(psa, alpha, logt):
    ending = f"_alpha{alpha}_logt{logt}"
    start = affinitynet.walk_start(psa["cam"], alpha=alpha)
    torch.testing.assert_close(start, psa[f"expected_pooled_scores{ending}"], rtol=0, atol=1e-6)
    walked = affinity_random_walk(start, psa["expected_pair_affinity"][0], steps=2**logt)
    expected = psa[f"expected_random_walk{ending}"]
    torch.testing.assert_close(walked, expected, rtol=0, atol=5e-5 * float(expected.max()))
    height, width = psa["image_size"].tolist()
    full = functional.interpolate(walked[None], tuple(psa["padded_size"].tolist()), mode="bilinear")[0]
    names = torch.cat([torch.zeros(1, dtype=torch.int64), psa["cam_class_index"].long() + 1])
    labels = names[full.argmax(0)][:height, :width]
    assert float((labels != psa[f"expected_label_map{ending}"]).float().mean()) < 1e-3


def test_golden_sources_are_irns(golden):
    """Both codes crop the grid the same way; irn orders its pairs otherwise, so pairs are compared by offset."""
    stored = golden("irn_affinity_index")
    height, width = stored["r5_grid_size"].tolist()
    numbers = torch.arange(height * width, dtype=torch.float64)
    sources = stored["r5_src_indices"]
    planes = affinitynet.affinity_planes(numbers[sources].expand(34, -1), (height, width)).flatten(1)
    assert torch.equal(planes[:, sources], numbers[sources].expand(34, -1))
    assert int((planes > 0).sum(1).max()) == len(sources)
    offsets = stencil_offsets(5)
    for (dy, dx), targets in zip(stored["r5_search_dst_yx"].tolist(), stored["r5_dst_indices"], strict=True):
        assert (dy, dx) in offsets
        assert np.array_equal(targets, sources + dy * width + dx)


def test_walk_equals_dense_powers_and_keeps_constants():
    generator = torch.Generator().manual_seed(0)
    affinity = torch.rand(34, 3 * 2, generator=generator, dtype=torch.float64)
    maps = torch.rand(2, 7, 10, generator=generator, dtype=torch.float64)
    maps[1] = 0.3
    weights = dense(affinitynet.affinity_planes(affinity, (7, 10)), (7, 10)) ** 8
    transition = np.linalg.matrix_power(weights / weights.sum(0), 37)
    walked = affinity_random_walk(maps, affinity, steps=37)
    np.testing.assert_allclose(walked.flatten(1).numpy(), maps.flatten(1).numpy() @ transition, rtol=0, atol=1e-9)
    torch.testing.assert_close(walked[1], maps[1])


@pytest.mark.parametrize("size", [(4, 20), (20, 8), (1, 1), (3, 2)])
def test_a_grid_without_pairs_stays_as_it_is(size):
    maps = torch.rand(2, *size)
    torch.testing.assert_close(affinity_random_walk(maps, torch.zeros(34, 0)), maps, rtol=0, atol=1e-7)


def test_labels_of_two_crfs():
    # columns: sure class, unsure, sure background, low says 2 but high says background, outside the image
    low = torch.tensor([[0.1, 0.8, 0.9, 0.2, 0.0], [0.7, 0.1, 0.1, 0.1, 0.0], [0.2, 0.1, 0.0, 0.7, 1e-6]])[:, None]
    high = torch.tensor([[0.0, 0.2, 0.9, 0.8, 0.0], [0.9, 0.5, 0.1, 0.1, 0.0], [0.1, 0.3, 0.0, 0.1, 0.0]])[:, None]
    found = affinitynet.affinity_labels(low, high)
    assert found.tolist() == [[1, 255, 0, 0, 255]]
    assert affinitynet.affinity_labels(torch.stack([low, low]), torch.stack([high, high])).shape == (2, 1, 5)
    only_background = torch.ones(1, 2, 3)
    assert not affinitynet.affinity_labels(only_background, only_background).any()


def test_gradient_of_the_affinity():
    features = torch.rand(2, 3, 4, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: affinitynet.feature_affinity(x, radius=3), (features.requires_grad_(),), eps=1e-7, atol=1e-5
    )


def pairs_by_hand(labels, affinity, radius):
    """The three means, pair by pair."""
    sums = {"background": [], "foreground": [], "negative": []}
    _, height, width = labels.shape
    margin = radius - 1
    for b, image in enumerate(labels.tolist()):
        for p, (dy, dx) in enumerate(stencil_offsets(radius)):
            column = 0
            for y in range(height - margin):
                for x in range(margin, width - margin):
                    one, other, a = image[y][x], image[y + dy][x + dx], float(affinity[b, p, column])
                    column += 1
                    if 255 in (one, other):
                        continue
                    if one != other:
                        sums["negative"].append(-math.log(1 + 1e-5 - a))
                    else:
                        sums["foreground" if one else "background"].append(-math.log(a + 1e-5))
    return {name: sum(values) / (len(values) + 1e-5) for name, values in sums.items()}


def test_loss_pair_by_pair():
    generator = torch.Generator().manual_seed(2)
    labels = torch.tensor([0, 0, 1, 2, 255])[torch.randint(5, (2, 6, 9), generator=generator)]
    affinity = torch.rand(2, len(stencil_offsets(3)), 4 * 5, generator=generator, dtype=torch.float64)
    found = affinitynet.affinity_loss(affinity, labels, radius=3)
    expected = pairs_by_hand(labels, affinity, 3)
    for name, value in expected.items():
        assert value > 0
        assert float(found[name]) == pytest.approx(value, rel=1e-6), name
    total = expected["background"] / 4 + expected["foreground"] / 4 + expected["negative"] / 2
    assert float(found["loss"]) == pytest.approx(total, rel=1e-6)


def test_no_sure_pair_is_no_loss():
    features = torch.rand(1, 2, 5, 9, requires_grad=True)
    terms = affinitynet.affinity_loss(affinitynet.feature_affinity(features), torch.full((1, 5, 9), 255))
    terms["loss"].backward()
    assert float(terms["loss"].detach()) == 0
    assert not features.grad.any()


def test_start_without_maps_is_all_background():
    start = affinitynet.walk_start(torch.zeros(0, 12, 20))
    assert start.shape == (1, 2, 3)
    assert float(start[0, 0, 0]) == 1
    assert float(start[0, 1, 2]) == 0.25  # half of the rows and half of the columns are filled up


def test_refusals():
    maps, affinity = torch.rand(1, 6, 10), torch.rand(34, 4)
    with pytest.raises(ValueError, match=r"does not fit a grid of 6 x 10 and radius 5: wanted \[34, 4\]"):
        affinity_random_walk(maps, affinity[:, :3])
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        affinity_random_walk(maps, affinity * float("nan"))
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        affinity_random_walk(maps * float("inf"), affinity)
    with pytest.raises(ValueError, match="steps"):
        affinity_random_walk(maps, affinity, steps=-1)
    with pytest.raises(ValueError, match="at least 5 x 9"):
        affinitynet.feature_affinity(torch.rand(1, 2, 4, 9))
    with pytest.raises(ValueError, match="does not fit labels"):
        affinitynet.affinity_loss(torch.rand(1, 34, 3), torch.zeros(1, 6, 10, dtype=torch.int64))
    with pytest.raises(ValueError, match="of one shape"):
        affinitynet.affinity_labels(torch.rand(2, 3, 4), torch.rand(3, 3, 4))
    with pytest.raises(ValueError, match="finite"):
        affinitynet.affinity_labels(torch.full((2, 3, 4), float("nan")), torch.rand(2, 3, 4))
    with pytest.raises(ValueError, match="alpha"):
        affinitynet.walk_start(maps, alpha=0)
