"""A round of self-training: label the training images with the network before, kept to their tags.

Idea: Lee, "Pseudo-Label", ICML workshop 2013, with what weak supervision knows besides: classes outside an image's tags
cannot win. A dense CRF on the remaining probabilities draws the outlines; where the network itself was not for the
label, or nearly undecided, pixels can be ignored (the CRF's own probabilities are sure of everything).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from tagmask.data.loading import ImageLoader
from tagmask.engine.image_loop import process_images
from tagmask.methods.dense_crf.refiner import PRESETS, dense_crf
from tagmask.models.probabilities import constrain_to_tags, predict_probabilities
from tagmask.ops.confidence import margin_of
from tagmask.runs.context import Context
from tagmask.settings.segment import SegmentSettings
from tagmask.storage.pictures import save_grey, save_mask
from tagmask.types import BACKGROUND, IGNORE_INDEX, Problem, Sample, UInt8Array


def labels_within_tags(
    image: UInt8Array, probabilities: Tensor, tags: Sequence[int], *, crf: str | None = "deeplab", ignore: float = 0.0
) -> tuple[UInt8Array, Tensor]:
    """The label of an image's pixels when its tags are known, and by how much it won.

    Args:
        image: uint8 [H, W, 3] RGB.
        probabilities: [C + 1, H, W] of a segmentation network.
        tags: labels 1..C of the image.
        crf: kernels of a dense CRF (its ``PRESETS``) over the background and the tags; None:
            no CRF.
        ignore: pixels whose margin is smaller become 255.

    Returns:
        uint8 [H, W]: 0, labels of ``tags``, 255; and float32 [H, W] in [0, 1], the margin: 1 - highest other / own
        probability within the tags, before the CRF; 0 where the CRF overruled the network.
    """
    allowed = [BACKGROUND, *sorted(tags)]
    kept = constrain_to_tags(probabilities, tags)[allowed]
    drawn = kept
    if crf is not None and len(allowed) > 1:
        drawn = dense_crf(image, kept, **PRESETS[crf])  # type: ignore[arg-type]
    chosen = drawn.argmax(0)
    # Of the network's own probabilities: after ten rounds of a CRF nearly every pixel is sure.
    margin = margin_of(kept, chosen)
    labels: UInt8Array = np.asarray(allowed, np.uint8)[chosen.numpy()]
    labels[(margin < ignore).numpy()] = IGNORE_INDEX
    return labels, margin


def relabel(
    context: Context, settings: SegmentSettings, load: Callable[[], nn.Module], samples: list[Sample], stage: str
) -> list[Problem]:
    """Write masks and margins of a round for the training images; returns those that could not be read.

    ``load`` gives the network before; it is called when there is something left to do.
    """
    workspace, engine = context.workspace, context.engine

    def done(sample: Sample) -> bool:
        margins = workspace.grey_path(sample.id, stage, "margins")
        return margins.exists() and workspace.mask_path(sample.id, stage).exists()

    model = nn.Identity() if all(done(sample) for sample in samples) else load()
    loader = ImageLoader(f"{stage} (training)", max_pixels=context.source.max_pixels, cache_bytes=0)

    def work(sample: Sample) -> Problem | None:
        image = loader.load(sample)
        if isinstance(image, Problem):
            return image
        with engine.autocast():
            probabilities = predict_probabilities(
                model, image, scales=settings.scales, flip=settings.flip, device=engine.device
            )
        labels, margin = labels_within_tags(
            image, probabilities, sample.tags, crf=settings.relabel.crf, ignore=settings.relabel.ignore
        )
        # Margins first: a mask says that its image is done.
        save_grey(workspace.grey_path(sample.id, stage, "margins"), margin.numpy())
        save_mask(workspace.mask_path(sample.id, stage), labels)
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
