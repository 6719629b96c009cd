"""Maps of a classifier with visual words. Ru, Du, Wu, "Learning Visual Words for Weakly-Supervised Semantic
Segmentation", IJCAI 2021, section 3.4; docs/methods/visual-words.md.

Two branches: the image branch is CAM; the word branch asks which word a position is, and which classes the word speaks
for. The published code uses the image branch alone and keeps the larger value of image and mirror.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from tagmask.contracts.learning import Candidates, Learnt, PatchGroup, Reservoir
from tagmask.contracts.localizer import Choice, Trained, ViewLocalizer
from tagmask.methods.cam.localizer import cam
from tagmask.methods.visual_words.head import word_similarity
from tagmask.ops.views import Flips, Views, merge_flips, normalize_maps
from tagmask.types import ClassifierOutput, UInt8Array

_WORDS_SHOWN, _PATCHES_SHOWN = 24, 8


def word_branch(assignment: Tensor, word_weights: Tensor) -> Tensor:
    """Rectified class responses of the words at every position, not normalised (paper Eq. 12).

    Args:
        assignment: [B, K, h, w] soft assignment of the positions to K words.
        word_weights: [C, K] float.

    Returns:
        float32 [B, C, h, w], >= 0.
    """
    with torch.autocast(assignment.device.type, enabled=False):  # a small difference of many nearly equal terms
        return cam(assignment.float(), word_weights.float())


class VisualWords(ViewLocalizer):
    """Settings of the localizer; ``images`` is how many training images are studied for the report's picture."""

    name: ClassVar[str] = "visual_words"
    requires: ClassVar[frozenset[str]] = frozenset({"codebook", "word_weights"})
    learns: ClassVar[bool] = True
    grid: ClassVar[int] = 1  # as published: full-size maps are stretched over the image
    branches: Literal["image", "both", "both_normalised", "word"] = "image"
    word_scale: Annotated[float, Field(gt=0)] | None = None
    flip_merge: Flips = "max"
    images: Annotated[int, Field(ge=0)] = 100

    def view_maps(self, trained: Trained, output: ClassifierOutput, channels: Tensor) -> Tensor:
        """See :meth:`ViewLocalizer.view_maps`; the larger branch counts, per view."""
        features = output.features.float()
        if self.branches == "word":
            return self._word_maps(trained, features, channels)
        image = cam(features, trained.classifier.class_weights.index_select(0, channels).float()).float()
        if self.branches == "image":
            return image
        words = self._word_maps(trained, features, channels)
        if self.branches == "both_normalised":
            image, words = normalize_maps(image), normalize_maps(words)
        return torch.maximum(image, words)

    def _word_maps(self, trained: Trained, features: Tensor, channels: Tensor) -> Tensor:
        part = trained.classifier.head.part_with("codebook")
        scale = part.word_scale if self.word_scale is None else self.word_scale
        return scale * word_branch(part.assignment(features), part.word_weights.index_select(0, channels))

    def scale_maps(self, trained: Trained, output: ClassifierOutput, channels: Tensor) -> Tensor:
        """See :meth:`ViewLocalizer.scale_maps`."""
        return merge_flips(self.view_maps(trained, output, channels), self.flip_merge)

    # -- what the words have learnt, for the report; maps do without it. A group is a word. ----------------------

    def choose(self, tags: Sequence[tuple[int, ...]], n_classes: int, order: Sequence[int] = ()) -> list[Choice]:
        """``images`` of the training images, evenly spaced."""
        count = min(self.images, len(tags))
        indices = [index * len(tags) // count for index in range(count)]
        return [(index, tags[index]) for index in indices]

    def reservoir(self) -> Reservoir:
        """Room for every image: each offers a word at most one position."""
        return Reservoir(max(1, self.images))

    def study(
        self, trained: Trained, image: UInt8Array, channels: Tensor, views: Views, rng: np.random.Generator
    ) -> dict[int, Candidates]:
        """Of each word that occurs, the position most like it. The key is minus the cosine, the vector [1 + C] the
        share of the image's positions that the word has, and the image's tags."""
        part = trained.classifier.head.part_with("codebook")
        features = trained.look(views.at(image, 1.0, flip=False)).features
        similarity = word_similarity(features, part.codebook)[0].cpu()
        size = (similarity.shape[1], similarity.shape[2])
        similarity = similarity.flatten(1)
        best, word = similarity.max(dim=0)
        tags = torch.zeros(part.word_weights.shape[0])
        tags[channels.cpu()] = 1.0
        candidates = {}
        for number in sorted(set(word.tolist())):
            own = word == number
            place = int(torch.where(own, best, -2.0).argmax())
            candidates[number] = Candidates(
                keys=-best[place : place + 1].double(),
                vectors=torch.cat([own.float().mean()[None], tags])[None],
                boxes=patch_box(divmod(place, size[1]), size, (image.shape[0], image.shape[1]))[None],
            )
        return candidates

    def learn(self, trained: Trained, sample: Reservoir, class_names: Sequence[str], seed: int) -> Learnt:
        """How often each word occurs and with which tags; the words that say most about the tags, with patches."""
        part = trained.classifier.head.part_with("codebook")
        n_words, n_classes = part.codebook.shape[0], part.word_weights.shape[0]
        positions, tagged = torch.zeros(n_words), torch.zeros(n_words, n_classes)
        for number in sample.groups():
            members = sample.group(number)
            if members is not None:
                positions[number] = members.vectors[:, 0].sum()
                tagged[number] = members.vectors[:, :1].T @ members.vectors[:, 1:]
        share = positions / positions.sum().clamp(min=1e-12)
        tag_share = tagged / positions.clamp(min=1e-12)[:, None]
        information = word_information(tagged)
        order = sorted(sample.groups(), key=lambda number: (-float(information[number]), -float(share[number]), number))
        patch_groups = []
        for number in order[:_WORDS_SHOWN]:
            often, tag = tag_share[number].max(dim=0)
            title = f"word {number}: {share[number]:.1%} of the positions"
            if often > 0:
                title += f", {often:.0%} of them in images of {class_names[int(tag)]}"
            patch_groups.append(PatchGroup(title, _patches(sample, number)))
        return Learnt({"share": share, "tag_share": tag_share}, tuple(patch_groups))


def _patches(sample: Reservoir, number: int) -> tuple[tuple[int, tuple[int, int, int, int]], ...]:
    members = sample.group(number)
    if members is None:
        return ()
    boxes = [(int(y0), int(x0), int(y1), int(x1)) for y0, x0, y1, x1 in members.boxes[:_PATCHES_SHOWN].tolist()]
    return tuple(zip(members.images[:_PATCHES_SHOWN].tolist(), boxes, strict=True))


def word_information(tagged: Tensor) -> Tensor:
    """What each word contributes to the mutual information of words and tags, in nats.

    Words without a preference for a tag tell nothing, however frequent, and rare words little.

    Args:
        tagged: float [K, C], >= 0: how often word k and tag c occur together.

    Returns:
        float64 [K], >= 0; zeros if nothing occurs.
    """
    counts = tagged.double()
    joint = counts / counts.sum().clamp(min=1e-300)
    apart = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    return torch.where(joint > 0, joint * (joint / apart.clamp(min=1e-300)).log(), 0.0).sum(1).clamp(min=0)


def patch_box(cell: tuple[int, int], grid: tuple[int, int], image_size: tuple[int, int]) -> Tensor:
    """A square of the image around a feature position that shows what is there.

    Args:
        cell: (row, column) of the position.
        grid: (h, w) of the features, stretched over the image.
        image_size: (H, W).

    Returns:
        int64 [4]: (y0, x0, y1, x1) in pixels, half-open, inside the image; the side is a quarter of the image's
        shorter side, but at least a cell.
    """
    shorter = min(image_size)
    side = min(
        shorter, max(shorter // 4, *(-(-length // cells) for length, cells in zip(image_size, grid, strict=True)))
    )
    start = [
        min(max(0, int((index + 0.5) * length / cells - side / 2)), length - side)
        for index, cells, length in zip(cell, grid, image_size, strict=True)
    ]
    return torch.tensor([start[0], start[1], start[0] + side, start[1] + side])
