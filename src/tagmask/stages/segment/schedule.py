"""How long a segmentation network trains on a data set of some size, and on which of its images how often."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from tagmask.engine.training import Options
from tagmask.errors import TagmaskError
from tagmask.runs.context import Context
from tagmask.settings.segment import SegmentSettings
from tagmask.settings.training_length import share_of_published
from tagmask.stages.segment.balance import label_pixels, repeat_factors
from tagmask.stages.training_length import training_length
from tagmask.types import Sample, UInt8Array


def scaled(settings: SegmentSettings, n_images: int) -> SegmentSettings:
    """The settings with ``iterations`` and the warm-up for a training set of ``n_images``.

    Published iterations are for ``per_images`` images: here every image is seen as often. A preset's warm-up never
    takes more than a twentieth of the training.
    """
    changes: dict[str, object] = {}
    warmup = settings.optimizer.warmup_steps
    if isinstance(settings.iterations, int) and settings.per_images is not None:
        share = n_images / settings.per_images
        changes["iterations"] = share_of_published(settings.iterations, n_images, settings.per_images)
        changes["per_images"] = None
        warmup = round(warmup * share)
    if settings.preset is not None and settings.iterations != "auto":
        result = settings.model_copy(update=changes)
        total = options(result).steps(n_images, settings.batch_size, settings.epochs)[1]
        # A published warm-up of 1,500 steps would be all of a short training.
        warmup = min(warmup, total // 20)
    changes["optimizer"] = settings.optimizer.model_copy(update={"warmup_steps": warmup})
    return settings.model_copy(update=changes)


def settled(context: Context, settings: SegmentSettings, stage: str, samples: Sequence[Sample]) -> SegmentSettings:
    """The settings with a number for everything that depends on the training set; the length is told and noted."""
    settings = scaled(settings, len(samples))
    length = training_length(
        context,
        stage,
        samples,
        iterations=settings.iterations,
        epochs=settings.epochs,
        batch_size=settings.batch_size * settings.accumulate,
    )
    if settings.iterations != "auto":
        return settings
    return scaled(settings.model_copy(update={"iterations": length.updates}), len(samples))


def options(settings: SegmentSettings, weights: Sequence[float] | None = None) -> Options:
    """What the training loop is asked for, of settings that are :func:`settled`."""
    iterations = settings.iterations if isinstance(settings.iterations, int) else None
    return Options(iterations=iterations, accumulate=settings.accumulate, ema=settings.ema, weights=weights)


def sampling_weights(
    settings: SegmentSettings,
    samples: Sequence[Sample],
    read_mask: Callable[[Sample], UInt8Array],
    hand_made: Collection[str] = (),
) -> list[float] | None:
    """How often each image is drawn, by its tags, or by the pixels of its mask; None: once an epoch.

    A mask that cannot be read counts as empty here; the training lists it.

    Args:
        settings: ``class_balanced``, and the least share of images with a mask of a person's (``hand_made``).
        samples: of the training.
        read_mask: gives their masks.
        hand_made: ids of those with a person's.
    """
    return with_share(_balanced(settings, samples, read_mask), samples, hand_made, settings.hand_made)


def with_share(
    weights: list[float] | None, samples: Sequence[Sample], chosen: Collection[str], share: float
) -> list[float] | None:
    """The weights (None: all alike) raised for the chosen images, so that they have at least ``share`` of the sum."""
    values = weights or [1.0] * len(samples)
    inside = sum(value for value, sample in zip(values, samples, strict=True) if sample.id in chosen)
    outside = sum(values) - inside
    if not inside or not outside or inside >= share * (inside + outside):
        return weights
    # A share of 1 leaves nothing of the others.
    factor = share * outside / (inside * (1 - share)) if share < 1 else 1.0
    others = 1.0 if share < 1 else 0.0
    return [value * (factor if sample.id in chosen else others) for value, sample in zip(values, samples, strict=True)]


def _balanced(
    settings: SegmentSettings, samples: Sequence[Sample], read_mask: Callable[[Sample], UInt8Array]
) -> list[float] | None:
    if settings.class_balanced is None:
        return None
    if settings.class_balanced == "tags":
        amounts = [dict.fromkeys(sample.tags, 1.0) for sample in samples]
    else:
        amounts = [_pixels(sample, read_mask) for sample in samples]
    return repeat_factors([list(amount) for amount in amounts], amounts)


def _pixels(sample: Sample, read_mask: Callable[[Sample], UInt8Array]) -> dict[int, float]:
    try:
        return label_pixels(read_mask(sample))
    except TagmaskError:
        return {}
