"""Cuts of the training images by split & unite, as training images.

Sun, Zhang, Barnes, "Inferring the Class Conditional Response Map for Weakly Supervised Semantic Segmentation", WACV
2022, Table 4. The classifier trained before says where each image is cut; the training then sees, in each epoch, the
whole image or one of its cuts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from tagmask.contracts.localizer import Trained
from tagmask.contracts.preparation import Preparation, Supplement
from tagmask.methods.cam.localizer import Cam
from tagmask.methods.class_conditional.localizer import full_size_maps
from tagmask.methods.class_conditional.split_unite import (
    Rectangle,
    centres_of_mass,
    split_rectangles,
    whole_or_cut,
)
from tagmask.ops.views import Views
from tagmask.types import Problem, Sample, UInt8Array

_SCALES = (1.0,)


class SplitUnite(Preparation):
    """Four cuts of every training image, where plain CAM (scale 1 and mirror) of the classifier has its centres.

    Images without tags, and those that cannot be read (the training lists them), have no cuts.
    """

    makes: ClassVar[str] = "cuts"
    file: ClassVar[str] = "rectangles.json"
    title: ClassVar[str] = "split & unite: cuts of the training images"
    untagged: ClassVar[bool] = False

    def observe(
        self, trained: Trained, sample: Sample, image: UInt8Array, class_names: Sequence[str]
    ) -> tuple[list[Rectangle], str]:
        """Cuts of one image, and a note if a class had no centre. See :meth:`Preparation.observe`."""
        size = image.shape[0], image.shape[1]
        channels = torch.tensor([label - 1 for label in sample.tags], dtype=torch.int64, device=trained.device)
        # Plain CAM at one scale: centres of mass hardly move with better maps, and this is done for every training
        # image.
        views = Views(_SCALES, flip=True, statistics=trained.input_statistics)
        maps = full_size_maps(trained, Cam(), views.of(image), channels, size)
        silent = [class_names[label - 1] for label, row in zip(sample.tags, maps, strict=True) if not row.any()]
        note = (
            f"{sample.image_path}: {', '.join(silent)}: the map is zero everywhere; its centre is taken as the middle"
        )
        return split_rectangles(centres_of_mass(maps), size), note if silent else ""

    def conclude(
        self, samples: Sequence[Sample], observations: Mapping[str, Any], class_names: Sequence[str], seed: int
    ) -> dict[str, Any]:
        """(top, left, bottom, right) of every image's cuts. See :meth:`Preparation.conclude`."""
        del class_names, seed
        images = {sample.id: observations[sample.id][0] for sample in samples}
        notes = [[sample.id, str(sample.image_path), observations[sample.id][1]] for sample in samples]
        return {"images": images, "notes": [note for note in notes if note[2]]}

    def supplement(
        self, record: Mapping[str, Any], samples: Sequence[Sample], class_names: Sequence[str], stage: str
    ) -> Supplement:
        """Nothing for the loss; the images that were cut in the middle, as a class's map is zero everywhere."""
        del samples, class_names
        notes = record["notes"]
        return Supplement(problems=tuple(Problem(stage, name, path, why, left_out=False) for name, path, why in notes))

    def view(
        self, record: Mapping[str, Any], sample: Sample, image: UInt8Array, rng: np.random.Generator
    ) -> UInt8Array:
        """The whole image or one of its cuts, each with the same probability."""
        return whole_or_cut(image, [Rectangle(*cut) for cut in record["images"].get(sample.id, ())], rng)
