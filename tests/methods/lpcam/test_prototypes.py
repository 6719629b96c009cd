"""Prototypes: the published selection and split, K-means against a plain loop, and its properties."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tagmask.functional import select_prototypes
from tagmask.methods.lpcam.prototypes import class_vector, keep_mask, prototype_scores, split_positions
from tagmask.ops.kmeans import cosine_kmeans, unit

Golden = Callable[[str], Mapping[str, np.ndarray[Any, Any]]]


def random(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_reference_values() -> None:
    """Softmax over classes of w . X for three centres, computed independently in float64."""
    centres, weights = torch.tensor([[4.0, 0], [2, 1], [0, 3]]), torch.eye(2)
    expected = torch.tensor([0.982014, 0.731059, 0.047426])
    torch.testing.assert_close(prototype_scores(centres, weights, 0), expected, rtol=0, atol=1e-6)
    assert select_prototypes(centres, weights, 0, threshold=0.9, keep="above").tolist() == [[4, 0]]
    assert select_prototypes(centres, weights, 0, threshold=(0.05, 0.9), keep="between").tolist() == [[2, 1]]


def test_both_bounds_are_strict() -> None:
    scores = torch.tensor([0.05, 0.5, 0.9], dtype=torch.float64)
    assert keep_mask(scores, 0.5, "above").tolist() == [False, False, True]
    assert keep_mask(scores, (0.05, 0.9), "between").tolist() == [False, True, False]


@pytest.mark.parametrize(("threshold", "keep"), [(0.5, "between"), ((0.1, 0.5), "above")])
def test_a_threshold_of_the_other_kind_is_an_error(threshold: Any, keep: Any) -> None:
    with pytest.raises(ValueError, match="keep="):
        select_prototypes(torch.ones(1, 2), torch.eye(2), 0, threshold=threshold, keep=keep)


def test_scores_and_selection_are_the_published_ones(golden: Golden) -> None:
    stored = golden("lpcam")
    weights = torch.from_numpy(stored["classifier_weight"])
    bounds = (float(stored["context_threshold_low"]), float(stored["context_threshold_high"]))
    for index in range(20):
        for side, name, threshold in (
            ("foreground", "class", float(stored["class_threshold"])),
            ("background", "context", bounds),
        ):
            centres = torch.from_numpy(stored[f"{side}_centres"][index])
            scores = prototype_scores(centres, weights, index)
            expected = torch.from_numpy(stored[f"expected_{side}_class_probability"][index])
            torch.testing.assert_close(scores, expected, rtol=0, atol=1e-5)
            selected = stored[f"expected_{name}_prototype_selected"][index]
            found = keep_mask(scores, threshold, "above" if name == "class" else "between")
            assert found.tolist() == selected.tolist()
        paper = prototype_scores(
            torch.from_numpy(stored["foreground_centres"][index]), weights, index, posterior="centres"
        )
        expected = torch.from_numpy(stored["paper_foreground_score_softmax_over_centres"][index])
        torch.testing.assert_close(paper, expected, rtol=0, atol=1e-5)


def test_the_split_of_features_is_the_published_one(golden: Golden) -> None:
    stored = golden("lpcam")
    chosen = int(stored["example_class"])
    found: tuple[list[Tensor], list[Tensor]] = ([], [])
    for number, labels in enumerate(stored["cluster_image_labels"]):
        classes = np.flatnonzero(labels).tolist()
        if chosen not in classes:
            continue
        features = torch.from_numpy(stored["cluster_image_features"][number])
        mask = torch.from_numpy(stored[f"cluster_cam_highres_{number}"][classes.index(chosen)])
        size = (features.shape[1], features.shape[2])
        for side, inside in zip(found, split_positions(mask, size, float(stored["select_threshold"])), strict=True):
            side.append(features.permute(1, 2, 0)[inside])
    for side, name in zip(found, ("foreground", "background"), strict=True):
        assert torch.equal(torch.cat(side), torch.from_numpy(stored[f"expected_{name}_features_class{chosen}"]))


def test_a_cell_at_the_threshold_and_one_that_is_no_number_belong_to_neither() -> None:
    inside, around = split_positions(torch.tensor([[0.25, 0.5, 0.75, torch.nan]]), (1, 4), 0.5)
    assert inside.tolist() == [[False, False, True, False]]
    assert around.tolist() == [[True, False, False, False]]


def plain_kmeans(features: Tensor, clusters: int, seed: int, tolerance: float) -> Tensor:
    """The published loop, for clusters that stay filled."""
    start = np.random.default_rng(seed).choice(len(features), clusters, replace=False)
    centres = features[torch.from_numpy(start)].double()
    while True:
        similarity = torch.nn.functional.cosine_similarity(features[:, None].double(), centres[None], dim=2)
        owner = similarity.argmax(dim=1)
        moved = torch.stack([features[owner == k].double().mean(dim=0) for k in range(clusters)])
        shift = (moved - centres).norm(dim=1).sum()
        centres = moved
        if shift**2 < tolerance:
            return centres.float()


@pytest.mark.parametrize("tolerance", [5.0, 1e-3])
@pytest.mark.parametrize("seed", range(4))
def test_kmeans_is_the_published_loop(seed: int, tolerance: float) -> None:
    directions = torch.eye(8)[torch.arange(200) % 5] * 4
    features = (directions + random(seed, 200, 8)) * (0.5 + 3 * random(seed + 9, 200, 1))
    rng = np.random.default_rng(seed)
    centres, _ = cosine_kmeans(features, 5, rng, tolerance=tolerance, scale_tolerance=False)
    torch.testing.assert_close(centres, plain_kmeans(features, 5, seed, tolerance), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("factor", [1e-3, 1.0, 30.0])
def test_features_of_any_height_are_clustered_alike(factor: float) -> None:
    """In the features' own unit, small ones would stop after two rounds."""
    features = random(3, 400, 16).abs() * 12
    centres, owner = cosine_kmeans(features, 6, np.random.default_rng(0))
    scaled, same = cosine_kmeans(features * factor, 6, np.random.default_rng(0))
    assert torch.equal(owner, same)
    torch.testing.assert_close(scaled, centres * factor)
    small = features / 1000
    _, early = cosine_kmeans(small, 6, np.random.default_rng(0), scale_tolerance=False)
    _, twice = cosine_kmeans(small, 6, np.random.default_rng(0), tolerance=1e-12, max_iterations=1)
    assert torch.equal(early, twice)
    assert not torch.equal(early, owner)


def test_the_published_tolerance_is_that_of_features_with_a_mean_square_of_2048() -> None:
    features = random(3, 400, 16)
    features *= (2048 / features.double().square().sum(1).mean()).sqrt().float()
    for tolerance in (500.0, 5.0):
        pair = [
            cosine_kmeans(features, 6, np.random.default_rng(0), tolerance=tolerance, scale_tolerance=scaled)
            for scaled in (True, False)
        ]
        torch.testing.assert_close(*pair)


@given(st.integers(1, 30), st.integers(1, 6), st.integers(1, 9), st.integers(0, 99), st.integers(1, 5))
def test_centres_are_the_means_of_their_members(n: int, d: int, clusters: int, seed: int, iterations: int) -> None:
    features = random(seed, n, d)
    rng = np.random.default_rng(seed)
    centres, owner = cosine_kmeans(features, clusters, rng, max_iterations=iterations, tolerance=1e-9)
    assert centres.shape == (min(clusters, n), d)
    for index in range(len(centres)):
        members = features[owner == index]
        if len(members):
            torch.testing.assert_close(centres[index], members.mean(dim=0), rtol=1e-5, atol=1e-6)
        else:  # an empty cluster took one feature
            assert (features - centres[index]).abs().amax(dim=1).min() < 1e-6


def test_an_empty_cluster_takes_a_random_feature() -> None:
    """Two equal features, two clusters: both go to the first."""
    features = torch.tensor([[3.0, 0.0], [3.0, 0.0]])
    centres, owner = cosine_kmeans(features, 2, np.random.default_rng(0))
    assert owner.tolist() == [0, 0]
    assert centres.tolist() == [[3.0, 0.0], [3.0, 0.0]]


def test_as_many_clusters_as_features_at_most() -> None:
    features = random(0, 3, 4)
    centres, owner = cosine_kmeans(features, 12, np.random.default_rng(0))
    assert sorted(owner.tolist()) == [0, 1, 2]
    torch.testing.assert_close(centres[owner], features)


def test_unit_centres_have_length_one_and_ignore_the_lengths_of_features() -> None:
    features = torch.eye(3).repeat(20, 1) + 0.1 * random(0, 60, 3)
    longer = features * (1 + 9 * random(1, 60, 1))
    one, other = (cosine_kmeans(points, 3, np.random.default_rng(0), centre="unit")[0] for points in (features, longer))
    torch.testing.assert_close(one.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    raw = cosine_kmeans(longer, 3, np.random.default_rng(0))[0]
    assert raw.norm(dim=1).min() > 2


def test_the_number_of_threads_does_not_show_and_stays() -> None:
    import faiss

    features = random(3, 500, 32)
    before = faiss.omp_get_max_threads()
    try:
        found = []
        for threads in (1, 2, 4):
            faiss.omp_set_num_threads(threads)
            found.append(cosine_kmeans(features, 7, np.random.default_rng(1)))
            assert faiss.omp_get_max_threads() == threads
    finally:
        faiss.omp_set_num_threads(before)
    for centres, owner in found[1:]:
        assert torch.equal(centres, found[0][0])
        assert torch.equal(owner, found[0][1])


@pytest.mark.parametrize(("n", "clusters"), [(0, 3), (3, 0)])
def test_nothing_to_cluster_is_an_error(n: int, clusters: int) -> None:
    with pytest.raises(ValueError, match="cannot make"):
        cosine_kmeans(torch.zeros(n, 2), clusters, np.random.default_rng(0))


def test_features_that_are_no_numbers_do_not_crash() -> None:
    features = torch.full((4, 3), torch.nan)
    assert cosine_kmeans(features, 2, np.random.default_rng(0), max_iterations=3)[0].shape == (2, 3)


def test_the_vector_of_a_class_by_hand() -> None:
    """((1, 0) + (2, 1) / sqrt(5)) / 2 - (0, 1)."""
    around, none = torch.tensor([[0.0, 3]]), torch.zeros(0, 2)
    prototypes = torch.tensor([[4.0, 0], [2, 1]])
    torch.testing.assert_close(class_vector(prototypes, around), torch.tensor([0.947214, -0.776393]))
    torch.testing.assert_close(class_vector(prototypes, none), torch.tensor([0.947214, 0.223607]))
    with pytest.raises(ValueError, match="without prototypes"):
        class_vector(none, around)


def test_a_zero_vector_has_no_direction() -> None:
    assert unit(torch.zeros(2, 3)).tolist() == [[0.0] * 3] * 2
