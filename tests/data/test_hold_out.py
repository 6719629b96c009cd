"""The split that is made where the data has none."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tagmask.data.hold_out import hold_out
from tagmask.types import Sample

TAGS = st.lists(st.integers(1, 4), max_size=3, unique=True).map(lambda tags: tuple(sorted(tags)))


def samples_of(tags: list[tuple[int, ...]]) -> list[Sample]:
    return [Sample(f"image {number}", Path("x"), tag) for number, tag in enumerate(tags)]


@given(st.lists(TAGS, max_size=30), st.floats(0.01, 0.99), st.integers(0, 5))
def test_every_class_and_every_set_keeps_a_training_image(
    tags: list[tuple[int, ...]], fraction: float, seed: int
) -> None:
    samples = samples_of(tags)
    held = hold_out(samples, fraction, seed)
    kept = [sample for sample in samples if sample.id not in held]
    assert bool(kept) == bool(samples)
    assert {tag for sample in kept for tag in sample.tags} == {tag for sample in samples for tag in sample.tags}
    assert held == hold_out(samples[::-1], fraction, seed)


def test_shares_seeds_and_growth() -> None:
    samples = samples_of([(1 + number % 3,) for number in range(2000)])
    held = hold_out(samples, 0.2, 0)
    assert 330 < len(held) < 470
    assert hold_out(samples, 0.0, 0) == set()
    assert held != hold_out(samples, 0.2, 1)
    first = hold_out(samples[:1500], 0.2, 0)
    assert first == held & {sample.id for sample in samples[:1500]}  # new images move no old one


def test_a_small_share_of_few_images_is_one_image() -> None:
    assert len(hold_out(samples_of([(1,)] * 4), 0.01, 0)) == 1
    assert hold_out(samples_of([(1,), (2,)]), 0.5, 0) == set()  # neither class can spare its only image


@given(st.lists(TAGS, max_size=30), st.floats(0.01, 0.99), st.integers(0, 5))
def test_stratified_every_class_is_in_both_parts_where_one_can_be_spared(
    tags: list[tuple[int, ...]], fraction: float, seed: int
) -> None:
    samples = samples_of(tags)
    held = hold_out(samples, fraction, seed, stratified=True)
    train = [sample for sample in samples if sample.id not in held]
    left = [tag for sample in train for tag in sample.tags]
    assert set(left) == {tag for sample in samples for tag in sample.tags}
    missing = set(left) - {tag for sample in samples if sample.id in held for tag in sample.tags}
    for sample in train:  # an image of a class without one could only be held out with the last one of another
        if missing & set(sample.tags):
            assert min(left.count(tag) for tag in sample.tags) == 1 or len(train) == 1
    assert held == hold_out(samples[::-1], fraction, seed, stratified=True)


def test_stratified_takes_no_more_than_the_share_where_classes_are_few() -> None:
    samples = samples_of([(1,)] * 90 + [(2,)] * 6 + [(3,)] * 2 + [(4,)] * 2)
    held = hold_out(samples, 0.2, 0, stratified=True)
    assert len(held) == 20
    assert {tag for sample in samples if sample.id in held for tag in sample.tags} == {1, 2, 3, 4}
    chance = hold_out(samples, 0.2, 0)
    assert {tag for sample in samples if sample.id in chance for tag in sample.tags} < {1, 2, 3, 4}
    assert hold_out(samples, 0.0, 0, stratified=True) == set()


@given(
    st.lists(TAGS, min_size=1, max_size=30),
    st.lists(st.integers(0, 5), min_size=30, max_size=30),
    st.floats(0.01, 0.99),
    st.booleans(),
)
def test_groups_are_held_out_whole_and_every_class_stays(
    tags: list[tuple[int, ...]], numbers: list[int], fraction: float, stratified: bool
) -> None:
    samples = samples_of(tags)
    groups: dict[int, list[str]] = {}
    for sample, number in zip(samples, numbers, strict=False):
        groups.setdefault(number, []).append(sample.id)
    held = hold_out(samples, fraction, 0, stratified=stratified, groups=groups.values())
    assert all(len(held & set(group)) in (0, len(group)) for group in groups.values())
    kept = [sample for sample in samples if sample.id not in held]
    assert kept
    assert {tag for sample in kept for tag in sample.tags} == {tag for sample in samples for tag in sample.tags}


@given(st.lists(TAGS, max_size=30), st.floats(0.01, 0.99), st.booleans())
def test_groups_of_one_change_nothing(tags: list[tuple[int, ...]], fraction: float, stratified: bool) -> None:
    samples = samples_of(tags)
    alone = hold_out(samples, fraction, 0, stratified=stratified)
    assert hold_out(samples, fraction, 0, stratified=stratified, groups=[[s.id] for s in samples]) == alone
