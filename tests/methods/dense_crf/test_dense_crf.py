"""Dense CRF against its published code, the exact sums on a small image, and what follows from the formulas."""

from __future__ import annotations

import importlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from requests_of import refine_request
from tagmask.functional import dense_crf, dense_crf_labels, dense_crf_maps

# The package attribute of that name is the function.
module = importlib.import_module("tagmask.methods.dense_crf.refiner")


def picture(height=14, width=18, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def planes(labels=3, height=14, width=18, seed=0):
    return torch.rand(labels, height, width, generator=torch.Generator().manual_seed(seed)).softmax(0)


@pytest.mark.parametrize("name", ["psa", "psa_small", "deeplab", "irn_label"])
def test_golden_of_the_published_code(golden, name):
    stored = golden(f"densecrf_{name}")
    options = {key: float(stored[key]) for key in module.PRESETS["psa"]} | {"iterations": int(stored["iterations"])}
    if name == "irn_label":
        found = dense_crf_labels(stored["image"], stored["labels"], n_labels=4, confidence=0.7, **options)
        once = dense_crf_labels(stored["image"], stored["labels"], n_labels=4, **options | {"iterations": 1})
        np.testing.assert_allclose(once.numpy(), stored["expected_probability_t1"], rtol=0, atol=1e-4)
    else:
        found = dense_crf(stored["image"], torch.from_numpy(stored["probabilities"]), **options)
    np.testing.assert_allclose(found.numpy(), stored["expected_probability"], rtol=0, atol=1e-4)
    assert np.array_equal(found.numpy().argmax(0), stored["expected_labels"])


@pytest.mark.parametrize("name", ["psa", "psa_small", "deeplab"])
def test_golden_in_torch(golden, name):
    stored = golden(f"densecrf_{name}")
    options = {key: float(stored[key]) for key in module.PRESETS["psa"]} | {"iterations": int(stored["iterations"])}
    found = dense_crf(stored["image"], torch.from_numpy(stored["probabilities"]), backend="torch", **options)
    np.testing.assert_allclose(found.numpy(), stored["expected_probability"], rtol=0, atol=1e-4)
    assert np.array_equal(found.numpy().argmax(0), stored["expected_labels"])


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["psa", "psa_small", "deeplab", "irn_label"])
def test_golden_on_a_gpu(golden, name):
    stored = golden(f"densecrf_{name}")
    options = {key: float(stored[key]) for key in module.PRESETS["psa"]} | {"iterations": int(stored["iterations"])}
    if name == "irn_label":
        found = dense_crf_labels(stored["image"], torch.from_numpy(stored["labels"]).cuda(), n_labels=4, **options)
    else:
        found = dense_crf(stored["image"], torch.from_numpy(stored["probabilities"]).cuda(), **options)
    assert found.is_cuda
    np.testing.assert_allclose(found.cpu().numpy(), stored["expected_probability"], rtol=0, atol=1e-3)
    assert (found.cpu().numpy().argmax(0) == stored["expected_labels"]).mean() > 0.999


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.integers(1, 20), st.integers(2, 6))
def test_torch_is_the_compiled_result(seed, height, width, labels):
    image, p = picture(height, width, seed), planes(labels, height, width, seed)
    matrix = np.random.default_rng(seed).random((labels, labels))
    kernels = [module.Pairwise(3, 3), module.Pairwise(80, 10, 13), module.Pairwise(2, matrix)]
    one, other = (module.mean_field(image, -p.log(), kernels, backend=backend) for backend in ("compiled", "torch"))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("preset", "name"), [("psa", "psa"), ("deeplab", "deeplab"), ("irn_labels", "irn_label")])
def test_presets_are_those_of_the_published_code(golden, preset, name):
    stored = golden(f"densecrf_{name}")
    assert module.PRESETS[preset] == {key: float(stored[key]) for key in module.PRESETS[preset]}
    assert module.DenseCrf(preset=preset).bilateral_sxy == float(stored["bilateral_sxy"])
    assert module.DenseCrf(preset=preset, bilateral_sxy=7).bilateral_sxy == 7


def test_near_the_exact_sums_of_the_published_case(golden):
    stored = golden("densecrf_psa_small")
    image, p = stored["image"], torch.from_numpy(stored["probabilities"])
    kernels = [module.Pairwise(1.5, 3), module.Pairwise(40, 10, 13)]
    q = p.clamp(1e-5, 1).double()
    unary, q = -q.log(), q / q.sum(0)
    for _ in range(5):
        energy = -unary.flatten(1)
        for kernel in kernels:
            f = torch.from_numpy(kernel.features(image)).double()
            k = torch.exp(-torch.cdist(f, f).square() / 2)
            nu = k.sum(1).rsqrt()
            energy = energy + kernel.compat * ((q.flatten(1) * nu) @ k) * nu
        q = energy.softmax(0).view(q.shape)
    found = dense_crf(image, p, iterations=5, gaussian_sxy=1.5, bilateral_sxy=40)
    assert (found.argmax(0) == q.argmax(0)).float().mean() >= 0.97


def test_without_weights_or_iterations_it_is_the_softmax_of_the_unary_exactly():
    p = planes()
    expected = torch.softmax(p.clamp(1e-5, 1).log(), 0)
    assert torch.equal(dense_crf(picture(), p, gaussian_compat=0, bilateral_compat=0), expected)
    assert torch.equal(dense_crf(picture(), p, iterations=0), expected)
    assert torch.equal(module.mean_field(picture(), -p.log(), []), torch.softmax(p.log(), 0))


def test_labels_that_are_nowhere_are_left_out_and_could_not_have_won():
    image, p = picture(), planes(4)
    p[2], p[0] = 0, p[0] * 1e-6
    found = dense_crf(image, p)
    assert torch.equal(found[[1, 3]], dense_crf(image, p[[1, 3]]))
    assert not found[[0, 2]].any()
    whole = dense_crf(image, p, keep_absent=True)
    assert (whole[[0, 2]] <= whole[[1, 3]].amin(0)).all()
    torch.testing.assert_close(whole, found, rtol=0, atol=0.05)


def test_labels_that_no_pixel_has_are_left_out_and_could_not_have_won():
    image = picture()
    labels = torch.randint(0, 3, (14, 18), generator=torch.Generator().manual_seed(0)) * 2
    found, whole = (dense_crf_labels(image, labels, n_labels=5, keep_absent=keep) for keep in (False, True))
    assert not found[[1, 3]].any()
    assert (whole[[1, 3]] <= whole[[0, 2, 4]].amin(0)).all()
    torch.testing.assert_close(found.sum(0), torch.ones(14, 18))
    less = dense_crf_labels(image, labels, n_labels=5, confidence=0.1)
    assert (less[[1, 3]] > 0).all()  # likelier than the given ones
    none = dense_crf(image, torch.zeros(3, 14, 18))
    torch.testing.assert_close(none, torch.full((3, 14, 18), 1 / 3))


def test_from_maps_with_a_background_beside_them():
    image, maps = picture(), planes(3) * 1.2
    maps[1] = 0
    shown = maps[[0, 2]].clamp(0, 1)
    expected = dense_crf(image, torch.cat([(1 - shown.amax(0, keepdim=True)) ** 4, shown]))
    found = dense_crf_maps(image, maps)
    assert torch.equal(found[[0, 1, 3]], expected)
    assert not found[2].any()
    level = dense_crf_maps(image, maps, background="level", level=0.4, power=0.5, iterations=3)
    planes_ = torch.cat([torch.full((1, 14, 18), 0.4), shown**0.5])
    assert torch.equal(level[[0, 1, 3]], dense_crf(image, planes_, iterations=3))
    for without in (maps[:0], maps * 0):
        none = dense_crf_maps(image, without)
        assert none[0].eq(1).all()
        assert not none[1:].any()
    with pytest.raises(ValueError, match="maps must be finite"):
        dense_crf_maps(image, maps * float("inf"))
    with pytest.raises(ValueError, match="maps must be finite"):
        dense_crf_maps(image, maps[:, :5])
    with pytest.raises(ValueError, match="alpha=0"):
        dense_crf_maps(image, maps, alpha=0)


def test_one_label_is_certain():
    assert torch.equal(dense_crf(picture(), planes(1) * 0.2), torch.ones(1, 14, 18))
    found = dense_crf_labels(picture(), np.zeros((14, 18), np.int64), n_labels=1)
    assert torch.equal(found, torch.ones(1, 14, 18))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9), st.integers(2, 9))
def test_probabilities_at_any_size_whatever_the_threads(seed, height, width, labels):
    image, p = picture(height, width, seed), planes(labels, height, width, seed)
    kernels = [module.Pairwise(3, 3), module.Pairwise(80, 10, 13)]
    one, three = (module.mean_field(image, -p.log(), kernels, threads=threads) for threads in (1, 3))
    assert torch.equal(one, three)
    torch.testing.assert_close(one.sum(0), torch.ones(height, width))


def test_many_python_threads_at_once_agree_to_the_bit():
    image, p = picture(30, 40), planes(5, 30, 40)
    expected = dense_crf(image, p)
    with ThreadPoolExecutor(6) as pool:
        for found in pool.map(lambda _: dense_crf(image, p), range(24)):
            assert torch.equal(found, expected)


def test_a_matrix_of_potts_is_the_weight():
    p, image = planes(), picture()
    expected = dense_crf(image, p)
    matrices = [module.Pairwise(3, 3 * (1 - np.eye(3))), module.Pairwise(80, 10 * (1 - np.eye(3)), 13)]
    torch.testing.assert_close(module.mean_field(image, -p.log(), matrices), expected, rtol=0, atol=5e-4)
    free = [module.Pairwise(3, 3 * np.array([[0, 0, 1], [0, 0, 1], [1, 1, 0.0]]))]
    assert not torch.allclose(module.mean_field(image, -p.log(), free), expected, atol=1e-2)


def test_an_edge_of_colour_holds_and_noise_goes():
    image = np.zeros((20, 30, 3), np.uint8)
    image[:, 15:] = 200
    labels = np.zeros((20, 30), np.int64)
    labels[:, 13:] = 1  # two columns over the edge
    labels[3, 3] = labels[9, 6] = 1
    found = dense_crf_labels(image, labels, n_labels=2).argmax(0)
    assert (found[:, :13] == 0).all()
    assert (found[:, 15:] == 1).all()
    assert (found[:, 13:15] == 0).all()


@pytest.mark.parametrize("backend", ["compiled", "torch"])
def test_an_image_of_one_colour_is_fine(backend):
    found = dense_crf(np.full((14, 18, 3), 90, np.uint8), planes(), backend=backend)
    torch.testing.assert_close(found.sum(0), torch.ones(14, 18))
    one = dense_crf(np.full((1, 1, 3), 90, np.uint8), planes(3, 1, 1), backend=backend)
    torch.testing.assert_close(one.sum(0), torch.ones(1, 1))


def test_refusals():
    p, hole = planes(), planes()
    hole[0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="finite"):
        dense_crf(picture(), hole)
    with pytest.raises(ValueError, match="do not fit"):
        dense_crf(picture(14, 17), p)
    with pytest.raises(ValueError, match="uint8"):
        dense_crf(picture().astype(np.float32), p)
    with pytest.raises(ValueError, match="positive"):
        dense_crf(picture(), p, bilateral_srgb=0)
    with pytest.raises(ValueError, match="backend"):
        dense_crf(picture(), p, backend="gpu")
    with pytest.raises(ValueError, match="iterations"):
        dense_crf(picture(), p, iterations=-1)
    with pytest.raises(ValueError, match=r"\[3, 3\]"):
        module.mean_field(picture(), p, [module.Pairwise(3, np.ones((2, 2)))])
    with pytest.raises(ValueError, match=r"0\.\.2"):
        dense_crf_labels(picture(), np.full((14, 18), 3), n_labels=3)
    with pytest.raises(ValueError, match="confidence"):
        dense_crf_labels(picture(), np.zeros((14, 18), np.int64), n_labels=3, confidence=1.0)


def test_refiner_leaves_out_classes_that_are_not_there():
    maps = planes(3, 4, 5)
    maps[1] = 0
    refiner = module.DenseCrf()
    found = refiner.refine(refine_request(picture(), maps))
    assert not found[1].any()
    assert torch.equal(found[[0, 2]], refiner.refine(refine_request(picture(), maps[[0, 2]])))
    assert refiner.refine(refine_request(picture(), maps[:0])).shape == (0, 4, 5)
    with pytest.raises(ValueError, match="finite"):
        refiner.refine(refine_request(picture(), maps * float("nan")))


def test_refiner_puts_a_background_beside_the_maps(monkeypatch):
    seen = []
    whole = module.dense_crf
    monkeypatch.setattr(
        module, "dense_crf", lambda image, p, **options: seen.append((image, p)) or whole(image, p, **options)
    )
    maps = torch.full((2, 4, 5), 0.25)
    maps[1] = 0.5
    module.DenseCrf(alpha=2).refine(refine_request(picture(16, 20), maps))
    torch.testing.assert_close(seen.pop()[1][:, 3, 3], torch.tensor([0.25, 0.25, 0.5]))
    module.DenseCrf(background="level", level=0.4).refine(refine_request(picture(16, 20), maps))
    torch.testing.assert_close(seen.pop()[1][:, 3, 3], torch.tensor([0.4, 0.25, 0.5]))
    module.DenseCrf(alpha=1, power=2).refine(refine_request(picture(16, 20), maps))
    torch.testing.assert_close(seen.pop()[1][:, 3, 3], torch.tensor([0.75, 0.0625, 0.25]))
    module.DenseCrf(max_pixels=256).refine(refine_request(picture(64, 64), maps))
    image, p = seen.pop()
    assert image.shape == (16, 16, 3)
    assert p.shape == (3, 16, 16)


def test_the_compiler_is_not_loaded_before_it_is_needed():
    code = "import sys, tagmask.methods.dense_crf.refiner; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_a_place_for_the_cache_it_compiles_in_memory(monkeypatch):
    from tagmask.ops import compiling

    asked = []

    def njit(cache=False, **options):
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(compiling.numba, "njit", njit)
    assert compiling.compiled(abs) is abs
    assert asked == [True, False]
