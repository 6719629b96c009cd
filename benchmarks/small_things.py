"""What refiners and thresholds are worth for small things, on a sample of the training images and frozen features.

    python benchmarks/small_things.py shared/data/magnetic-tile [--images 24] [--epochs 25] [--seed 0]

The classifier of recipes/magnetic-tile/best.yaml, whose backbone is frozen: features of up to so many images a tag
(twice as many without a tag) are computed once, its neck and head trained on them and their mirror images, and the maps
(one scale) scored against the masks of the same images: IoU in percent at the best threshold of each class, of plain
maps and of those weighted by local contrast, and at the thresholds that follow from the areas of the recipe. Masks
measure only.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tagmask.data.voc.source import VocSource
from tagmask.functional import local_contrast, upsample_maps
from tagmask.models.classifier import build_classifier
from tagmask.ops.area_threshold import threshold_for_area
from tagmask.ops.transforms import normalise, resize_image, scaled_size
from tagmask.ops.views import normalize_maps, strided_size
from tagmask.settings.loading import load_recipe
from tagmask.storage.images import read_image
from tagmask.types import DataSource, Sample

RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "magnetic-tile" / "best.yaml"
LEVELS = np.arange(1, 40) / 40


def chosen(source: DataSource, images: int, seed: int) -> list[Sample]:
    """Up to ``images`` of each tag, and twice as many without one; images here have one tag or none."""
    counts: Counter[tuple[int, ...]] = Counter()
    samples = source.split("train")
    result = []
    for place in np.random.default_rng(seed).permutation(len(samples)):
        sample = samples[place]
        counts[sample.tags] += 1
        if counts[sample.tags] <= images * (1 if sample.tags else 2):
            result.append(sample)
    return result


def train(model: Any, features: list[Tensor], samples: list[Sample], epochs: int, seed: int) -> None:
    """Neck and head on stored features, sixteen images an update."""
    new = [*model.neck.parameters(), *model.head.parameters()]
    optimizer = torch.optim.AdamW(new, lr=3e-3, weight_decay=1e-2)
    rng, updates = np.random.default_rng(seed), epochs * (len(samples) // 16)
    model.head.train()
    for step in range(updates):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / updates)
        for place in rng.choice(len(samples), 16, replace=False):
            tags = torch.zeros(1, model.class_weights.shape[0])
            tags[0, [label - 1 for label in samples[place].tags]] = 1
            seen = features[place].float()
            logits, extras = model.head(model.neck(seen.flip(-1) if rng.random() < 0.5 else seen), tags)
            (model.head.losses(logits, tags, extras)["loss"] / 16).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.head.eval()


def ious(maps: list[Tensor], truths: list[Tensor], levels: Any) -> np.ndarray[Any, Any]:
    """IoU of a class over all images at each level."""
    counts = np.zeros((2, len(levels)))
    for values, truth in zip(maps, truths, strict=True):
        full = upsample_maps(values[None], (truth.shape[0], truth.shape[1]))[0]
        for index, level in enumerate(levels):
            mask = full > level
            counts[:, index] += int((mask & truth).sum()), int((mask | truth).sum())
    return 100 * counts[0] / np.maximum(1, counts[1])


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    recipe, source = load_recipe(RECIPE), VocSource(root=options.root).open()
    areas: dict[str, float] = dict(recipe.refine.labeller.class_areas)
    model: Any = build_classifier(recipe.classify, len(source.classes.foreground)).eval()
    assert isinstance(model.neck, nn.Module)
    samples, features = chosen(source, options.images, options.seed), []
    for sample in samples:
        image = read_image(sample.image_path)
        seen = resize_image(image, scaled_size((image.shape[0], image.shape[1]), recipe.localize.scales[0]))
        with torch.inference_mode():
            taps = model.backbone(normalise(seen, model.input_statistics)[None])
        features.append(taps[model.backbone.n_stages].half().clone())
    train(model, features, samples, options.epochs, options.seed)
    print(f"{'class':10s} images  plain  both  dark bright  by area")
    for label, name in enumerate(source.classes.foreground, start=1):
        plain, weighted, truths = [], {side: [] for side in ("both", "dark", "bright")}, []
        for sample, own in zip(samples, features, strict=True):
            if label not in sample.tags:
                continue
            image = read_image(sample.image_path)
            with torch.inference_mode():
                response = torch.einsum("bdhw,d->bhw", model.neck(own.float()), model.class_weights[label - 1]).relu()
            size = strided_size((image.shape[0], image.shape[1]))
            values = normalize_maps(upsample_maps(response, size))
            plain.append(values[0])
            truths.append(torch.from_numpy(source.read_mask(sample) == label))
            for side, maps in weighted.items():
                maps.append(local_contrast(values, image, side=side)[0])  # type: ignore[arg-type]
        best = {"plain": ious(plain, truths, LEVELS).max()}
        best |= {side: ious(maps, truths, LEVELS).max() for side, maps in weighted.items()}
        mine = weighted["dark"] if name in recipe.refine.refiners[0].class_names else plain
        area = ious(mine, truths, [threshold_for_area(mine, areas[name])])[0]
        print(f"{name:10s} {len(plain):6d}  {'  '.join(f'{value:5.1f}' for value in best.values())}  {area:5.1f}")


if __name__ == "__main__":
    main()
