"""SSA: reference values, the factorised form against the definition, guidance by hand, what is refused."""

from __future__ import annotations

import sys
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from tagmask.contracts.localizer import Localizer, Trained
from tagmask.errors import InputError
from tagmask.functional import semantic_structure, ssa
from tagmask.methods.cam.localizer import Cam
from tagmask.methods.ssa.localizer import Guidance, Ssa, guided
from tagmask.methods.ssa.semantic_structure import Affinity, Blocks, Norm, normalize_features, polish
from tagmask.ops.views import Views
from tagmask.types import ClassifierOutput

FOUR = torch.tensor([[[1.0, 1, 0, 2]], [[0, 1, 1, 1]]], dtype=torch.float64)  # [D=2, h=1, w=4]


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_reference_values() -> None:
    """Four positions with the features (1, 0), (1, 1), (0, 1), (2, 1), computed independently in float64."""
    one = semantic_structure(FOUR, blocks=1)
    torch.testing.assert_close(one[:, 0], torch.tensor([0, 0.402827, 0, 0.597173]).double(), rtol=0, atol=1e-6)
    two = semantic_structure(FOUR, blocks=2)
    torch.testing.assert_close(two[0], torch.tensor([0, 0.484422, 0.503142, 0.282920]).double(), rtol=0, atol=1e-6)
    for structure in (one, two, semantic_structure(FOUR, blocks=3)):
        torch.testing.assert_close(structure.sum(0), torch.ones(4).double())
        assert structure.diagonal().tolist() == [0.0] * 4


sizes = st.tuples(st.integers(1, 6), st.integers(1, 6))
settings_of = st.fixed_dictionaries(
    {
        "blocks": st.sampled_from(get_args(Blocks)),
        "norm": st.sampled_from(get_args(Norm)),
        "epsilon": st.sampled_from(["identity", 0.0, 0.1, 0.4]),
        "clip": st.booleans(),
    }
)


@given(sizes, st.integers(1, 4), st.integers(1, 9), st.integers(0, 999), st.booleans(), settings_of)
def test_the_factorised_form_is_the_definition(
    size: tuple[int, int], classes: int, channels: int, seed: int, signed: bool, options: dict[str, Any]
) -> None:
    features, maps = random(seed, channels, *size), random(seed + 1, classes, *size).relu()
    features = features if signed else features.relu()
    expected = (maps.flatten(1) @ semantic_structure(features, **options)).view_as(maps)
    torch.testing.assert_close(polish(maps, features, **options), expected, rtol=1e-6, atol=1e-9)


@given(sizes, st.integers(0, 999), st.sampled_from(get_args(Blocks)), st.booleans())
def test_single_precision_is_close_to_double(size: tuple[int, int], seed: int, blocks: Blocks, clip: bool) -> None:
    features, maps = random(seed, 8, *size).relu() + 0.1, random(seed + 1, 2, *size).relu()
    found = polish(maps.float(), features.float(), blocks=blocks, clip=clip)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), polish(maps, features, blocks=blocks, clip=clip), rtol=1e-3, atol=1e-3)


@given(sizes, st.integers(0, 999), settings_of)
def test_polished_values_are_averages(size: tuple[int, int], seed: int, options: dict[str, Any]) -> None:
    """The range of a map cannot grow; a constant map stays as it is wherever anything is alike."""
    features, maps = random(seed, 5, *size), random(seed + 1, 2, *size).relu()
    found = polish(maps, features, **options)
    assert (found >= 0).all()
    assert (found.amax((-2, -1)) <= maps.amax((-2, -1)) * (1 + 1e-9) + 1e-12).all()
    constant = polish(torch.full_like(maps, 3.0), features, **options)
    assert (((constant - 3).abs() < 1e-3) | (constant.abs() < 3)).all()


def test_columns_are_averaged_not_rows() -> None:
    """Two blocks of like positions, of different size: a position gets the mean of its own kind."""
    features = torch.zeros(2, 1, 6).double()
    features[0, 0, :4] = features[1, 0, 4:] = 1
    maps = torch.tensor([[[1.0, 0, 0, 0, 6, 0]]]).double()
    one = polish(maps, features, blocks=1)
    torch.testing.assert_close(one[0, 0], torch.tensor([0, 1 / 3, 1 / 3, 1 / 3, 0, 6]).double())


@pytest.mark.parametrize("blocks", get_args(Blocks))
def test_rows_at_a_time_are_the_same(blocks: Blocks, monkeypatch: pytest.MonkeyPatch) -> None:
    features, maps = random(0, 6, 5, 7), random(1, 2, 5, 7).relu()
    whole = polish(maps, features, blocks=blocks)
    assert Affinity(features, "channel_l2", "identity", clip=False).dense is not None
    for held in (35, 36, 100, 35 * 34):
        monkeypatch.setattr(sys.modules[Affinity.__module__], "HELD", held)
        assert Affinity(features, "channel_l2", "identity", clip=False).dense is None
        torch.testing.assert_close(polish(maps, features, blocks=blocks), whole)


def test_without_clipping_opposite_counts_as_alike() -> None:
    features = torch.tensor([[[1.0, -1.0, 1.0, 0.5]], [[0, 0, 0, 1.0]]]).double()
    maps = torch.tensor([[[0.0, 8, 0, 0]]]).double()
    assert float(polish(maps, features, blocks=1)[0, 0, 0]) > 3
    assert float(polish(maps, features, blocks=1, clip=True)[0, 0, 0]) == 0


@pytest.mark.parametrize("blocks", get_args(Blocks))
@pytest.mark.parametrize("norm", get_args(Norm))
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 4)])
def test_nothing_to_look_at_gives_zeros(blocks: Blocks, norm: Norm, size: tuple[int, int]) -> None:
    """All features zero, one position, two positions: no other position to average over, and no NaN."""
    maps = torch.ones(1, *size)
    dead = polish(maps, torch.zeros(3, *size), blocks=blocks, norm=norm)
    assert torch.isfinite(dead).all()
    assert float(dead.max()) <= 1
    if norm == "channel_l2":
        assert not dead.any()
    alone = polish(torch.ones(1, 1, 1), torch.ones(3, 1, 1), blocks=blocks, norm=norm)
    assert torch.isfinite(alone).all()


def test_the_printed_normalisations() -> None:
    features = torch.tensor([[3.0, 4.0], [-1.0, 9.0]])
    torch.testing.assert_close(normalize_features(features, "channel_l2").norm(dim=0), torch.ones(2))
    torch.testing.assert_close(normalize_features(features, "spatial_l2")[0], torch.tensor([0.6, 0.8]))
    torch.testing.assert_close(
        normalize_features(features, "spatial_sqrt"), torch.tensor([[3 / 7**0.5, 4 / 7**0.5], [0.0, 3.0]])
    )


def test_sizes_must_agree() -> None:
    with pytest.raises(ValueError, match="features"):
        polish(torch.ones(1, 2, 2), torch.ones(1, 2, 3))


def test_guidance_by_hand() -> None:
    """Two stages that double and halve: CP = (4, 1), SM = (1, 1); then (0.5, 0.125), SM = (0.5, 0.125)."""
    stages = [lambda maps: maps * 2, lambda maps: maps / 2]
    for value, expected in (
        (2.0, {"none": 5.0, "cross_gate": 5.0, "cross_seed": 5.0, "cross_replace": 2.5}),
        (0.25, {"none": 0.625, "cross_gate": 0.125, "cross_seed": 0.125, "cross_replace": 0.5}),
    ):
        for guidance, result in expected.items():
            found = guided(torch.full((1, 1), value), stages, guidance)  # type: ignore[arg-type]
            assert float(found) == pytest.approx(result), (guidance, value)


@pytest.mark.parametrize("guidance", get_args(Guidance))
def test_one_stage_guides_nothing(guidance: Guidance) -> None:
    assert float(guided(torch.full((1, 1), 0.25), [lambda maps: maps * 2], guidance)) == 0.5


def test_three_stages_are_guided_by_the_mean_of_the_others() -> None:
    stages = [lambda maps: maps, lambda maps: maps / 2, lambda maps: maps * 0]
    found = guided(torch.full((1, 1), 1.0), stages, "cross_gate")
    assert float(found) == pytest.approx(1 * (0.5 + 0) / 2 + 0.5 * (1 + 0) / 2)


def test_the_public_function_is_two_polished_maps_gated() -> None:
    maps, low, high = random(0, 2, 4, 5).relu(), random(1, 3, 8, 10).relu(), random(2, 6, 4, 5).relu()
    small = torch.nn.functional.interpolate(low[None], size=(4, 5), mode="bilinear", align_corners=False)[0]
    one = (maps.flatten(1) @ semantic_structure(small)).view_as(maps)
    two = (maps.flatten(1) @ semantic_structure(high)).view_as(maps)
    torch.testing.assert_close(ssa(maps, low, high, guidance="none"), one + two)
    torch.testing.assert_close(ssa(maps, low, high), one * two.clamp(0, 1) + two * one.clamp(0, 1))
    assert not torch.allclose(ssa(maps, low, high), ssa(maps, low, high, blocks=1))


class Picture(torch.nn.Module):
    """Stage 1 is the picture, stage 2 its absolute value, and class 0 looks at channel 0."""

    class_weights = torch.tensor([[1.0, 0, 0]])

    def forward(self, views: Tensor) -> ClassifierOutput:
        return ClassifierOutput(
            views, {1: torch.nn.functional.avg_pool2d(views, 2), 2: views.abs()}, views[:, :1, 0, 0]
        )


def scale(method: Ssa, seed: int = 0) -> Tensor:
    views = random(seed, 1, 3, 4, 6).float()
    output = Picture()(torch.cat([views, views.flip(-1)]))
    return method.scale_maps(Trained(Picture()), output, torch.tensor([0]))


@pytest.mark.parametrize("guidance", get_args(Guidance))
def test_an_image_and_its_mirror_agree(guidance: Guidance) -> None:
    """For a network that commutes with the mirror: twice the image's own maps, gated at that height."""
    method = Ssa(guidance=guidance, signed="published")
    views = random(0, 1, 3, 4, 6).float()
    seeds = views[:, :1].relu()[0]
    taps = Picture()(views).feature_taps
    low, high = taps[1][0], taps[2][0]

    def stage(features: Tensor) -> Any:
        resized = torch.nn.functional.interpolate(features[None], size=(4, 6), mode="bilinear")[0]
        return lambda maps: 2 * polish(maps, resized)

    torch.testing.assert_close(scale(method), guided(seeds, [stage(low), stage(high)], guidance))


def test_each_view_is_polished_by_its_own_structure() -> None:
    """A mirror whose features differ: only the mirror's part of the sum changes."""
    method, channels = Ssa(guidance="none"), torch.tensor([0])
    views = random(0, 2, 3, 4, 6).float()
    trained = Trained(Picture())
    apart = [method.view_maps(trained, Picture()(views[i : i + 1]), channels)[0] for i in range(2)]
    both = method.view_maps(trained, Picture()(views), channels)
    torch.testing.assert_close(both, torch.stack(apart))
    merged = method.scale_maps(trained, Picture()(views), channels)
    torch.testing.assert_close(merged, apart[0] + apart[1].flip(-1))


def test_settings_reach_the_maps() -> None:
    first = scale(Ssa())
    for change in (
        {"stages": (1,)},
        {"stages": (2,)},
        {"blocks": 1},
        {"blocks": 3},
        {"norm": "spatial_l2"},
        {"norm": "spatial_sqrt"},
        {"epsilon": 0.1},
        {"guidance": "none"},
        {"signed": "published"},
    ):
        found = scale(Ssa(**change))
        assert found.shape != first.shape or not torch.allclose(found, first), change
    torch.testing.assert_close(scale(Ssa(stages=(2, 1))), first)


def test_negative_cosines_of_signed_stages_count_as_none_unless_asked_otherwise() -> None:
    """Stage 1 of the picture is signed, stage 2 is not: clipping that one changes nothing."""
    torch.testing.assert_close(scale(Ssa()), scale(Ssa(clip_negative=True)))
    torch.testing.assert_close(scale(Ssa(stages=(2,))), scale(Ssa(stages=(2,), signed="published")))
    # A number in the place of the identity makes similarities of any stage negative: those are the published form.
    number = {"stages": (2,), "epsilon": 0.5}
    torch.testing.assert_close(scale(Ssa(**number)), scale(Ssa(**number, signed="published")))
    assert not torch.allclose(scale(Ssa(**number)), scale(Ssa(**number, clip_negative=True)))


def test_the_log_names_the_signed_stages_once() -> None:
    views = Views((1.0, 2.0))
    (line,) = Ssa().remarks(Trained(Picture()), views)
    assert "stage 1 are signed" in line
    assert "localize.signed=published" in line
    for quiet in (Ssa(stages=(2,)), Ssa(signed="published"), Ssa(clip_negative=True)):
        assert not list(quiet.remarks(Trained(Picture()), views))


def test_seeds_of_another_size_are_resized() -> None:
    class Half(Cam):
        def view_maps(self, trained: Trained, output: ClassifierOutput, channels: Tensor) -> Tensor:
            return super().view_maps(trained, output, channels)[..., ::2, ::2]

    assert scale(Ssa(inner=Half())).shape == (1, 4, 6)


def test_an_unknown_stage_names_the_known() -> None:
    with pytest.raises(InputError, match=r"no stage 7\. Its stages: 1, 2"):
        scale(Ssa(stages=(1, 7)))


@pytest.mark.parametrize("stages", [(), (0,), (3, 3)])
def test_wrong_stages_are_refused(stages: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError):
        Ssa(stages=stages)


def test_a_driver_cannot_be_polished() -> None:
    class Driver(Localizer):
        name = "climber"

    with pytest.raises(ValidationError, match=r"\{name: climber, inner: \{name: ssa\}\}"):
        Ssa(inner=Driver())
