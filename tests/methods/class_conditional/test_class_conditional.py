"""Class-conditional inference against the released code, and its parts by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional

from tagmask.contracts.localizer import Trained
from tagmask.functional import split_rectangles
from tagmask.methods.cam.localizer import Cam
from tagmask.methods.class_conditional.erasing import Erasing, erase, erasing_rounds, merge_rounds, normalize_with_floor
from tagmask.methods.class_conditional.localizer import ClassConditional, full_size_maps
from tagmask.methods.class_conditional.split_unite import Rectangle, centres_of_mass, unite
from tagmask.ops.views import Views, normalize_maps
from tagmask.runs.workspace import Workspace
from tagmask.settings.localize import LocalizeSettings
from tagmask.stages.localize.stage import activation_maps
from tagmask.types import IMAGENET, ClassifierOutput

Golden = Callable[[str], Mapping[str, np.ndarray[Any, Any]]]
Stored = Mapping[str, np.ndarray[Any, Any]]
RELEASED: dict[str, Any] = {"stop": 0.02, "mask_geometry": "reference"}
SUFFIXES = {1.0: "1p0", 0.5: "0p5", 2.0: "2p0"}


class TinyNet(nn.Module):
    """The goldens' two-layer network; counts how often it is asked."""

    def __init__(self, stored: Stored) -> None:
        super().__init__()
        self.layers = [
            (torch.from_numpy(stored[f"{layer}_weight"]), torch.from_numpy(stored[f"{layer}_bias"]))
            for layer in ("conv1", "conv2")
        ]
        self.class_weights = torch.from_numpy(stored["classifier_weight"]).flatten(1)
        self.asked = 0

    def forward(self, views: Tensor) -> ClassifierOutput:
        self.asked += 1
        for weight, bias in self.layers:
            views = functional.relu(functional.conv2d(views, weight, bias, stride=2, padding=1))
        return ClassifierOutput(views, {}, views.mean((-2, -1)) @ self.class_weights.T)


class ColourNet(nn.Module):
    """Features are the pixels' own colours, rectified, red for class 0 and so on: maps can be drawn by hand."""

    class_weights = torch.eye(3)
    input_statistics = IMAGENET

    def forward(self, views: Tensor) -> ClassifierOutput:
        features = views.clamp(min=0)
        return ClassifierOutput(features, {}, features.mean((-2, -1)))


@pytest.fixture(scope="module", params=[1, 2, 3])
def published(golden: Golden, request: pytest.FixtureRequest) -> Stored:
    return golden(f"infercam_{request.param}class")


def parts_of(stored: Stored) -> tuple[Trained, Tensor, Views]:
    scales = tuple(float(scale) for scale in stored["scales"])
    return Trained(TinyNet(stored)), torch.from_numpy(stored["classes"]), Views(scales)


def close(found: Tensor, expected: np.ndarray[Any, Any]) -> None:
    torch.testing.assert_close(found, torch.from_numpy(expected).to(found.dtype), rtol=0, atol=1e-4)


def rectangles(stored: np.ndarray[Any, Any]) -> list[Rectangle]:
    return [Rectangle(y0, x0, y1, x1) for y0, y1, x0, x1 in stored.tolist()]


def picture(*dots: tuple[int, int, int], size: tuple[int, int] = (60, 80)) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Black, with 5 x 5 dots of a pure colour (row, column, channel)."""
    image = np.zeros((*size, 3), np.uint8)
    for y, x, channel in dots:
        image[y - 2 : y + 3, x - 2 : x + 3, channel] = 255
    return image


# -- the released code -------------------------------------------------------------------------------------------


def test_the_whole_image_and_its_cuts_are_the_published_ones(published: Stored) -> None:
    trained, classes, views = parts_of(published)
    image = published["image_uint8"]
    maps = full_size_maps(trained, Cam(), views.of(image), classes, image.shape[:2])
    close(normalize_with_floor(maps), published["expected_initial_cam"])
    centres = centres_of_mass(maps)
    close(torch.tensor(centres), published["expected_centres_of_mass_yx"])
    assert split_rectangles(centres, image.shape[:2]) == rectangles(published["expected_rectangles"])


def test_every_round_of_every_cut_is_the_published_one(published: Stored) -> None:
    trained, classes, views = parts_of(published)
    compared = 0
    for number, cut in enumerate(dict.fromkeys(rectangles(published["expected_rectangles"])), start=1):
        pairs = views.of(np.ascontiguousarray(published["image_uint8"][cut.top : cut.bottom, cut.left : cut.right]))
        inputs: list[list[Tensor]] = []

        def maps_of(views: Sequence[Tensor], inputs: Any = inputs, cut: Rectangle = cut) -> Tensor:
            inputs.append(list(views))
            return full_size_maps(trained, Cam(), views, classes, cut.size)

        rounds = list(erasing_rounds(pairs, maps_of, Erasing(**RELEASED)))
        assert len(rounds) == published["expected_rounds_per_crop"][number - 1]
        for step, one in enumerate(rounds, start=1):
            close(one.maps, published[f"expected_round_map_crop{number}_round{step}"])
            assert np.array_equal(one.keep_mask, published[f"expected_kept_mask_crop{number}_round{step}"])
        close(rounds[-1].accumulated, published[f"expected_accumulated_map_crop{number}"])
        for scale, suffix in SUFFIXES.items():
            for flip in (0, 1):
                name = f"expected_erased_input_crop{number}_round2_scale_{suffix}" + "_flip" * flip
                if name in published:
                    close(inputs[1][views.scales.index(scale)][flip], published[name])
                    compared += 1
    assert compared == 4


def test_the_driver_unites_what_the_published_code_does(published: Stored) -> None:
    trained, classes, views = parts_of(published)
    found = ClassConditional(**RELEASED).full_maps(trained, published["image_uint8"], classes, views).maps
    close(found, published["expected_merged_map"])


def test_rectangles_are_the_published_ones_but_clipped(golden: Golden) -> None:
    stored = golden("infercam_rectangles")
    height, width = (int(side) for side in stored["image_size_hw"])
    buffers = {"one_class": int(stored["buffer_one_class"]), "two_classes": int(stored["buffer_two_classes"])}
    cases = [([tuple(centre)], "one_class", i) for i, centre in enumerate(stored["centres_one_class_yx"])]
    cases += [([tuple(c) for c in two], "two_classes", i) for i, two in enumerate(stored["centres_two_classes_yx"])]
    exact = 0
    for centres, name, index in cases:
        found = split_rectangles(centres, (height, width))
        clipped = [min(int(centre[axis]) for centre in centres) - buffers[name] < 0 for axis in (0, 1)]
        for cut, expected in zip(found, rectangles(stored[f"expected_rectangles_{name}"][index]), strict=True):
            top = 0 if clipped[0] else expected.top
            left = 0 if clipped[1] else expected.left
            assert cut == (top, left, expected.bottom, expected.right)
            exact += cut == expected
    assert exact > 25
    three = [tuple(centre) for centre in stored["centres_three_classes_yx"]]
    assert split_rectangles(three, (height, width)) == rectangles(stored["expected_rectangles_three_classes"])
    nowhere = centres_of_mass(torch.zeros(1, height, width))
    assert split_rectangles(nowhere, (height, width)) == rectangles(stored["expected_rectangles_undefined_centre"])


# -- split & unite -----------------------------------------------------------------------------------------------


def test_rectangles_by_hand() -> None:
    size = (100, 200)
    assert split_rectangles([(40, 120)], size) == [
        (0, 0, 50, 130), (0, 110, 50, 200), (30, 0, 100, 130), (30, 110, 100, 200),
    ]  # fmt: skip
    assert split_rectangles([(40, 120), (60, 30)], size) == [
        (0, 0, 80, 140), (0, 10, 80, 200), (20, 0, 100, 140), (20, 10, 100, 200),
    ]  # fmt: skip
    assert [(cut.top, cut.left) for cut in split_rectangles([(3, 5)], size)] == [(0, 0)] * 4
    assert split_rectangles([(40.99, 120.99)], size) == split_rectangles([(40, 120)], size)
    with pytest.raises(ValueError, match="without a class"):
        split_rectangles([], size)


centres_in = st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
sizes = st.tuples(st.integers(1, 90), st.integers(1, 90))


@given(sizes, st.lists(centres_in, min_size=1, max_size=4))
def test_cuts_lie_inside_the_image_and_cover_it(size: tuple[int, int], shares: list[tuple[float, float]]) -> None:
    centres = [(size[0] * y, size[1] * x) for y, x in shares]
    covered = np.zeros(size, bool)
    for cut in split_rectangles(centres, size):
        assert 0 <= cut.top < cut.bottom <= size[0]
        assert 0 <= cut.left < cut.right <= size[1]
        covered[cut.top : cut.bottom, cut.left : cut.right] = True
        if len(centres) > 1:  # what lies between the classes is in every cut
            for y, x in centres:
                assert cut.top <= int(y) < cut.bottom
                assert cut.left <= int(x) < cut.right
    assert covered.all()


def test_centres_of_mass_by_hand() -> None:
    maps = torch.zeros(4, 5, 7)
    maps[0, 1, 2], maps[0, 3, 2] = 1.0, 3.0
    maps[1] = 0.5
    maps[3, 0, 0] = float("nan")
    assert centres_of_mass(maps) == [(2.5, 2.0), (2.0, 3.0), (2.0, 3.0), (2.0, 3.0)]
    assert centres_of_mass(torch.zeros(1, 6, 8)) == [(3.0, 4.0)]


def test_uniting_takes_the_maximum_where_cuts_overlap_and_zero_outside() -> None:
    parts = [
        (Rectangle(0, 0, 1, 2), torch.tensor([[[0.2, 0.9]]])),
        (Rectangle(0, 1, 2, 3), torch.tensor([[[0.5, 0.3], [0.4, 0.1]]])),
    ]
    expected = torch.tensor([[[0.2, 0.9, 0.3], [0.0, 0.4, 0.1]]])
    torch.testing.assert_close(unite(parts, (2, 3)), expected, rtol=0, atol=0)
    with pytest.raises(ValueError, match="no maps"):
        unite([], (2, 3))


# -- erasing -----------------------------------------------------------------------------------------------------


def test_what_is_not_kept_takes_the_mean_colour_of_its_view() -> None:
    pair = torch.arange(24.0).reshape(1, 3, 2, 4)
    kept = torch.tensor([[True, False, True, True], [True, True, True, False]])
    (erased,) = erase([pair], kept)
    for channel in range(3):
        assert erased[0, channel][kept].tolist() == pair[0, channel][kept].tolist()
        assert erased[0, channel][~kept].tolist() == [float(pair[0, channel].mean())] * 2


def test_the_mirrored_view_is_erased_in_the_mirror() -> None:
    view = torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(0))
    kept = torch.ones(4, 6, dtype=torch.bool)
    kept[1, 0] = False
    pair = torch.stack([view, view.flip(-1)])
    (correct,), (reference,) = erase([pair], kept), erase([pair], kept, "reference")
    torch.testing.assert_close(correct[1], correct[0].flip(-1))
    torch.testing.assert_close(reference[0], correct[0], rtol=0, atol=0)
    assert (reference[1] != pair[1]).any(0).nonzero().tolist() == [[1, 0]]  # not mirrored


def test_the_reference_loses_at_a_small_scale_what_later_scales_then_lack() -> None:
    kept = torch.ones(4, 4, dtype=torch.bool)
    kept[1, 1] = False  # nearest takes even rows and columns at half the size
    views = [torch.rand(1, 1, side, side, generator=torch.Generator().manual_seed(side)) for side in (4, 2, 8)]
    changed = [
        [int((after != before).sum()) for before, after in zip(views, erase(views, kept, how), strict=True)]
        for how in ("correct", "reference")
    ]
    assert changed == [[1, 0, 4], [1, 0, 0]]


def planned(*raw: Tensor) -> tuple[Callable[[Sequence[Tensor]], Tensor], list[Tensor]]:
    """Maps in the order given, and what was asked for them."""
    waiting, seen = list(raw), []

    def maps_of(views: Sequence[Tensor]) -> Tensor:
        seen.append(views[0])
        return waiting.pop(0)

    return maps_of, seen


ROW = torch.zeros(1, 1, 10)


def peak_at(*columns: int, value: float = 4.0) -> Tensor:
    row = ROW.clone()
    row[..., list(columns)] = value
    return row


def test_rounds_end_when_little_is_erased() -> None:
    view = torch.arange(10.0).expand(1, 3, 1, 10)
    maps_of, seen = planned(peak_at(0, 1), peak_at(1, 5), peak_at(5))
    rounds = list(erasing_rounds([view], maps_of, Erasing(stop=0.1)))
    assert [int(one.keep_mask.sum()) for one in rounds] == [8, 7, 7]
    assert seen[2][0, 0, 0].tolist() == [4.5, 4.5, 2, 3, 4, 4.5, 6, 7, 8, 9]
    torch.testing.assert_close(merge_rounds(rounds), normalize_with_floor(peak_at(0, 1, 5)))


def test_a_first_round_that_erases_little_is_the_only_one() -> None:
    maps_of, seen = planned(peak_at(0))
    assert len(list(erasing_rounds([torch.zeros(1, 3, 1, 10)], maps_of, Erasing(stop=0.2)))) == 1
    assert len(seen) == 1


def test_a_known_first_map_is_not_made_again_and_rounds_are_bounded() -> None:
    maps_of, seen = planned(*(peak_at(column) for column in range(1, 9)))
    settings = Erasing(stop=0.05, max_rounds=3)
    rounds = list(erasing_rounds([torch.zeros(1, 3, 1, 10)], maps_of, settings, first=peak_at(0)))
    assert len(rounds) == 3
    assert len(seen) == 2


def test_what_one_class_has_found_is_erased_for_all_and_stays_erased() -> None:
    two = torch.cat([peak_at(0), peak_at(9)])
    maps_of, _ = planned(two, torch.cat([peak_at(4), ROW]))
    rounds = list(erasing_rounds([torch.zeros(1, 3, 1, 10)], maps_of, Erasing(stop=0.11, max_rounds=2)))
    assert (~rounds[0].keep_mask).nonzero().tolist() == [[0, 0], [0, 9]]
    assert (~rounds[1].keep_mask).nonzero().tolist() == [[0, 0], [0, 4], [0, 9]]
    assert not rounds[1].maps[1].any()  # 0 / (0 + 1e-5)


def test_a_sum_of_rounds_is_stretched_to_one_but_not_above_what_a_guard_allows() -> None:
    maps_of, _ = planned(peak_at(0), peak_at(0, 1), peak_at(2))
    rounds = list(erasing_rounds([torch.zeros(1, 3, 1, 10)], maps_of, Erasing(stop=0, max_rounds=3)))
    found = merge_rounds(rounds, "sum")[0, 0, :3]
    torch.testing.assert_close(found, torch.tensor([1.0, 0.5, 0.5]), rtol=0, atol=1e-5)
    maps_of, _ = planned(peak_at(0), peak_at(0, 1))
    rounds = list(erasing_rounds([torch.zeros(1, 3, 1, 10)], maps_of, Erasing(stop=0, max_rounds=2), floor=16.0))
    torch.testing.assert_close(merge_rounds(rounds, "sum")[0, 0, :2], torch.tensor([0.5, 0.25]), rtol=0, atol=1e-5)


@given(st.integers(0, 99), st.floats(0, 50))
def test_a_floor_only_ever_lowers_maps(seed: int, floor: float) -> None:
    raw = 9 * torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(seed))
    floors = torch.tensor([0.0, floor])
    found, free = normalize_with_floor(raw, floors), normalize_maps(raw)
    torch.testing.assert_close(found[0], free[0])
    assert (found <= free + 1e-6).all()
    if floor > float(raw[1].max()):
        torch.testing.assert_close(found[1], raw[1] / (floor + 1e-5))


# -- the driver --------------------------------------------------------------------------------------------------

ONE_SCALE = Views((1.0,))
RED, GREEN, BLUE = 0, 1, 2


def maps_by_hand(
    image: np.ndarray[Any, np.dtype[np.uint8]], channels: list[int], views: Views = ONE_SCALE, **settings: Any
) -> Tensor:
    return ClassConditional(**settings).full_maps(Trained(ColourNet()), image, torch.tensor(channels), views).maps


def test_without_split_and_iteration_it_is_the_seed() -> None:
    image, views = picture((20, 20, RED), (40, 60, GREEN)), Views((1.0, 1.5))
    pairs = [pair.clamp(min=0) for pair in views.of(image)]
    sums = [pair[:1, :2] + pair[1:, :2].flip(-1) for pair in pairs]
    expected = torch.cat([functional.interpolate(one, size=(60, 80), mode="bilinear") for one in sums]).sum(0)
    found = maps_by_hand(image, [RED, GREEN], views, split=False, iterate=False)
    torch.testing.assert_close(found, normalize_maps(expected), rtol=1e-4, atol=1e-5)


def bright_and_faint() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A dot in one corner, and in the corner across one with a quarter of its response."""
    image = picture((15, 15, RED), size=(150, 180))
    image[128:133, 158:163, RED] = round(255 * (0.485 + 0.25 * (1 - 0.485)))
    return image


def test_each_cut_is_stretched_for_itself() -> None:
    """A faint dot far from the centre is as good as a bright one where the cut holds no other."""
    image = bright_and_faint()
    plain = maps_by_hand(image, [RED], split=False, iterate=False)[0]
    cut = maps_by_hand(image, [RED], iterate=False)[0]
    assert float(plain[130, 160]) == pytest.approx(0.25, abs=0.02)
    assert float(cut[130, 160]) > 0.99


@pytest.mark.parametrize(("guard", "expected"), [(0.0, 1.0), (0.5, 0.5), (1.0, 0.25)])
def test_a_guard_keeps_faint_cuts_faint(guard: float, expected: float) -> None:
    found = maps_by_hand(bright_and_faint(), [RED], iterate=False, guard=guard)[0]
    assert float(found[15, 15]) == pytest.approx(1, abs=1e-3)
    assert float(found[130, 160]) == pytest.approx(expected, abs=0.02)


def test_the_whole_image_is_part_of_the_union_only_if_asked_for() -> None:
    # The mean of the two dots lies between them; the map of the whole image reaches 1 in one of them only.
    image = picture((15, 15, RED), (15, 65, RED))
    image[13:18, 63:68, RED] = 200
    free = maps_by_hand(image, [RED], iterate=False, guard=1.0)
    both = maps_by_hand(image, [RED], iterate=False, guard=1.0, include_whole=True)
    plain = maps_by_hand(image, [RED], split=False, iterate=False)
    assert (both >= free).all()
    torch.testing.assert_close(both, torch.maximum(free, plain))


def test_iterating_finds_what_is_fainter() -> None:
    image = picture((15, 15, RED), (15, 50, RED))
    image[13:18, 48:53, RED] = 160
    once = maps_by_hand(image, [RED], split=False, iterate=False)[0]
    twice = maps_by_hand(image, [RED], split=False, stop=0.001)[0]
    assert float(once[15, 50]) < 0.5
    assert float(twice[15, 50]) > 0.99
    assert float(twice[15, 15]) > 0.99


def test_three_classes_are_split_only_where_asked_for() -> None:
    image = picture((15, 15, RED), (15, 65, GREEN), (45, 40, BLUE))
    image[50:55, 70:75, RED] = 150
    whole = maps_by_hand(image, [RED, GREEN, BLUE], iterate=False)
    torch.testing.assert_close(whole, maps_by_hand(image, [RED, GREEN, BLUE], split=False, iterate=False))
    each = maps_by_hand(image, [RED, GREEN, BLUE], iterate=False, many_classes="per_class")
    for channel in (RED, GREEN, BLUE):
        torch.testing.assert_close(each[channel], maps_by_hand(image, [channel], iterate=False)[0])


def test_the_whole_image_is_looked_at_once(golden: Golden) -> None:
    stored = golden("infercam_3class")
    trained, classes, views = parts_of(stored)
    for settings, expected in (
        ({"iterate": False}, 4),
        ({"split": False, "iterate": False}, 4),
        (RELEASED, 4 * 5),
    ):
        trained.classifier.asked = 0
        ClassConditional(**settings).full_maps(trained, stored["image_uint8"], classes, views)
        assert trained.classifier.asked == expected


def test_without_cuts_the_mirrored_image_gives_the_mirrored_maps() -> None:
    image = picture((20, 10, RED), (40, 60, GREEN), (30, 33, RED))
    image[28:33, 31:36, RED] = 180
    there = maps_by_hand(image, [RED, GREEN], split=False, stop=0.001)
    back = maps_by_hand(np.ascontiguousarray(image[:, ::-1]), [RED, GREEN], split=False, stop=0.001)
    torch.testing.assert_close(there, back.flip(-1), rtol=0, atol=1e-5)


def test_a_class_without_any_response_is_cut_in_the_middle_and_stays_zero() -> None:
    found = maps_by_hand(picture((15, 15, RED)), [RED, BLUE])
    assert float(found[0].max()) > 0.99
    assert not found[1].any()


def test_only_view_methods_can_be_driven() -> None:
    assert ClassConditional(inner="ssa").inner.name == "ssa"
    with pytest.raises(ValidationError, match=r"works on a view method.*'advcam' is not one"):
        ClassConditional(inner="advcam")


def test_a_missing_centre_is_noted_and_kept_with_the_maps(tmp_path: Path) -> None:
    settings = LocalizeSettings(method=ClassConditional(), scales=(1.0,))
    found = activation_maps(ColourNet(), picture((15, 15, RED)), (1, 3), settings)
    assert found.peak.tolist() == [pytest.approx(1, abs=1e-3), 0]
    ((label, text),) = found.notes
    assert label == 3
    assert "zero everywhere" in text
    workspace = Workspace(tmp_path)
    workspace.save_maps("a", found)
    assert workspace.load_maps("a").notes == found.notes
    peaks, notes = workspace.peaks_and_notes("a")
    assert peaks[3] == 0
    assert notes == found.notes
    unsplit = LocalizeSettings(method=ClassConditional(split=False), scales=(1.0,))
    assert activation_maps(ColourNet(), picture((15, 15, RED)), (1, 3), unsplit).notes == ()


def test_economy_takes_centres_and_later_rounds_from_the_first_scale(golden: Golden) -> None:
    stored = golden("infercam_1class")
    trained, classes, views = parts_of(stored)
    image = stored["image_uint8"]

    def made(views: Views = views, **settings: Any) -> tuple[Tensor, int]:
        trained.classifier.asked = 0
        return ClassConditional(**settings).full_maps(trained, image, classes, views).maps, trained.classifier.asked

    assert made(economy=True, iterate=False)[1] == 1 + 4 * 4
    assert made(economy=True, max_rounds=2)[1] == 1 + 4 * (4 + 1)
    assert made(max_rounds=2)[1] == 4 + 4 * (4 + 4)
    assert made(economy=True, split=False, max_rounds=3)[1] == 4 + 2
    assert made(economy=True, guard=0.5, iterate=False)[1] == 4 + 4 * 4
    one = Views((1.0,))
    torch.testing.assert_close(made(one, economy=True)[0], made(one)[0], rtol=0, atol=0)


def test_centres_and_later_rounds_see_the_views_that_are_named(golden: Golden) -> None:
    stored = golden("infercam_1class")
    trained, classes, views = parts_of(stored)
    image = stored["image_uint8"]
    seen: list[tuple[int, ...]] = []
    trained.classifier.register_forward_pre_hook(lambda module, given: seen.append(tuple(given[0].shape)))

    def made(**settings: Any) -> Tensor:
        seen.clear()
        return ClassConditional(**settings).full_maps(trained, image, classes, views).maps

    height, width = image.shape[:2]
    plain = made(max_rounds=2)
    # A scale of their own, which the maps do not have.
    made(centre_scales=[0.25], iterate=False)
    assert seen[0] == (2, 3, round(height / 4), round(width / 4))
    assert len(seen) == 1 + 4 * 4
    made(later_scales=[1.0], later_flip=False, max_rounds=2)
    assert len(seen) == 4 + 4 * (4 + 1)
    assert [shape[0] for shape in seen] == [2] * 4 + ([2] * 4 + [1]) * 4
    # Those that the maps have are the default, and one scale for both is economy.
    assert torch.equal(made(centre_scales=views.scales, later_scales=views.scales, max_rounds=2), plain)
    for guard in (0.0, 0.5):
        one = made(centre_scales=views.scales[:1], later_scales=views.scales[:1], guard=guard)
        assert torch.equal(one, made(economy=True, guard=guard))


def test_a_floor_of_later_rounds_is_that_of_their_views() -> None:
    """Without the mirror a later round's sums are half as high, and so is what they must reach."""
    image = picture((15, 15, RED), (15, 50, RED))
    image[13:18, 48:53, RED] = round(255 * (0.485 + 0.25 * (1 - 0.485)))
    settings: dict[str, Any] = {"split": False, "stop": 0.001, "later_flip": False}
    found = maps_by_hand(image, [RED], Views((1.0,)), guard=1.0, **settings)[0]
    assert float(found[15, 50]) == pytest.approx(0.25, abs=0.01)
    assert float(maps_by_hand(image, [RED], Views((1.0,)), **settings)[0][15, 50]) > 0.99


def test_a_guard_in_economy_compares_the_same_scale() -> None:
    """Of the faint dot, a later round sees one scale of two: its floor must be that scale's, not the sum's."""
    image = picture((15, 15, RED), (15, 50, RED))
    image[13:18, 48:53, RED] = round(255 * (0.485 + 0.25 * (1 - 0.485)))
    settings: dict[str, Any] = {"split": False, "economy": True, "stop": 0.001}
    found = maps_by_hand(image, [RED], Views((1.0, 1.0)), guard=1.0, **settings)[0]
    assert float(found[15, 50]) == pytest.approx(0.25, abs=0.01)
    assert float(maps_by_hand(image, [RED], Views((1.0, 1.0)), **settings)[0][15, 50]) > 0.99
