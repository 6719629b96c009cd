"""IRNet's propagation against its published code, hand figures and the dense definition."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tagmask.functional import random_walk

# The package attribute of that name is the function.
module = importlib.import_module("tagmask.ops.random_walk")


def dense_transition(edge, radius=5, beta=10.0):
    """(affinity, T) as [N, N] from the definition, float64."""
    height, width = edge.shape
    weights = np.eye(height * width)
    affinity = module.path_affinity(torch.as_tensor(edge).double(), radius).numpy()
    for plane, (dy, dx) in zip(affinity, module.stencil_offsets(radius), strict=True):
        for y in range(height - dy):
            for x in range(max(0, -dx), width - max(0, dx)):
                i, j = y * width + x, (y + dy) * width + x + dx
                weights[i, j] = weights[j, i] = plane[y, x]
    powered = weights**beta
    return weights, powered / powered.sum(0)


def test_hand_figures():
    edge = torch.tensor([[0.1, 0.2, 0.0], [0.0, 0.9, 0.05]])
    maps = torch.tensor([[[1.0, 0, 0], [0, 0, 0]]])
    one = torch.tensor([[[0.575659, 0.079553, 0.053288], [0.232680, 0, 0]]])
    torch.testing.assert_close(random_walk(maps, edge, steps=1), one, rtol=0, atol=1e-6)
    far = torch.full((1, 2, 3), 0.186639)
    far[0, 1, 1] = 0
    torch.testing.assert_close(random_walk(maps, edge), far, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("maps", "edge", "expected", "settings"),
    [
        ("cam_in", "edge", "expected_random_walk", {}),
        ("cam_in", "edge", "expected_random_walk_b", {"beta": 4.0, "steps": 16}),
        ("small_cam_in", "small_edge", "small_expected_random_walk", {}),
    ],
)
def test_golden_of_irn(golden, maps, edge, expected, settings):
    stored = golden("irn_random_walk")
    walked = random_walk(torch.from_numpy(stored[maps]), torch.from_numpy(stored[edge])[0], **settings)
    reference = torch.from_numpy(stored[expected])
    torch.testing.assert_close(walked, reference, rtol=0, atol=3e-4 * float(reference.max()))


def test_golden_affinity_and_transition(golden):
    stored = golden("irn_random_walk")
    affinity, transition = dense_transition(stored["small_edge"][0])
    np.testing.assert_allclose(affinity, stored["small_expected_affinity"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(transition, stored["small_expected_transition_t0"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("height", "width", "radius", "steps"), [(7, 9, 5, 256), (7, 9, 5, 255), (3, 2, 5, 64), (1, 6, 3, 7)]
)
def test_equals_dense_powers(height, width, radius, steps):
    generator = torch.Generator().manual_seed(height)
    edge = torch.rand(height, width, generator=generator, dtype=torch.float64)
    maps = torch.rand(2, height, width, generator=generator, dtype=torch.float64)
    _, transition = dense_transition(edge.numpy(), radius)
    start = (maps * (1 - edge)).reshape(2, -1).numpy()
    expected = (start @ np.linalg.matrix_power(transition, steps)).reshape(maps.shape)
    walked = random_walk(maps, edge, radius=radius, steps=steps)
    np.testing.assert_allclose(walked.numpy(), expected, rtol=0, atol=1e-9)


def test_chebyshev_weights_are_those_of_the_power():
    for steps in (1, 2, 5, 64, 256, 1000):
        c = module.chebyshev_of_power(steps)
        assert sum(c) == pytest.approx(1, abs=2e-10)
        assert min(c) >= 0
        x = np.linspace(-1, 1, 41)
        np.testing.assert_allclose(np.polynomial.chebyshev.chebval(x, c), x**steps, rtol=0, atol=3e-10)
    assert len(module.chebyshev_of_power(256)) < 110


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 300), st.integers(2, 6))
def test_constants_stay_and_the_range_is_kept(seed, steps, radius):
    generator = torch.Generator().manual_seed(seed)
    edge, maps = torch.rand(8, 6, generator=generator), torch.rand(2, 8, 6, generator=generator)
    weights = module.path_affinity(edge, radius) ** 10
    maps[1] = 0.7
    walked = module.stencil_walk(maps, weights, radius=radius, steps=steps)
    torch.testing.assert_close(walked[1], maps[1])
    assert walked[0].min() >= maps[0].min()
    assert walked[0].max() <= maps[0].max()


def test_walls_hold_and_no_boundary_spreads_evenly():
    maps = torch.zeros(1, 6, 9)
    maps[0, 2, 1] = 1
    edge = torch.zeros(6, 9)
    even = random_walk(maps, edge, steps=4096)
    assert float(even.max()) / float(even.min()) < 1.01
    edge[:, 4] = 1
    walled = random_walk(maps, edge, steps=4096)
    assert walled[0, :, 5:].abs().max() == 0
    assert walled[0, :, :4].min() > 0


def test_maps_do_not_mix_and_inputs_are_kept():
    maps, edge = torch.rand(3, 5, 5), torch.rand(5, 5)
    before = maps.clone()
    walked = random_walk(maps, edge)
    torch.testing.assert_close(walked[1:2], random_walk(maps[1:2], edge))
    assert torch.equal(maps, before)
    assert random_walk(maps[:0], edge).shape == (0, 5, 5)
    assert torch.equal(random_walk(maps, edge * 0, steps=0), maps)


def test_refusals():
    with pytest.raises(ValueError, match="do not fit"):
        random_walk(torch.rand(1, 4, 4), torch.rand(4, 5))
    with pytest.raises(ValueError, match="radius"):
        random_walk(torch.rand(1, 4, 4), torch.rand(4, 4), radius=1)
    with pytest.raises(ValueError, match="steps"):
        random_walk(torch.rand(1, 4, 4), torch.rand(4, 4), steps=-1)


def test_images_of_one_size_go_in_a_batch():
    generator = torch.Generator().manual_seed(0)
    maps, edge = torch.rand(3, 2, 7, 9, generator=generator), torch.rand(3, 7, 9, generator=generator)
    for options in ({}, {"radius": 3, "steps": 7}, {"tolerance": 1e-3}, {"steps": 0}):
        walked = random_walk(maps, edge, **options)
        assert walked.shape == maps.shape
        for one, image, boundary in zip(walked, maps, edge, strict=True):
            assert torch.equal(one, random_walk(image, boundary, **options))
    assert random_walk(maps[:, :0], edge).shape == (3, 0, 7, 9)
    assert random_walk(maps[:0], edge[:0]).shape == (0, 2, 7, 9)


@pytest.mark.parametrize(("height", "width", "radius"), [(3, 4, 10), (1, 1, 5), (1, 3, 8), (2, 1, 20)])
def test_a_radius_beyond_the_grid_connects_all_pixels(height, width, radius):
    generator = torch.Generator().manual_seed(1)
    edge = 0.3 * torch.rand(height, width, generator=generator, dtype=torch.float64)
    maps = torch.rand(1, height, width, generator=generator, dtype=torch.float64)
    weights, transition = dense_transition(edge.numpy(), radius)
    assert (weights > 0).all()
    expected = (maps * (1 - edge)).reshape(1, -1).numpy() @ np.linalg.matrix_power(transition, 5)
    walked = random_walk(maps, edge, radius=radius, steps=5)
    np.testing.assert_allclose(walked.numpy(), expected.reshape(maps.shape), rtol=0, atol=1e-9)


@pytest.mark.parametrize("tolerance", [1e-1, 1e-2, 1e-3, 1e-6])
def test_stopping_early_stays_within_the_tolerance(tolerance):
    generator = torch.Generator().manual_seed(2)
    maps = torch.rand(4, 12, 15, generator=generator, dtype=torch.float64)
    weights = module.path_affinity(torch.rand(12, 15, generator=generator, dtype=torch.float64), 5) ** 10
    exact = module.stencil_walk(maps, weights, radius=5, steps=256)
    early = module.stencil_walk(maps, weights, radius=5, steps=256, tolerance=tolerance)
    degree = dense_degree(weights, 5)

    def norm(values):
        return (degree * values.square()).sum(dim=(1, 2)).sqrt()

    assert (norm(early - exact) <= tolerance * norm(maps)).all()
    assert not torch.equal(early, exact)
    assert len(module.chebyshev_of_power(256, tolerance)) < len(module.chebyshev_of_power(256))


def dense_degree(weights, radius):
    """Sum of each pixel's weights."""
    degree = torch.ones_like(weights[0])
    for plane, (dy, dx) in zip(weights, module.stencil_offsets(radius), strict=True):
        degree += plane
        degree[dy:, max(0, dx) : degree.shape[1] + min(0, dx)] += plane[
            : degree.shape[0] - dy, max(0, -dx) : degree.shape[1] - max(0, dx)
        ]
    return degree


@pytest.mark.parametrize(
    ("maps", "edge", "match"),
    [
        (torch.full((1, 4, 4), float("nan")), torch.rand(4, 4), "finite"),
        (torch.full((1, 4, 4), float("inf")), torch.rand(4, 4), "finite"),
        (torch.rand(1, 4, 4), torch.full((4, 4), float("nan")), "within 0..1"),
        (torch.rand(1, 4, 4), torch.full((4, 4), 1.5), "within 0..1"),
        (torch.rand(1, 0, 4), torch.rand(0, 4), "at least one cell"),
        (torch.rand(2, 1, 4, 4), torch.rand(4, 4), "do not fit"),
        (torch.rand(4, 4), torch.rand(4, 4), "do not fit"),
    ],
)
def test_what_is_no_map_is_refused(maps, edge, match):
    with pytest.raises(ValueError, match=match):
        random_walk(maps, edge)
    with pytest.raises(ValueError, match="tolerance"):
        random_walk(torch.rand(1, 4, 4), torch.rand(4, 4), tolerance=1.0)


@pytest.mark.gpu
def test_a_gpu_walks_the_same_way():
    maps, edge = torch.rand(2, 3, 20, 30), torch.rand(2, 20, 30)
    walked = random_walk(maps.cuda(), edge.cuda())
    assert walked.is_cuda
    torch.testing.assert_close(walked.cpu(), random_walk(maps, edge), rtol=0, atol=1e-6)
