"""The localize stage: activation maps of every image for its tags, one file an image.

Images are computed one by one (with their mirror), so that an artifact does not depend on how the images were
sharded, batched or resumed. Localizers that learn from the training images do so first, in one pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tagmask.contracts.learning import Learnt, Reservoir
from tagmask.contracts.localizer import Localizer, Trained
from tagmask.contracts.polisher import resize
from tagmask.data.lists import ascending, match_ids, read_lines
from tagmask.data.loading import ImageLoader
from tagmask.engine.image_loop import fold_images, process_images
from tagmask.errors import InputError
from tagmask.ops.transforms import reduced_to, working_size
from tagmask.ops.views import Views, strided_size
from tagmask.runs.context import TRAIN, VAL, Context
from tagmask.runs.stage_names import LOCALIZE
from tagmask.runs.trained import trained_classifier
from tagmask.settings.localize import LocalizeSettings
from tagmask.stages.localize.ranking import at_size, class_ranking
from tagmask.storage.arrays import SCHEMA
from tagmask.storage.images import image_size
from tagmask.storage.records import read_json, write_json
from tagmask.storage.weights import load_tensors, save_tensors
from tagmask.types import ActivationMaps, InputStatistics, Problem, Sample, UInt8Array

STAGE = LOCALIZE


def activation_maps(
    model: nn.Module,
    image: UInt8Array,
    labels: tuple[int, ...],
    settings: LocalizeSettings,
    *,
    learnt: Mapping[str, Mapping[str, Tensor]] | None = None,
    device: torch.device | str = "cpu",
) -> ActivationMaps:
    """Maps of one image for the given labels (1..C); call it under the autocast you want.

    Args:
        model: the classifier, in eval mode, on ``device``.
        image: uint8 [H, W, 3] RGB.
        labels: mask labels 1..C, ascending.
        settings: localizer, scales and flip.
        learnt: what the localizer has learnt from training images, if it does.
        device: where to compute.

    Returns:
        float32 maps [K, ceil(H/4), ceil(W/4)] in [0, 1], each map's maximum before division, and what the maps are at
        full size.
    """
    channels = torch.tensor([label - 1 for label in labels], dtype=torch.int64, device=device)
    trained = Trained(model, learnt or {}, device)
    ranking = (
        class_ranking(trained, image, ten_crops=settings.ranking == "ten_crops", size=settings.size)
        if (settings.ranking != "none")
        else ()
    )
    size = strided_size((image.shape[0], image.shape[1]))
    if labels:
        pixels = classifier_image(image, settings)
        views = views_of(settings, trained.input_statistics)
        own = settings.method.image_maps(trained, pixels, channels, views)
        # Back to the image's own grid, also where ``size`` or ``max_side`` showed the classifier another: what follows
        # knows one grid.
        merged, notes = resize(own.maps.float().cpu(), size), own.notes
        full = own.full
        if full is not None and settings.full_size == "stretched":
            full = replace(full, frame=full.size)
        full = None if full is None else full.divided()
    else:
        merged, notes, full = torch.zeros(0, *size), (), None
    peak = merged.amax(dim=(-2, -1)) if labels else torch.zeros(0)
    return ActivationMaps(
        classes=(channels.cpu() + 1).numpy(),
        # After all views and once. The maximum is kept beside: it says what the division hides, how sure the map was.
        maps=(merged / (peak[:, None, None] + 1e-5)).numpy(),
        peak=peak.numpy(),
        image_size=(image.shape[0], image.shape[1]),
        notes=tuple((channel + 1, text) for channel, text in notes),
        ranking=ranking,
        grids=() if full is None else tuple(grid.cpu().numpy() for grid in full.grids),
        frame=None if full is None else full.frame,
        seen=None if full is None else full.size,
    )


def classifier_image(image: UInt8Array, settings: LocalizeSettings) -> UInt8Array:
    """The image at the size that the settings ask for, before any scale."""
    image = at_size(image, settings.size)
    return image if settings.max_side is None else reduced_to(image, settings.max_side)


def seen_size(size: tuple[int, int], settings: LocalizeSettings) -> tuple[int, int]:
    """(H, W) of what :func:`classifier_image` makes of an image of ``size``."""
    return working_size(size if settings.size is None else (settings.size, settings.size), settings.max_side)


def views_of(settings: LocalizeSettings, statistics: InputStatistics) -> Views:
    """The views that the settings ask for, normalised with ``statistics``."""
    return Views(settings.scales, settings.flip, statistics)


def run(context: Context, stage: str = STAGE) -> list[Problem]:
    """Write the maps of the run's last classifier, see :func:`make_maps`."""
    del stage
    return make_maps(context, trained_classifier(context))


def make_maps(context: Context, model: nn.Module) -> list[Problem]:
    """Write ``localize/maps/ID.npz`` for train and val; returns the images left out and what was amiss."""
    settings, workspace, engine = context.recipe.localize, context.workspace, context.engine
    loader = context.loader(STAGE)
    # Nothing here trains the classifier; AdvCAM's gradients are the image's.
    model.requires_grad_(False)
    learnt, problems = _learn(context, model, loader)
    if engine.is_main:
        _say_remarks(context, Trained(model, learnt, engine.device))

    def work(sample: Sample) -> Problem | None:
        image = loader.load(sample)
        if isinstance(image, Problem):
            return image
        for precision in (engine.autocast(), engine.full_precision()):  # one image that overflows is made again
            with precision:
                maps = activation_maps(model, image, sample.tags, settings, learnt=learnt, device=engine.device)
            if np.isfinite(maps.maps).all():
                break
        else:
            reason = f"{sample.image_path}: its maps are not finite, in float32 neither; image left out"
            return Problem(STAGE, sample.id, str(sample.image_path), reason)
        # The grid is the working size's; what is made of the maps goes back to the file's.
        workspace.save_maps(sample.id, replace(maps, image_size=loader.full_size(sample, image)))
        return None

    problems += process_images(
        engine,
        context.samples(TRAIN, VAL),
        work,
        done=lambda sample: workspace.map_path(sample.id).exists(),
        progress=context.progress,
        description="activation maps",
    )
    return [*problems, *_fallbacks(context)] if engine.is_main else problems


def _say_remarks(context: Context, trained: Trained) -> None:
    settings = context.recipe.localize
    with context.engine.autocast(), torch.inference_mode():
        for part in settings.method.parts():
            for line in part.remarks(trained, views_of(settings, trained.input_statistics)):
                context.progress.message(line)


def _fallbacks(context: Context) -> list[Problem]:
    """Maps without any activation, and what localizers noted; also of maps that a run wrote before it was killed."""
    names, workspace = context.source.classes.names, context.workspace
    problems = []
    for sample in context.samples(TRAIN, VAL):
        if not workspace.map_path(sample.id).exists():
            continue
        peaks, notes = workspace.peaks_and_notes(sample.id)
        for label, text in notes:
            reason = f"{sample.image_path}: {names[label]}: {text}"
            problems.append(Problem(STAGE, sample.id, str(sample.image_path), reason, left_out=False))
        empty = [names[label] for label, peak in peaks.items() if peak == 0]
        if empty:
            which = ", ".join(empty)
            reason = f"{sample.image_path}: the map of {which} is zero everywhere: none of its pixels get the label"
            problems.append(Problem(STAGE, sample.id, str(sample.image_path), reason, left_out=False))
    return problems


def _learn(
    context: Context, model: nn.Module, loader: ImageLoader
) -> tuple[dict[str, dict[str, Tensor]], list[Problem]]:
    """What the recipe's localizers learn, by name; inner ones first, for the outer ones may build on them."""
    engine, folder = context.engine, context.workspace.stage(STAGE)
    learnt: dict[str, dict[str, Tensor]] = {}
    problems: list[Problem] = []
    for part in reversed(list(context.recipe.localize.method.parts())):
        if not part.learns:
            continue
        tensors, record = folder / f"{part.name}.safetensors", folder / f"{part.name}.json"
        if not (tensors.exists() and record.exists()):
            result, unread, study_samples = _study(context, part, Trained(model, learnt, engine.device), loader)
            problems += unread
            if engine.is_main:
                save_tensors(tensors, result.tensors, {"kind": part.name, "settings": part.dump()})
                write_json(record, _description(result, study_samples, context))
            engine.barrier()
        learnt[part.name] = {key: value.to(engine.device) for key, value in load_tensors(tensors).items()}
        for name, reason in read_json(record)["notes"]:
            problems.append(Problem(STAGE, name, "", reason, left_out=False))
    return learnt, problems


def _study(
    context: Context, part: Localizer, trained: Trained, loader: ImageLoader
) -> tuple[Learnt, list[Problem], list[Sample]]:
    """One pass of a localizer over the training images it chooses: what it learnt, what could not be read."""
    engine = context.engine
    samples = _listed_samples(context)
    classes = context.source.classes.foreground
    views = views_of(context.recipe.localize, trained.input_statistics)
    study_samples = samples_to_study(part, samples, len(classes))
    reservoir = part.reservoir()
    unread: list[Problem] = []

    def work(numbered: tuple[int, Sample]) -> Any:
        number, sample = numbered
        image = loader.load(sample)
        if isinstance(image, Problem):
            return number, image
        image = classifier_image(image, context.recipe.localize)
        channels = torch.tensor([label - 1 for label in sample.tags], dtype=torch.int64, device=engine.device)
        # By the image's number: the sample does not depend on which process, or thread, an image falls to.
        rng = np.random.default_rng([engine.seed, number])
        with engine.autocast(), torch.inference_mode():
            candidates = part.study(trained, image, channels, views, rng)
        if not all(bool(torch.isfinite(group.vectors).all()) for group in candidates.values()):
            return number, Problem(STAGE, sample.id, str(sample.image_path), "its features are not finite; not studied")
        return number, candidates

    def take(result: tuple[int, Any]) -> None:
        number, candidates = result
        if isinstance(candidates, Problem):
            unread.append(candidates)
        else:
            reservoir.add(number, candidates)

    title = f"{part.name}: study the training images"
    fold_images(engine, list(enumerate(study_samples)), work, take, progress=context.progress, description=title)
    parts: list[Reservoir] = engine.gather(reservoir)
    whole = part.reservoir()
    whole.merge(parts)
    with torch.inference_mode():
        result = part.learn(trained, whole, classes, engine.seed) if engine.is_main else Learnt({})
    return result, [problem for share in engine.gather(unread) for problem in share], study_samples


def samples_to_study(part: Localizer, samples: Sequence[Sample], n_classes: int) -> list[Sample]:
    """What a localizer chooses of the training images, each with the tags that it is studied for.

    An image may be studied for some of its tags only, and more than once.
    """
    order = ascending([sample.id for sample in samples])
    choices = part.choose([sample.tags for sample in samples], n_classes, order)
    return [replace(samples[index], tags=labels) for index, labels in choices]


def _listed_samples(context: Context) -> list[Sample]:
    """The training images that localizers may learn from: all, or those on the recipe's list.

    Raises:
        InputError: the list cannot be read, or names no training image.
    """
    samples, path = context.samples(TRAIN), context.recipe.localize.study_list
    if path is None:
        return samples
    lines = [line for _, line in read_lines(path, remedy="localize.study_list holds one image id per line.")]
    listed = frozenset(match_ids(lines, [sample.id for sample in samples]))
    studied = [sample for sample in samples if sample.id in listed]
    if not studied:
        msg = (
            f"localize.study_list: {path} names none of the {len(samples)} training images; ids are image paths "
            f"without suffix, such as {samples[0].id if samples else '2007_000032'}"
        )
        raise InputError(msg)
    return studied


def _description(learnt: Learnt, samples: list[Sample], context: Context) -> dict[str, Any]:
    def box_in_file(number: int, box: tuple[int, int, int, int]) -> list[int]:
        full = image_size(samples[number].image_path, max_pixels=context.source.max_pixels)
        seen = seen_size(working_size(full, context.recipe.working_size), context.recipe.localize)
        factors = full[0] / seen[0], full[1] / seen[1]
        return [round(value * factors[axis % 2]) for axis, value in enumerate(box)]

    return {
        "schema": SCHEMA,
        "notes": [list(note) for note in learnt.notes],
        "groups": [
            {
                "title": group.title,
                "patches": [
                    {"id": samples[number].id, "box": box_in_file(number, box)} for number, box in group.patches
                ],
            }
            for group in learnt.patch_groups
        ],
    }
