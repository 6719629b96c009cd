"""Maps of visual words against the published code and the paper's formulas; what the report shows of the words."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tagmask.contracts.localizer import Trained
from tagmask.errors import RecipeError
from tagmask.methods.visual_words.head import VisualWordsHead, visual_words
from tagmask.methods.visual_words.localizer import VisualWords, patch_box, word_branch, word_information
from tagmask.ops.views import Views, normalize_maps
from tagmask.settings.loading import load_recipe
from tagmask.storage.weights import load_tensors
from tagmask.types import ClassifierOutput

Golden = Callable[[str], Mapping[str, np.ndarray[Any, Any]]]
TOLERANCE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}
EVERY = torch.arange(5)


@pytest.fixture(scope="module")
def published(golden: Golden) -> dict[str, Tensor]:
    return {key: torch.from_numpy(np.asarray(value)) for key, value in golden("vwe").items()}


def trained(stored: Mapping[str, Tensor], **settings: Any) -> Trained:
    """A classifier with the golden's weights, whose backbone looks at nothing."""
    words, channels = stored["codebook"].shape
    head: Any = VisualWordsHead(words=words, **settings).build(channels, stored["labels"].shape[1])
    with torch.no_grad():
        head.codebook.copy_(stored["codebook"])
        head.inner.weight.weight.copy_(stored["image_classifier_weight"])
        head.word_to_image.weight.copy_(stored["word_to_image_weight"])
        head(stored["features"])  # tells the head how many positions it was trained with
    return Trained(SimpleNamespace(class_weights=head.class_weights, head=head.eval()))


def output_of(features: Tensor) -> ClassifierOutput:
    return ClassifierOutput(features=features, feature_taps={1: features}, logits=features.mean((2, 3)))


def maps_of(stored: Mapping[str, Tensor], localizer: VisualWords, **settings: Any) -> Tensor:
    with torch.inference_mode():
        return localizer.view_maps(trained(stored, **settings), output_of(stored["features"]), EVERY)


def test_the_image_branch_is_the_published_one(published: Mapping[str, Tensor]) -> None:
    torch.testing.assert_close(maps_of(published, VisualWords()), published["expected_cam_image_branch"], **TOLERANCE)


@pytest.mark.parametrize(
    ("localizer", "frequency"),
    [(VisualWords(branches="word"), "mean"), (VisualWords(branches="word", word_scale=1.0), "sum")],
)
def test_the_word_branch_is_the_paper_s(
    published: Mapping[str, Tensor], localizer: VisualWords, frequency: str
) -> None:
    found = maps_of(published, localizer, frequency=frequency)
    torch.testing.assert_close(found, published["paper_cam_word_branch"], **TOLERANCE)


def test_both_branches_are_the_paper_s(published: Mapping[str, Tensor]) -> None:
    found = maps_of(published, VisualWords(branches="both"), frequency="mean")
    torch.testing.assert_close(found, published["paper_cam_two_branch_max"], **TOLERANCE)


def test_summed_frequencies_are_scaled_by_the_positions_of_training(published: Mapping[str, Tensor]) -> None:
    image, words = published["expected_cam_image_branch"], published["paper_cam_word_branch"]
    found = maps_of(published, VisualWords(branches="both"), frequency="sum")
    torch.testing.assert_close(found, torch.maximum(image, 64 * words), **TOLERANCE)


def test_branches_of_equal_peak(published: Mapping[str, Tensor]) -> None:
    image, words = published["expected_cam_image_branch"], published["paper_cam_word_branch"]
    found = maps_of(published, VisualWords(branches="both_normalised"), frequency="mean")
    torch.testing.assert_close(found, torch.maximum(normalize_maps(image), normalize_maps(words)), **TOLERANCE)


def test_flips_are_merged_by_maximum_as_published(published: Mapping[str, Tensor]) -> None:
    """The golden's second image stands for the mirror of its first."""
    one, other = trained(published), output_of(published["features"])
    with torch.inference_mode():
        found = VisualWords().scale_maps(one, other, EVERY)
        summed = VisualWords(flip_merge="sum").scale_maps(one, other, EVERY)
    torch.testing.assert_close(found, published["expected_cam_flip_max"], **TOLERANCE)
    image = published["expected_cam_image_branch"]
    torch.testing.assert_close(summed, image[0] + image[1].flip(-1), **TOLERANCE)


def test_maps_of_the_classes_asked_for(published: Mapping[str, Tensor]) -> None:
    localizer, known = VisualWords(branches="both"), trained(published)
    with torch.inference_mode():
        some = localizer.view_maps(known, output_of(published["features"]), torch.tensor([3, 1]))
    torch.testing.assert_close(some, maps_of(published, localizer)[:, [3, 1]], **TOLERANCE)


def test_word_responses_average_to_the_logits_of_the_words(published: Mapping[str, Tensor]) -> None:
    assignment, _, frequency = visual_words(published["features"], published["codebook"])
    weights = published["word_to_image_weight"].flatten(1).abs()  # nothing to rectify
    torch.testing.assert_close(word_branch(assignment, weights).mean((2, 3)), frequency @ weights.T)


def test_a_classifier_without_words_is_refused_before_anything_runs(tiny: dict[str, Any]) -> None:
    tiny["localize"] = {"name": "visual_words"}
    with pytest.raises(RecipeError, match=r"visual_words needs a classifier whose head has codebook \(visual_words\)"):
        load_recipe(tiny)


# -- what the words have learnt ------------------------------------------------------------------------------------


@given(st.integers(0, 300), st.integers(0, 150))
def test_images_are_chosen_evenly(n_images: int, wanted: int) -> None:
    chosen = [index for index, _ in VisualWords(images=wanted).choose([()] * n_images, 3)]
    assert len(chosen) == len(set(chosen)) == min(wanted, n_images)
    assert chosen == sorted(chosen)
    assert all(0 <= index < n_images for index in chosen)
    gaps = {after - before for before, after in pairwise(chosen)}
    assert max(gaps, default=0) - min(gaps, default=0) <= 1


class Seen(SimpleNamespace):
    """A classifier whose features are those it was given, whatever the image."""

    def __call__(self, views: Tensor) -> ClassifierOutput:
        return output_of(self.features)


def words_along_axes() -> Seen:
    head: Any = VisualWordsHead(words=4).build(4, 3)
    with torch.no_grad():
        head.codebook.copy_(torch.eye(4))
    return Seen(head=head.eval(), class_weights=head.class_weights, features=torch.zeros(1, 4, 1, 4))


def offered(classifier: Seen, rows: list[list[float]], tags: tuple[int, ...]) -> Any:
    """Study an image of 8 x 32 whose four positions have these features."""
    classifier.features = torch.tensor(rows).T[None, :, None]
    image, rng = np.zeros((8, 32, 3), np.uint8), np.random.default_rng(0)
    channels = torch.tensor([tag - 1 for tag in tags], dtype=torch.int64)
    with torch.inference_mode():
        return VisualWords().study(Trained(classifier), image, channels, Views((1.0,)), rng)


FIRST, SECOND, ALMOST = [1.0, 0, 0, 0], [0, 1.0, 0, 0], [3.0, 1.0, 0, 0]


def test_each_word_is_offered_the_position_most_like_it() -> None:
    found = offered(words_along_axes(), [ALMOST, SECOND, FIRST, ALMOST], (2,))
    assert sorted(found) == [0, 1]
    assert found[0].keys.tolist() == pytest.approx([-1.0])
    assert found[0].boxes.tolist() == [[0, 16, 8, 24]]
    assert found[0].vectors.tolist() == [[0.75, 0, 1, 0]]
    assert found[1].boxes.tolist() == [[0, 8, 8, 16]]
    assert found[1].vectors.tolist() == [[0.25, 0, 1, 0]]


def test_words_are_shown_by_what_they_tell_about_the_tags() -> None:
    """Word 1 only with the first tag; word 0 with both; words 2 and 3 never."""
    localizer, classifier = VisualWords(), words_along_axes()
    sample = localizer.reservoir()
    sample.add(0, offered(classifier, [ALMOST, ALMOST, SECOND, SECOND], (1,)))
    sample.add(1, offered(classifier, [FIRST, FIRST, FIRST, FIRST], (2,)))
    sample.add(2, offered(classifier, [ALMOST, ALMOST, SECOND, SECOND], (1,)))
    sample.add(3, offered(classifier, [ALMOST, SECOND, SECOND, SECOND], ()))
    found = localizer.learn(Trained(classifier), sample, ["cow", "tree", "car"], 0)
    share, tag_share = found.tensors["share"], found.tensors["tag_share"]
    torch.testing.assert_close(share, torch.tensor([2.25, 1.75, 0, 0]) / 4)
    torch.testing.assert_close(tag_share[0], torch.tensor([1.0, 1.0, 0]) / 2.25)
    torch.testing.assert_close(tag_share[1], torch.tensor([1.0, 0, 0]) / 1.75)
    assert not tag_share[2:].any()
    assert [group.title for group in found.patch_groups] == [
        "word 1: 43.8% of the positions, 57% of them in images of cow",
        "word 0: 56.2% of the positions, 44% of them in images of cow",
    ]
    assert [image for image, _ in found.patch_groups[1].patches] == [1, 0, 2, 3]
    assert found.notes == ()


def test_nothing_studied_is_nothing_shown() -> None:
    localizer = VisualWords(images=0)
    assert localizer.choose([(1,), (2,)], 3) == []
    found = localizer.learn(Trained(words_along_axes()), localizer.reservoir(), ["a", "b", "c"], 0)
    assert found.patch_groups == ()
    assert not found.tensors["share"].any()
    assert not found.tensors["tag_share"].any()


def test_only_so_many_words_and_patches_are_shown() -> None:
    head: Any = VisualWordsHead(words=40).build(40, 3)
    with torch.no_grad():
        head.codebook.copy_(torch.eye(40))
    classifier = Seen(head=head, class_weights=head.class_weights, features=torch.eye(40).T[None, :, None])
    localizer, image = VisualWords(), np.zeros((40, 320, 3), np.uint8)
    sample = localizer.reservoir()
    for number in range(12):
        rng = np.random.default_rng(number)
        sample.add(number, localizer.study(Trained(classifier), image, torch.tensor([0]), Views((1.0,)), rng))
    found = localizer.learn(Trained(classifier), sample, ["a", "b", "c"], 0)
    assert [group.title.split(":")[0] for group in found.patch_groups] == [f"word {number}" for number in range(24)]
    assert all([number for number, _ in group.patches] == list(range(8)) for group in found.patch_groups)


def test_information_by_hand() -> None:
    """Two words that name two tags tell log 2 together; words without a preference tell nothing."""
    torch.testing.assert_close(word_information(torch.eye(2)), torch.full((2,), np.log(2) / 2).double())
    assert word_information(torch.ones(3, 4)).tolist() == pytest.approx([0, 0, 0], abs=1e-12)
    assert word_information(torch.zeros(2, 3)).tolist() == [0, 0]


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 99))
def test_information_is_never_negative_nor_more_than_there_is(words: int, classes: int, seed: int) -> None:
    tagged = torch.rand(words, classes, generator=torch.Generator().manual_seed(seed)) ** 4
    told = word_information(tagged)
    assert float(told.min()) >= 0
    assert float(told.sum()) <= np.log(min(words, classes)) + 1e-9


@given(st.data())
def test_boxes_lie_inside_the_image_around_their_cell(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 200)), data.draw(st.integers(1, 200))
    grid = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    cell = data.draw(st.integers(0, grid[0] - 1)), data.draw(st.integers(0, grid[1] - 1))
    y0, x0, y1, x1 = patch_box(cell, grid, (height, width)).tolist()
    assert 0 <= y0 < y1 <= height
    assert 0 <= x0 < x1 <= width
    assert y1 - y0 == x1 - x0 >= max(1, min(height, width) // 4)
    centre = (cell[0] + 0.5) * height / grid[0], (cell[1] + 0.5) * width / grid[1]
    assert y0 - 0.5 <= centre[0] <= y1 + 0.5 or y1 - y0 == min(height, width)
    assert x0 - 0.5 <= centre[1] <= x1 + 0.5 or x1 - x0 == min(height, width)


def test_a_run_learns_its_words(tiny: dict[str, Any], tmp_path: Path) -> None:
    """Through the stages: losses by name in the history, word groups for the report, maps that do not need them."""
    from tagmask.pipeline.execute import run

    tiny["classify"] |= {"head": {"name": "visual_words", "inner": "hspp", "words": 6}, "epochs": 1}
    tiny["localize"] = {"name": "visual_words", "branches": "both", "images": 5, "scales": [1.0]}
    folder = run(tiny, output=tmp_path / "run", until="localize").path
    first = json.loads((folder / "classify" / "history.jsonl").read_text().splitlines()[0])
    assert {"loss", "image", "word", "word_to_image"} <= set(first)
    assert first["loss"] == pytest.approx(first["image"] + first["word"] + first["word_to_image"], abs=1e-5)
    shown = json.loads((folder / "localize" / "visual_words.json").read_text())
    assert 1 <= len(shown["groups"]) <= 6
    assert all(1 <= len(group["patches"]) <= 5 for group in shown["groups"])
    learnt = load_tensors(folder / "localize" / "visual_words.safetensors")
    assert float(learnt["share"].sum()) == pytest.approx(1.0, abs=1e-5)
    stored = load_tensors(folder / "classify" / "model.safetensors")
    assert int(stored["head.positions"]) == 9  # 48 pixels at stride 16
    assert len(list((folder / "localize" / "maps").rglob("*.npz"))) == 16
