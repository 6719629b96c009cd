"""Cuts of the training images by split & unite, as training images (docs/methods/class-conditional.md).

Sun, Zhang, Barnes, "Inferring the Class Conditional Response Map for Weakly Supervised Semantic Segmentation", WACV
2022, Table 4. The classifier trained before says where each image is cut; the training then sees, in each epoch, the
whole image or one of its cuts.
"""

from __future__ import annotations

import torch

from tagmask.contracts.localizer import Trained
from tagmask.data.loading import ImageLoader
from tagmask.engine.image_loop import gather_images
from tagmask.methods.cam.localizer import Cam
from tagmask.methods.class_conditional.localizer import full_size_maps
from tagmask.methods.class_conditional.split_unite import Rectangle, centres_of_mass, split_rectangles
from tagmask.models.classifier import Classifier
from tagmask.ops.views import Views
from tagmask.runs.context import TRAIN, Context
from tagmask.storage.arrays import SCHEMA
from tagmask.storage.records import read_json, write_json
from tagmask.types import Problem, Sample

_VIEWS = Views((1.0,), flip=True)


def training_cuts(
    context: Context, stage: str, previous: Classifier
) -> tuple[dict[str, list[Rectangle]], list[Problem]]:
    """Four cuts of every training image, where plain CAM (scale 1 and mirror) of an earlier classifier has its centres.

    They are kept in the training's folder as ``rectangles.json``; a training that is resumed reads them there. Images
    without tags, and those that cannot be read (the training lists them), have no cuts.

    Args:
        context: of the training.
        stage: its name.
        previous: the classifier trained before, in eval mode on the engine's device.

    Returns:
        per image id (top, left, bottom, right) of four cuts; and the images that were cut in the middle, because the
        map of one of their classes is zero everywhere.

    Raises:
        RunError: the file cannot be read.
    """
    path = context.workspace.stage(stage) / "rectangles.json"
    if not path.exists():
        found = _found_cuts(context, previous)
        if context.engine.is_main:
            samples = [sample for sample in context.samples(TRAIN) if sample.id in found]
            images = {sample.id: found[sample.id][0] for sample in samples}
            notes = [[sample.id, str(sample.image_path), found[sample.id][1]] for sample in samples]
            write_json(path, {"schema": SCHEMA, "images": images, "notes": [note for note in notes if note[2]]})
        context.engine.barrier()
    stored = read_json(path)
    cuts = {name: [Rectangle(*cut) for cut in cuts] for name, cuts in stored["images"].items()}
    return cuts, [Problem(stage, name, image, reason, left_out=False) for name, image, reason in stored["notes"]]


def _found_cuts(context: Context, model: Classifier) -> dict[str, tuple[list[Rectangle], str]]:
    """Cuts by image id, and a note if a class had no centre; on every rank."""
    engine = context.engine
    loader = ImageLoader("classify", max_pixels=context.source.max_pixels, cache_bytes=0)
    names = context.source.classes.names
    model.requires_grad_(False)

    def work(sample: Sample) -> tuple[str, list[Rectangle], str]:
        image = loader.load(sample)
        if isinstance(image, Problem):
            return sample.id, [], ""
        size = image.shape[0], image.shape[1]
        channels = torch.tensor([label - 1 for label in sample.tags], dtype=torch.int64, device=engine.device)
        with engine.autocast(), torch.inference_mode():
            # Plain CAM at one scale: centres of mass hardly move with better maps, and this is done for every training
            # image.
            maps = full_size_maps(Trained(model, {}, engine.device), Cam(), _VIEWS.of(image), channels, size)
        nowhere = [names[label] for label, row in zip(sample.tags, maps, strict=True) if not row.any()]
        note = (
            f"{sample.image_path}: {', '.join(nowhere)}: the map is zero everywhere; its centre is taken as the middle"
        )
        return sample.id, split_rectangles(centres_of_mass(maps), size), note if nowhere else ""

    samples = [sample for sample in context.samples(TRAIN) if sample.tags]
    title = "split & unite: cuts of the training images"
    results = gather_images(engine, samples, work, progress=context.progress, description=title)
    return {name: (cuts, note) for name, cuts, note in results if cuts}
