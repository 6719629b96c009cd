"""Judged maps: the inner localizer's highest value everywhere, the judge's choice of class."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tagmask.errors import RecipeError
from tagmask.methods.judged.localizer import judged_maps
from tagmask.settings.loading import load_recipe

MAPS = torch.tensor([[[4.0, 2.0, 0.0]], [[1.0, 2.0, 0.0]]])


def test_by_hand() -> None:
    judges = torch.tensor([[[0.5, 1.0, 1.0]], [[8.0, 2.0, 0.0]]])
    # normalised: maps (1, .5, 0), (.5, 1, 0); judges (.5, 1, 1), (1, .25, 0); mean height 3
    expected = torch.tensor([[[0.5, 1.0, 0.0]], [[1.0, 0.25, 0.0]]]) * 3
    torch.testing.assert_close(judged_maps(MAPS, judges), expected, rtol=1e-4, atol=1e-4)


def test_one_class_is_left_alone() -> None:
    assert torch.equal(judged_maps(MAPS[:1], torch.ones(1, 1, 3)), MAPS[:1])


def test_where_no_judge_responds_the_maps_stay() -> None:
    silent = judged_maps(MAPS, torch.zeros_like(MAPS))
    assert torch.equal(silent.argmax(0), torch.tensor([[0, 1, 0]]))
    assert silent.isfinite().all()


@given(st.integers(0, 2**32 - 1), st.integers(2, 4))
def test_the_class_is_the_judges_and_the_height_the_seeds(seed: int, n_classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps, judges = torch.rand(2, n_classes, 5, 4, generator=generator) + 0.01
    found = judged_maps(maps, judges)
    votes = judges / judges.amax((1, 2), keepdim=True)
    torch.testing.assert_close(votes.gather(0, found.argmax(0)[None])[0], votes.amax(0), rtol=1e-4, atol=1e-4)
    own = maps / maps.amax((1, 2), keepdim=True)
    height = maps.amax((1, 2)).mean()
    torch.testing.assert_close(found.amax(0), own.amax(0) * height, rtol=1e-3, atol=1e-3)
    assert torch.equal(judged_maps(maps[None], judges[None])[0], found)


@pytest.mark.parametrize(
    ("localize", "said"),
    [
        ({"name": "judged", "judge": "advcam"}, "'advcam' is not one"),
        ({"name": "judged", "inner": "lpcam", "judge": {"name": "lpcam", "clusters": 3}}, "settings differ"),
    ],
)
def test_what_cannot_judge(localize: dict[str, object], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load_recipe({"localize": localize})
