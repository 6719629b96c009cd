"""The reservoir: the same sample whatever the order of images and however they were split, in bounded memory."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from tagmask.contracts.learning import Candidates, Reservoir


def offer(image: int, n: int, seed: int = 0) -> dict[int, Candidates]:
    rng = np.random.default_rng([seed, image])
    keys = torch.from_numpy(rng.random(n))
    boxes = torch.full((n, 4), image, dtype=torch.int64)
    return {image % 2: Candidates(keys, torch.full((n, 3), float(image)), boxes)}


def held(reservoir: Reservoir) -> dict[int, tuple[list[float], list[int], list[float]]]:
    found = {}
    for group in reservoir.groups():
        sample = reservoir.group(group)
        assert sample is not None
        found[group] = (sample.keys.tolist(), sample.images.tolist(), sample.vectors[:, 0].tolist())
    return found


@given(st.permutations(range(9)), st.integers(1, 40), st.integers(0, 9))
def test_order_and_split_do_not_show(order: list[int], capacity: int, cut: int) -> None:
    straight = Reservoir(capacity)
    for image in range(9):
        straight.add(image, offer(image, 7))
    halves = [Reservoir(capacity), Reservoir(capacity)]
    for place, image in enumerate(order):
        halves[place >= cut].add(image, offer(image, 7))
    merged = Reservoir(capacity)
    merged.merge(reversed(halves))
    assert held(merged) == held(straight)


def test_the_smallest_keys_stay_with_their_vectors_boxes_and_images() -> None:
    reservoir = Reservoir(2)
    keys = torch.tensor([0.9, 0.1, 0.5], dtype=torch.float64)
    boxes = torch.arange(12).reshape(3, 4)
    reservoir.add(7, {3: Candidates(keys, torch.tensor([[9.0], [1.0], [5.0]]), boxes)})
    sample = reservoir.group(3)
    assert sample is not None
    assert sample.keys.tolist() == [0.1, 0.5]
    assert sample.vectors.tolist() == [[1.0], [5.0]]
    assert sample.boxes.tolist() == [[4, 5, 6, 7], [8, 9, 10, 11]]
    assert sample.images.tolist() == [7, 7]


def test_without_a_capacity_everything_stays() -> None:
    reservoirs = [Reservoir(None), Reservoir(None)]
    for image in range(6):
        reservoirs[image % 2].add(image, offer(image, 20))
    whole = Reservoir(None)
    whole.merge(reservoirs)
    sample = whole.group(0)
    assert sample is not None
    assert len(sample.keys) == 60  # of the images that offer this group something
    assert sample.keys.tolist() == sorted(sample.keys.tolist())


def test_a_group_nobody_offered_to() -> None:
    reservoir = Reservoir(2)
    assert reservoir.group(0) is None
    reservoir.add(0, {0: Candidates(torch.zeros(0), torch.zeros(0, 3), torch.zeros(0, 4, dtype=torch.int64))})
    assert reservoir.group(0) is None


def test_memory_does_not_grow_with_the_images() -> None:
    reservoir = Reservoir(50)
    for image in range(0, 2000, 2):
        reservoir.add(image, offer(image, 20))
        assert sum(len(sample.keys) for sample in reservoir._samples[0]) <= 100 + 20


def test_random_keys_make_a_uniform_sample() -> None:
    """Images with ten times the candidates get ten times the places."""
    reservoir = Reservoir(2000)
    for image in range(200):
        rng = np.random.default_rng(image)
        n = 100 if image < 100 else 10
        found = Candidates(torch.from_numpy(rng.random(n)), torch.zeros(n, 1), torch.zeros(n, 4, dtype=torch.int64))
        reservoir.add(image, {0: found})
    sample = reservoir.group(0)
    assert sample is not None
    assert abs(float((sample.images < 100).float().mean()) - 10 / 11) < 0.02
