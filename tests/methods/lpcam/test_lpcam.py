"""LPCAM: the published maps, the one vector against the loop over prototypes, what is learnt, and every fallback."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from tagmask.contracts.learning import Candidates, Reservoir
from tagmask.contracts.localizer import Localizer, Trained, ViewLocalizer
from tagmask.functional import lpcam, merge_scales, normalize_maps, select_prototypes
from tagmask.methods.cam.localizer import Cam
from tagmask.methods.lpcam.localizer import Lpcam, cell_boxes, nearest_patches
from tagmask.methods.lpcam.prototypes import class_vector
from tagmask.ops.views import Views
from tagmask.storage.records import read_json, read_jsonl
from tagmask.types import ClassifierOutput

Golden = Callable[[str], Mapping[str, np.ndarray[Any, Any]]]
SCALES = ("1p0", "0p5", "1p5", "2p0")
NAMES = ("cow", "sheep", "boat")


def random(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def output_of(features: Tensor) -> ClassifierOutput:
    return ClassifierOutput(features=features, feature_taps={1: features}, logits=features.mean((2, 3)))


# -- the map ---------------------------------------------------------------------------------------------------


def test_reference_values() -> None:
    """A = relu(G / |G| . v), v of two prototypes and one of the context, computed independently in float64."""
    prototypes, around = torch.tensor([[4.0, 0], [2, 1]]), torch.tensor([[0.0, 3]])
    features = torch.tensor([[[1.0, 0, 1]], [[0, 1, 1]]])
    torch.testing.assert_close(
        lpcam(features, prototypes, around), torch.tensor([[0.947214, 0, 0.120788]]), rtol=0, atol=1e-6
    )
    without = lpcam(features, prototypes, torch.zeros(0, 2))
    torch.testing.assert_close(without, torch.tensor([[0.947214, 0.223607, 0.827895]]), rtol=0, atol=1e-6)


def published(stored: Mapping[str, np.ndarray[Any, Any]], index: int) -> tuple[Tensor, Tensor]:
    """Class and context prototypes of one class."""
    weights = torch.from_numpy(stored["classifier_weight"])
    inside, around = (torch.from_numpy(stored[f"{side}_centres"][index]) for side in ("foreground", "background"))
    return (
        select_prototypes(inside, weights, index, threshold=0.9, keep="above"),
        select_prototypes(around, weights, index, threshold=(0.05, 0.9), keep="between"),
    )


@pytest.mark.parametrize("context", [True, False])
def test_the_published_maps(golden: Golden, context: bool) -> None:
    stored = golden("lpcam")
    classes = stored["present_classes"].tolist() if context else [int(stored["no_context_class"])]
    names = ("expected_strided_cam", "expected_highres_cam")
    if not context:
        names = ("expected_no_context_strided", "expected_no_context_highres")
        assert len(published(stored, classes[0])[1]) == 0
    per_scale = []
    for scale in SCALES:
        pair = torch.from_numpy(stored[f"features_scale_{scale}"])
        per_scale.append(torch.stack([lpcam(pair[0] + pair[1].flip(-1), *published(stored, c)) for c in classes]))
    height, width = stored["image_size"].tolist()
    merged = merge_scales(per_scale, (height, width), normalize=False)
    for maps, name in zip(merged, names, strict=True):  # no epsilon here
        torch.testing.assert_close(normalize_maps(maps, eps=0), torch.from_numpy(stored[name]), rtol=0, atol=1e-5)


def test_the_localizer_makes_the_published_maps(golden: Golden) -> None:
    stored = golden("lpcam")
    classes = [*stored["present_classes"].tolist(), int(stored["no_context_class"])]
    vectors = torch.zeros(20, 16)
    for index in classes:
        vectors[index] = class_vector(*published(stored, index))
    trained = Trained(None, {"lpcam": {"vectors": vectors, "has_vector": torch.ones(20, dtype=torch.bool)}})
    pairs = [torch.from_numpy(stored[f"features_scale_{scale}"]) for scale in SCALES]
    per_scale = [Lpcam().scale_maps(trained, output_of(pair), torch.tensor(classes)) for pair in pairs]
    height, width = stored["image_size"].tolist()
    found = normalize_maps(merge_scales(per_scale, (height, width), normalize=False)[0], eps=0)
    expected = np.concatenate([stored["expected_strided_cam"], stored["expected_no_context_strided"]])
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=1e-5)


@given(st.integers(1, 6), st.integers(0, 6), st.integers(0, 99))
def test_one_vector_is_the_loop_over_prototypes(inside: int, around: int, seed: int) -> None:
    features, prototypes, context = random(seed, 5, 3, 4), random(seed + 1, inside, 5), random(seed + 2, around, 5)

    def mean_cosine(centres: Tensor) -> Tensor:
        each = [functional.cosine_similarity(features, centre[:, None, None], dim=0) for centre in centres]
        return torch.stack(each).mean(dim=0)

    expected = mean_cosine(prototypes)
    if around:
        expected = (expected - mean_cosine(context)).relu()
    torch.testing.assert_close(lpcam(features, prototypes, context), expected, rtol=1e-5, atol=1e-5)


def test_no_class_prototype_is_an_error() -> None:
    with pytest.raises(ValueError, match="without prototypes"):
        lpcam(torch.ones(2, 1, 1), torch.zeros(0, 2), torch.ones(1, 2))


def knowing(vectors: Tensor, has_vector: list[bool], weights: Tensor | None = None) -> Trained:
    classifier = SimpleNamespace(class_weights=vectors if weights is None else weights)
    return Trained(classifier, {"lpcam": {"vectors": vectors, "has_vector": torch.tensor(has_vector)}})


def test_features_of_the_pair_are_summed_before_the_similarity() -> None:
    """cos((3, 4) + (0, 0)) is 0.6 for the first channel; the mean of the two views' cosines would be 0.3."""
    pair = torch.zeros(2, 2, 1, 2)
    pair[0, :, 0, 0] = torch.tensor([3.0, 4.0])
    trained = knowing(torch.tensor([[1.0, 0.0]]), [True])
    both = Lpcam().view_maps(trained, output_of(pair), torch.tensor([0]))
    torch.testing.assert_close(both, torch.tensor([[[[0.6, 0.0]]], [[[0.0, 0.6]]]]))
    torch.testing.assert_close(
        Lpcam().scale_maps(trained, output_of(pair), torch.tensor([0]))[0, 0, 0], both[0, 0, 0, 0] * 2
    )
    alone = Lpcam().view_maps(trained, output_of(pair[:1]), torch.tensor([0]))
    torch.testing.assert_close(alone, both[:1])


class LargerOfFlips(Cam):
    """An inner localizer that merges flips by maximum, as VWE does."""

    name = "larger"
    flips = "max"


@pytest.mark.parametrize("inner", [Cam(), LargerOfFlips()])
@pytest.mark.parametrize("views", [1, 2])
def test_a_class_without_vector_keeps_the_maps_of_the_seed(inner: ViewLocalizer, views: int) -> None:
    weights, output = random(1, 3, 4) - 0.5, output_of(random(2, views, 4, 3, 5))
    vectors = random(0, 3, 4)
    trained, channels = knowing(vectors, [True, False, True], weights), torch.tensor([0, 1, 2])
    found = normalize_maps(Lpcam(inner=inner).scale_maps(trained, output, channels))
    plain = normalize_maps(inner.scale_maps(trained, output, channels))
    torch.testing.assert_close(found[1], plain[1], rtol=1e-4, atol=1e-5)
    every = normalize_maps(Lpcam().scale_maps(knowing(vectors, [True] * 3), output, channels))
    torch.testing.assert_close(found[[0, 2]], every[[0, 2]])
    assert not torch.allclose(found[0], plain[0], atol=1e-2)


def test_autocast_does_not_round_the_small_difference() -> None:
    trained, output = knowing(random(0, 2, 64) - 0.5, [True, True]), output_of(random(1, 2, 64, 4, 4))
    exact = Lpcam().view_maps(trained, output, torch.tensor([0, 1]))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(Lpcam().view_maps(trained, output, torch.tensor([0, 1])), exact)


# -- learning --------------------------------------------------------------------------------------------------


class Pixels(torch.nn.Module):
    """Features are the pixels' colours, four to one, shifted to be non-negative; a class is a colour."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.class_weights, self.dtype = 20 * torch.eye(3), dtype
        self.seen: list[tuple[int, ...]] = []

    def forward(self, views: Tensor) -> ClassifierOutput:
        self.seen.append(tuple(views.shape))
        features = functional.avg_pool2d(views, 4, ceil_mode=True).sub(-2.2).to(self.dtype)
        return output_of(features)


def picture(*colours: tuple[int, int, int], side: int = 16) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Vertical stripes of equal width."""
    return np.repeat(np.array([colours], np.uint8), side // len(colours), axis=1).repeat(side, axis=0)


RED, GREEN, GREY = (255, 0, 0), (0, 255, 0), (128, 128, 128)


def study(localizer: Localizer, *, views: Views, seed: int = 0, model: Pixels | None = None) -> dict[int, Candidates]:
    image = picture(RED, RED, GREY, GREY)
    rng = np.random.default_rng(seed)
    return localizer.study(Trained(model or Pixels()), image, torch.tensor([0, 1]), views, rng)


def test_an_image_offers_its_features_inside_and_outside_of_each_map() -> None:
    found = study(Lpcam(tau=0.8), views=Views((1.0,)))
    assert sorted(found) == [0, 1, 2, 3]
    red, around, green, red_side = (found[group] for group in range(4))
    assert len(red.keys) == len(around.keys) == 8  # two of four columns are red
    # Grey is greener than red, but nearest asks each cell at its upper left pixel, where the third is reddish.
    assert (len(green.keys), len(red_side.keys)) == (4, 12)
    assert (red.vectors[:, 0] > red.vectors[:, 1] + 2).all()
    assert all(box[1] < 8 and box[3] - box[1] == 4 and box[2] - box[0] == 4 for box in red.boxes.tolist())
    assert all(box[1] >= 8 for box in around.boxes.tolist())
    assert len({tuple(box) for box in red.boxes.tolist()}) == 8
    assert red.keys.dtype == torch.float64
    assert bool((red.keys[1:] > red.keys[:-1]).all())


def test_context_off_offers_none() -> None:
    assert sorted(study(Lpcam(tau=0.8, context=False), views=Views((1.0,)))) == [0, 2]


def test_features_are_those_of_scale_one_from_the_same_passes() -> None:
    model = Pixels()
    found = study(Lpcam(tau=0.0), views=Views((0.5, 1.0, 2.0)), model=model)
    assert [shape[0] for shape in model.seen] == [2, 2, 2]
    plain = study(Lpcam(tau=0.0), views=Views((1.0,)))
    assert {tuple(row) for row in found[0].vectors.tolist()} == {tuple(row) for row in plain[0].vectors.tolist()}
    model = Pixels()
    without = study(Lpcam(tau=0.0), views=Views((0.5,)), model=model)
    assert model.seen == [(2, 3, 8, 8), (1, 3, 16, 16)]  # scale 1 on top, without its mirror
    assert len(without[0].keys) == 16


def test_what_one_image_offers_is_bounded_and_the_same_sample() -> None:
    few, all_of_them = (study(Lpcam(tau=0.9, features_per_class=limit), views=Views((1.0,)))[0] for limit in (5, None))
    assert torch.equal(few.keys, all_of_them.keys[:5])
    assert torch.equal(few.vectors, all_of_them.vectors[:5])
    other = study(Lpcam(tau=0.9, features_per_class=5), views=Views((1.0,)), seed=1)[0]
    assert not torch.equal(few.keys, other.keys)


def test_features_keep_their_precision() -> None:
    found = study(Lpcam(tau=0.9), views=Views((1.0,)), model=Pixels(torch.bfloat16))
    assert found[0].vectors.dtype == torch.bfloat16  # half the memory, and nothing is lost


def test_the_mask_comes_from_the_seed() -> None:
    class Nothing(Cam):
        name = "nothing"

        def view_maps(self, trained: Trained, output: ClassifierOutput, channels: Tensor) -> Tensor:
            return super().view_maps(trained, output, channels) * 0

    assert sorted(study(Lpcam(inner=Nothing()), views=Views((1.0,)))) == [1, 3]


def test_all_images_with_tags_are_studied() -> None:
    assert Lpcam().choose([(1,), (), (1, 3), (2,)], 3) == [(0, (1,)), (2, (1, 3)), (3, (2,))]


def test_images_of_each_class_are_the_published_draw() -> None:
    tags = [(1,), (2,), (1, 2), (), (2,)]
    np.random.seed(666)
    drawn = [(np.random.choice([0, 2], 4), (1,)), (np.random.choice([1, 2, 4], 4), (2,))]
    expected = [(index, label) for indices, label in drawn for index in indices]  # studied for that class alone
    assert Lpcam(images_per_class=4).choose(tags, 3) == expected  # nobody has class 3


def offered(*groups: tuple[int, Tensor]) -> Reservoir:
    reservoir = Reservoir(100)
    for image, (group, vectors) in enumerate(groups):
        keys, boxes = torch.arange(len(vectors)).double(), torch.zeros(len(vectors), 4, dtype=torch.int64)
        reservoir.add(image, {group: Candidates(keys, vectors, boxes)})
    return reservoir


WEIGHTS = torch.eye(3, 4)
SURE, HALF = torch.tensor([[6.0, 0, 0, 1]]), torch.tensor([[1.0, 1, 0, 3]])


def learn(sample: Reservoir, **settings: Any) -> tuple[Mapping[str, Tensor], dict[str, list[str]]]:
    trained = Trained(SimpleNamespace(class_weights=WEIGHTS))
    learnt = Lpcam(**{"clusters": 2, **settings}).learn(trained, sample, NAMES, 0)
    notes: dict[str, list[str]] = {}
    for name, said in learnt.notes:
        notes.setdefault(name, []).append(said)
    return learnt.tensors, notes


def test_vectors_are_made_of_the_prototypes_that_are_kept() -> None:
    inside = torch.cat([SURE.repeat(5, 1), torch.tensor([[0.0, 9, 0, 0]]).repeat(5, 1)])  # the second is a sheep
    around = torch.cat([HALF.repeat(5, 1), torch.tensor([[0.0, 0, 9, 0]]).repeat(5, 1)])  # the second a boat
    tensors, notes = learn(offered((0, inside), (1, around)))
    assert tensors["has_vector"].tolist() == [True, False, False]
    torch.testing.assert_close(tensors["class_prototypes"], SURE)
    torch.testing.assert_close(tensors["context_prototypes"], HALF)
    assert tensors["class_prototype_class"].tolist() == tensors["context_prototype_class"].tolist() == [0]
    assert tensors["class_prototype_score"][0] > 0.9
    torch.testing.assert_close(tensors["vectors"][0], class_vector(SURE, HALF))
    assert sorted(notes) == ["boat", "sheep"]  # nothing was offered for them


def test_a_class_without_features_keeps_the_seeds_maps() -> None:
    tensors, notes = learn(offered((1, HALF.repeat(4, 1))))
    assert not tensors["has_vector"].any()
    assert not tensors["vectors"].any()
    assert tensors["class_prototypes"].shape == (0, 4)
    assert notes["cow"] == [
        "cow has no prototypes, because none of its maps exceeds tau 0.1; its maps are those of cam"
    ]
    assert "no training image gave a feature" in notes["sheep"][0]


def test_without_a_sure_centre_the_best_is_taken() -> None:
    weak = torch.tensor([[1.0, 0, 0, 3]]).repeat(3, 1)
    weaker = torch.tensor([[0.0, 0.5, 0, 3]]).repeat(3, 1)
    tensors, notes = learn(offered((0, torch.cat([weak, weaker])), (1, HALF.repeat(4, 1))))
    torch.testing.assert_close(tensors["class_prototypes"], weak[:1])
    assert notes["cow"] == [
        "none of the 2 cluster centres of cow exceeds mu_class 0.9: the best one, 0.576, is its only prototype"
    ]


def test_fewer_features_than_clusters() -> None:
    tensors, notes = learn(offered((0, SURE), (1, HALF.repeat(2, 1))))
    assert len(tensors["class_prototypes"]) == 1
    assert notes["cow"] == ["cow has 1 class features, fewer than 2 clusters: one each"]


def test_without_context_in_the_bounds_nothing_is_subtracted() -> None:
    foreign = torch.tensor([[0.0, 0, 9, 0]]).repeat(4, 1)
    tensors, notes = learn(offered((0, SURE.repeat(4, 1)), (1, foreign)))
    torch.testing.assert_close(tensors["vectors"][0], class_vector(SURE, torch.zeros(0, 4)))
    assert "its maps subtract no context" in notes["cow"][0]
    off, quiet = learn(offered((0, SURE.repeat(4, 1))), context=False)
    assert torch.equal(off["vectors"], tensors["vectors"])
    assert "cow" not in quiet


def test_the_papers_score_keeps_another_centre() -> None:
    """Softmax over two centres of class 0: the larger one takes nearly all."""
    inside = torch.cat([SURE.repeat(5, 1), torch.tensor([[4.0, 4, 4, 0]]).repeat(5, 1)])
    over_centres = learn(offered((0, inside)), posterior="centres", mu_class=0.8)[0]
    torch.testing.assert_close(over_centres["class_prototypes"], SURE)
    torch.testing.assert_close(over_centres["class_prototype_score"], torch.tensor([0.880797]))


def test_learning_twice_is_the_same() -> None:
    sample = offered((0, random(0, 60, 4) * 6), (1, random(1, 60, 4)))
    one, other = learn(sample, clusters=5)[0], learn(sample, clusters=5)[0]
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_surest_prototypes_are_shown_by_their_nearest_patches_one_an_image() -> None:
    reservoir = Reservoir(100)
    for image in range(8):
        vectors = torch.stack([torch.tensor([1.0, 0.1 * image]), torch.tensor([0.0, 1.0])])
        boxes = torch.tensor([[0, 0, 8, 8], [8, 8, 16, 16]])
        reservoir.add(image, {0: Candidates(torch.rand(2).double(), vectors, boxes)})
    prototypes = torch.tensor([[0.0, 3.0], [5.0, 0.0]])
    groups = nearest_patches("cow: class prototype", reservoir.group(0), prototypes, torch.tensor([0.91, 0.99]))
    assert [group.title for group in groups] == [
        "cow: class prototype 1 of 2, posterior 0.99",
        "cow: class prototype 2 of 2, posterior 0.91",
    ]
    assert groups[0].patches == tuple((image, (0, 0, 8, 8)) for image in range(6))
    assert {box for _, box in groups[1].patches} == {(8, 8, 16, 16)}
    assert len({image for image, _ in groups[1].patches}) == 6


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 70), st.integers(1, 70))
def test_cells_tile_the_image(rows: int, columns: int, height: int, width: int) -> None:
    boxes = cell_boxes(torch.arange(rows * columns), (rows, columns), (height, width)).tolist()
    assert all(0 <= y0 < y1 <= height and 0 <= x0 < x1 <= width for y0, x0, y1, x1 in boxes)
    covered = np.zeros((height, width), bool)
    for y0, x0, y1, x1 in boxes:
        covered[y0:y1, x0:x1] = True
    assert covered.all()


# -- settings and the stage ------------------------------------------------------------------------------------


class Driver(Localizer):
    """No view method."""

    name = "driver"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"inner": Driver()}, "view method"),
        ({"inner": "lpcam"}, "another lpcam"),
        ({"context_low": 0.9, "mu_context": 0.5}, "must be below mu_context"),
        ({"clusters": 0}, "greater than or equal to 1"),
        ({"tau": 1.5}, "less than or equal to 1"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Lpcam(**settings)


def test_a_run_keeps_the_prototypes_names_its_fallbacks_and_shows_patches(tiny: dict[str, Any], tmp_path: Path) -> None:
    from tagmask.pipeline.execute import run

    tiny["localize"] = {"name": "lpcam", "clusters": 3, "scales": [1.0, 0.5]}
    tiny["segment"] = None
    done = run(tiny, output=tmp_path / "run").path
    tensors, shown = load_file(done / "localize/lpcam.safetensors"), read_json(done / "localize/lpcam.json")
    assert bool(tensors["has_vector"].any())
    assert len(tensors["vectors"]) == len(tensors["has_vector"])
    assert shown["groups"]
    assert all(set(patch) == {"id", "box"} for group in shown["groups"] for patch in group["patches"])
    problems = [line["reason"] for line in read_jsonl(done / "problems.jsonl") if line["stage"] == "localize"]
    assert {reason for _, reason in shown["notes"]} <= set(problems)
    assert shown["notes"]  # twelve images do not make every centre sure
    assert "What was learnt" in (done / "report.html").read_text(encoding="utf-8")
