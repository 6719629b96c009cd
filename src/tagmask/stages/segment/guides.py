"""What a training reads beside labels: saliency maps, weights by confidence, and whether the saliency can be right."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch

from tagmask.errors import TagmaskError
from tagmask.ops.confidence import confidence_weights, relative_margin
from tagmask.ops.losses import conflict_temperature
from tagmask.ops.map_grids import MapGrids
from tagmask.ops.transforms import resize_mask, working_size
from tagmask.runs.context import Context
from tagmask.runs.corrections import NO_CORRECTIONS, Corrections
from tagmask.runs.stage_names import LOCALIZE, REFINE, SEGMENT
from tagmask.settings.segment import ConfidenceSettings
from tagmask.stages.planes import planes_of
from tagmask.storage.pictures import load_grey
from tagmask.storage.records import read_json, write_json
from tagmask.types import BACKGROUND, IGNORE_INDEX, FloatArray, Sample, UInt8Array

PlaneReader = Callable[[Sample], FloatArray | None]
PlanesReader = Callable[[Sample], Mapping[str, FloatArray]]
CHECKED = 300  # images the saliency is compared with pseudo masks on
_CLEARLY = 3  # maps that mark so many times more of the foreground than of the background are dark, but right


def planes_reader(context: Context, needs: Iterable[str], corrections: Corrections = NO_CORRECTIONS) -> PlanesReader:
    """The planes of a sample that a loss needs; none where the mask is a person's: no saliency knows better."""
    workspace = context.workspace
    return lambda sample: {} if sample.id in corrections.ids else planes_of(workspace, needs, sample)


def weights_reader(
    context: Context, settings: ConfidenceSettings, stage: str, corrections: Corrections = NO_CORRECTIONS
) -> PlaneReader:
    """Weights of a sample's pixels, float32 [H, W]: by the refined maps, or the margins of a round's relabelling.

    They are 1 where the mask is a person's.
    """
    by_scores = _weights_by_scores(context, settings, stage)

    def read(sample: Sample) -> FloatArray | None:
        if sample.id not in corrections.ids:
            return by_scores(sample)
        height, width = corrections.read(sample).shape
        return np.ones(working_size((height, width), context.recipe.working_size), np.float32)

    return read


def _weights_by_scores(context: Context, settings: ConfidenceSettings, stage: str) -> PlaneReader:
    workspace = context.workspace
    if stage != SEGMENT:

        def from_margins(sample: Sample) -> FloatArray:
            margin = torch.from_numpy(load_grey(workspace.grey_path(sample.id, stage, "margins")))
            return confidence_weights(margin, width=settings.width, floor=settings.floor).numpy()

        return from_margins
    # The maps and the threshold that made the masks: how sure a label is can be read off the scores it won against.
    of = REFINE if context.recipe.refine.makes_maps else LOCALIZE
    thresholds = read_json(workspace.stage(REFINE) / "thresholds.json")
    threshold, names = float(thresholds["value"]), context.source.classes.names
    of_label = [float(thresholds.get("per_class", {}).get(name, threshold)) for name in names]

    def from_maps(sample: Sample) -> FloatArray:
        stored = workspace.load_maps(sample.id, stage=of)
        size = working_size(stored.image_size, context.recipe.working_size)
        maps = MapGrids.of(stored).at(size)
        for plane, label in zip(maps, stored.classes.tolist(), strict=True):
            plane *= threshold / max(of_label[label], 1e-6)  # a class's own threshold becomes the common one
        margin = relative_margin(torch.cat([torch.full((1, *size), threshold), maps]))
        return confidence_weights(margin, width=settings.width, floor=settings.floor).numpy()

    return from_maps


def check_saliency(
    context: Context,
    samples: Sequence[Sample],
    read_mask: Callable[[Sample], UInt8Array],
    read_saliency: PlaneReader,
    stage: str,
) -> None:
    """Compare saliency with pseudo masks; write saliency.json; warn when most foreground lies where nothing is salient.

    An inverted folder "still trains" (docs/methods/aamr.md), so it must be noticed here. Maps that are merely dark, far
    more salient on the foreground than elsewhere, are no reason to warn.
    """
    settings = context.recipe.segment
    if settings is None or settings.saliency is None or not context.engine.is_main:
        return
    indices = np.random.default_rng(context.recipe.seed).permutation(len(samples))[:CHECKED]
    counts, temperatures = np.zeros((2, 2), np.int64), []
    for index in sorted(indices):
        try:
            mask, saliency = read_mask(samples[index]), read_saliency(samples[index])
        except TagmaskError:
            continue  # the training lists it
        if saliency is None:
            continue
        mask = resize_mask(mask, working_size((mask.shape[0], mask.shape[1]), context.recipe.working_size))
        if saliency.shape != mask.shape:
            continue
        salient, counted = saliency >= 0.5, mask != IGNORE_INDEX
        for row, side in enumerate((mask == BACKGROUND, mask != BACKGROUND)):
            counts[row] += [(side & counted & ~salient).sum(), (side & counted & salient).sum()]
        labels, plane = torch.tensor(mask)[None], torch.from_numpy(saliency)[None]
        # Both ways round: which agrees better says whether to invert, or whether the maps are of something else.
        temperatures.append([float(conflict_temperature(labels, p)) for p in (plane, 1 - plane)])
    if not temperatures or not counts[1].sum():
        return
    tau, turned = (float(value) for value in np.mean(temperatures, axis=0))
    salient_share = float(counts[1, 1] / counts[1].sum())
    record = {
        "images": len(temperatures),
        "foreground_salient": round(salient_share, 6),
        "background_salient": round(float(counts[0, 1] / max(1, counts[0].sum())), 6),
        "foreground_iou": round(float(counts[1, 1] / max(1, counts[1].sum() + counts[0, 1])), 6),
        "tau": round(tau, 6),
        "tau_inverted": round(turned, 6),
    }
    write_json(context.workspace.stage(stage) / "saliency.json", record)
    if salient_share < 0.5 and salient_share < _CLEARLY * record["background_salient"] + 1e-6:
        remedy = (
            "black seems to mark the foreground: set segment.saliency.invert=true (or return 1 - map)"
            if turned > tau
            else "look at some maps: the foreground must be white, up to 255; else use segment.loss=cross_entropy"
        )
        context.progress.warning(
            f"{stage}: only {100 * salient_share:.0f} % of the pseudo masks' foreground is salient (>= 0.5) in "
            f"{settings.saliency.origin()}; {remedy}"
        )
