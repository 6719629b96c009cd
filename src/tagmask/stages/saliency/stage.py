"""The saliency stage: one grey picture per training image, for the losses that learn from it."""

from __future__ import annotations

from tagmask.engine.image_loop import process_images
from tagmask.errors import RunError, UnreadableImageError
from tagmask.ops.transforms import colour_view
from tagmask.runs.context import TRAIN, VAL, Context
from tagmask.runs.stage_names import SALIENCY
from tagmask.storage.pictures import save_grey
from tagmask.types import Problem, Sample

STAGE = SALIENCY


def run(context: Context, stage: str = STAGE) -> list[Problem]:
    """Write saliency/maps of the training images, and of val where a refiner needs them.

    An image without a map is listed; a loss that needs one trains by cross entropy alone on it.

    Raises:
        RunError: not a single map was found.
    """
    del stage
    settings = context.recipe.segment
    if settings is None or settings.saliency is None:
        msg = "saliency: the recipe names no segment.saliency"
        raise RunError(msg)
    source, workspace = settings.saliency, context.workspace
    splits = (TRAIN, VAL) if SALIENCY in context.recipe.refine.needs else (TRAIN,)
    samples = context.samples(*splits)
    loader = context.loader(STAGE)

    def work(sample: Sample) -> Problem | None:
        image = loader.load(sample)
        if isinstance(image, Problem):
            return image
        try:
            saliency = source.find(sample.id, colour_view(image))
        except UnreadableImageError as error:
            reason = f"{error}; plain cross entropy for this image"
            return Problem(STAGE, sample.id, str(sample.image_path), reason, left_out=False)
        save_grey(workspace.grey_path(sample.id, STAGE, "maps"), saliency)
        return None

    problems = process_images(
        context.engine,
        samples,
        work,
        done=lambda sample: workspace.grey_path(sample.id, STAGE, "maps").exists(),
        progress=context.progress,
        description="saliency maps",
    )
    context.engine.barrier()
    # One map missing is that image's problem; none at all is a wrong folder or suffix.
    if samples and not any(workspace.grey_path(sample.id, STAGE, "maps").exists() for sample in samples):
        msg = f"saliency: none of {len(samples)} training images has a map from {source.origin()}; {problems[0].reason}"
        raise RunError(msg)
    return problems
