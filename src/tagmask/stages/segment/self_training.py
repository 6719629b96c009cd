"""A round of self-training: label the training images with the network before, kept to their tags.

Idea: Lee, "Pseudo-Label", ICML workshop 2013, with what weak supervision knows besides: classes outside an image's tags
cannot win. A dense CRF on the remaining probabilities draws the outlines; where the network itself was not for the
label, or nearly undecided, pixels can be ignored (the CRF's own probabilities are sure of everything).
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from tagmask.engine.image_loop import process_images
from tagmask.models.enlarging import enlarged_labels
from tagmask.models.labels_within_tags import labels_within_tags
from tagmask.models.probabilities import predict_probabilities
from tagmask.models.tag_gate import Segmenter
from tagmask.runs.context import Context
from tagmask.settings.segment import SegmentSettings
from tagmask.storage.pictures import save_grey, save_mask
from tagmask.types import Problem, Sample


def relabel(
    context: Context, settings: SegmentSettings, load: Callable[[], Segmenter], samples: list[Sample], stage: str
) -> list[Problem]:
    """Write masks and margins of a round for the training images; returns those that could not be read.

    ``load`` gives the network before; it is called when there is something left to do.
    """
    workspace, engine = context.workspace, context.engine

    def done(sample: Sample) -> bool:
        margins = workspace.grey_path(sample.id, stage, "margins")
        return margins.exists() and workspace.mask_path(sample.id, stage).exists()

    model = None if all(done(sample) for sample in samples) else load()
    loader = context.loader(f"{stage} (training)")

    def work(sample: Sample) -> Problem | None:
        image = loader.load(sample)
        if isinstance(image, Problem):
            return image
        assert model is not None
        with engine.autocast():
            probabilities = predict_probabilities(
                model,
                image,
                scales=settings.scales,
                flip=settings.flip,
                device=engine.device,
                statistics=model.input_statistics,
            )
        labels, margin = labels_within_tags(
            image, probabilities, sample.tags, crf=settings.relabel.crf, ignore=settings.relabel.ignore
        )
        # Margins first: a mask says that its image is done.
        save_grey(workspace.grey_path(sample.id, stage, "margins"), margin.numpy())
        save_mask(workspace.mask_path(sample.id, stage), enlarged_labels(labels, loader.full_size(sample, image)))
        return None

    with torch.no_grad():
        problems = process_images(
            engine,
            samples,
            work,
            done=done,
            progress=context.progress,
            description="label the training images again",
        )
    engine.barrier()
    return problems
