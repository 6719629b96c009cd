"""How many wrong tags are among the images that are doubted most: tags of training images corrupted on purpose.

    python benchmarks/tag_doubts.py msrc/best data.root=DIR [KEY=VALUE ...] [--share 0.1] [--first 0.15] [--seeds 0,1,2]

A share of the training images, drawn by the seed, gets a wrong tag each: in turn a tag is swapped for another class,
taken away, or added. An image that would be left without tags may be. Then all training images are ordered as
'tagmask data doubts' orders them, and the corrupted ones among the first of them are counted. Prints, per seed and over
all, the share of corrupted images among the first images, by kind of corruption; chance is the value of --first. The
features are made once. No mask is opened.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from tagmask.cli.recipes import find_recipe
from tagmask.experiments.doubts import source_doubts
from tagmask.progress.listeners import LineProgress
from tagmask.settings.loading import load_recipe
from tagmask.types import DataSource, Sample

KINDS = ("swapped", "taken away", "added")


def corrupted(source: DataSource, share: float, seed: int) -> tuple[DataSource, dict[str, str]]:
    """The training images with wrong tags, and the kind of each corruption by image id."""
    rng = np.random.default_rng(seed)
    samples = list(source.split("train"))
    labels = range(1, len(source.classes.names))
    kinds: dict[str, str] = {}
    for turn, index in enumerate(rng.permutation(len(samples))[: round(share * len(samples))]):
        sample = samples[index]
        kind = KINDS[turn % len(KINDS)] if sample.tags else "added"
        tags = set(sample.tags)
        wrong = int(rng.choice([label for label in labels if label not in tags]))
        if kind != "added":
            tags.remove(int(rng.choice(sorted(tags))))
        if kind != "taken away":
            tags.add(wrong)
        samples[index] = Sample(sample.id, sample.image_path, tuple(sorted(tags)))
        kinds[sample.id] = kind
    return replace(source, splits={"train": tuple(samples)}), kinds


def shares(images: tuple[str, ...], kinds: Mapping[str, str], first: float) -> dict[str, float]:
    """Share of the corrupted images among the first ones, for all and by kind."""
    front = set(images[: round(first * len(images))])
    result = {"all": sum(image in front for image in kinds) / len(kinds)}
    for kind in KINDS:
        own = [image for image, what in kinds.items() if what == kind]
        result[kind] = sum(image in front for image in own) / len(own)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--first", type=float, default=0.15)
    parser.add_argument("--seeds", default="0,1,2")
    options = parser.parse_args()
    recipe = load_recipe(find_recipe(options.recipe).path, options.overrides)
    source = recipe.data.open().weak()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in map(int, options.seeds.split(",")):
            wrong, kinds = corrupted(source, options.share, seed)
            result = source_doubts(
                wrong, recipe, cache=Path(folder) / "features.npz", progress=LineProgress(lambda text: None)
            )
            results.append(shares(result.images, kinds, options.first))
            values = ", ".join(f"{name} {100 * value:.1f} %" for name, value in results[-1].items())
            print(
                f"seed {seed}: {len(kinds)} of {len(result.images)} images corrupted; in the first: {values}",
                flush=True,
            )
    for name in results[0]:
        values = [100 * result[name] for result in results]
        print(f"{name:>10}: {statistics.mean(values):.1f} ± {statistics.pstdev(values):.1f} %")


if __name__ == "__main__":
    main()
