"""When does which method help? PartsWorld under its knobs (docs/partsworld-study.md).

    python benchmarks/partsworld_study.py [--settings default small ...] [--methods ssa lpcam ...] [--seeds 0 1 2]

A setting is one knob or several (``"pretrained, one, small"``), each some overrides of ``recipes/demo.yaml``; a method
is how the classifier is trained beside that and how maps are made. A seed draws the data and trains the networks; a
classifier is trained once, and all methods that share it see the network's output of the same views of the same images,
computed once. Scored are the first ``--images TRAIN VAL`` images of both splits, at each method's own best threshold;
prototypes are learnt from all training images, as in a run.

Prints, for each setting and method, mean ± std over the seeds, train / val: mIoU, the gain over plain CAM seed by seed,
and over foreground pixels precision and the recall of unique (head) and of shared parts. What was computed is kept
below ``--output`` and not computed again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import tagmask
from tagmask.contracts.localizer import Trained
from tagmask.data.partsworld.source import read_part_map
from tagmask.engine.engine import Engine
from tagmask.metrics import ThresholdSweep
from tagmask.models.classifier import load_classifier
from tagmask.ops.map_grids import MapGrids
from tagmask.progress.listeners import LineProgress
from tagmask.settings.loading import load_recipe
from tagmask.settings.localize import LocalizeSettings
from tagmask.stages.localize.stage import activation_maps, views_of
from tagmask.storage.images import read_image
from tagmask.types import InputStatistics, Sample

RECIPE = "recipes/demo.yaml"
HEAD = 1
# The network of recipes/msrc/cam.yaml, at PartsWorld's size.
PRETRAINED = (
    "classify={backbone: mobilenetv2_100, backbone_args: {pad_type: same}, final_conv: true, batch_norm: eval, "
    "head: {name: gap, dropout: 0.3}, "
    "weights: ../shared/weights/mobilenetv2_100-imagenet.safetensors, epochs: 5, batch_size: 16, "
    "augment: {kind: resized_crop, crop: 160, scale: [0.5, 1.0], ratio: [0.8, 1.25], colour_jitter: 0.2}, "
    "optimizer: {kind: adamw, lr: 1.0e-4, head_lr: 1.0e-3, weight_decay: 1.0e-4, warmup_steps: 20, schedule: poly}}"
)
KNOBS: dict[str, list[str]] = {
    "default": [],
    "pretrained": [PRETRAINED, "data.train=300", "data.val=100"],
    "256 px": ["data.size=256", "classify.augment.crop=256"],
    "one": ["data.objects=[1.0, 0.0, 0.0]"],
    "many": ["data.objects=[0.0, 0.3, 0.7]"],
    "small": ["data.object_length=[0.3, 0.5]"],
    "large": ["data.object_length=[0.75, 1.0]"],
    "no sharing": ["data.sharing=0.0"],
    "no clutter": ["data.clutter=0.0"],
    "no context": ["data.context=0.0", "data.context_without=0.0"],
}
#: The words in capitals depend on the network: its two stages before the last, the head's dropout, the rates of
#: further training.
SCRATCH_WORDS = {
    "MIDDLE": "[3, 4]",
    "DROPOUT": "0.0",
    "RATES": "{lr: 4.0e-4, head_lr: 2.0e-3, schedule: poly, warmup_steps: 20}",
}
PRETRAINED_WORDS = {"MIDDLE": "[4, 5]", "DROPOUT": "0.3", "RATES": "{lr: 1.0e-5, head_lr: 1.0e-3}"}
_RECAM = ["retrain=[{head: {name: recam, inner: {name: gap, dropout: DROPOUT}}, epochs: 4, optimizer: RATES}]"]
_POLISH = "clip_negative: true, guidance: none, stages: MIDDLE"
_FEW = "features_per_class: 1024"
_FAST = "centre_scales: [0.5], later_scales: [0.5], later_flip: false"
_LOOSE = f"{_FEW}, tau: 0.3, mu_class: 0.5, mu_context: 0.5, context_low: 0.0"
#: Method: (overrides of the training, the localizer).
METHODS: dict[str, tuple[list[str], str]] = {
    "cam": ([], "{name: cam}"),
    "ssa": ([], "{name: ssa, signed: published}"),
    "ssa, clipped, no guidance": ([], "{name: ssa, clip_negative: true, guidance: none}"),
    "ssa, middle stages": ([], f"{{name: ssa, {_POLISH}}}"),
    "lpcam": ([], f"{{name: lpcam, {_FEW}}}"),
    "lpcam, tau .3": ([], f"{{name: lpcam, {_FEW}, tau: 0.3}}"),
    "lpcam, K 4, tau .3, mu .5": ([], f"{{name: lpcam, clusters: 4, {_LOOSE}}}"),
    "lpcam, no context": ([], f"{{name: lpcam, context: false, {_LOOSE}}}"),
    "class-conditional": ([], "{name: class_conditional}"),
    "class-conditional, split only": ([], "{name: class_conditional, iterate: false}"),
    "class-conditional, rounds only": ([], "{name: class_conditional, split: false}"),
    "class-conditional, guard .5": ([], "{name: class_conditional, guard: 0.5}"),
    "class-conditional, economy": ([], "{name: class_conditional, economy: true}"),
    "class-conditional, fast": ([], f"{{name: class_conditional, {_FAST}}}"),
    "class-conditional, rounds only, economy": ([], "{name: class_conditional, split: false, economy: true}"),
    "class-conditional on ssa": (
        [],
        f"{{name: class_conditional, split: false, economy: true, inner: {{name: ssa, {_POLISH}}}}}",
    ),
    "hspp": (["classify.head={name: hspp, dropout: DROPOUT}"], "{name: cam}"),
    "vwe + hspp": (
        ["classify.head={name: visual_words, words: 64, inner: {name: hspp, dropout: DROPOUT}}"],
        "{name: visual_words, images: 0}",
    ),
    "control": (["retrain=[{epochs: 4, optimizer: RATES}]"], "{name: cam}"),
    **{
        f"recam {weights}": (_RECAM, f"{{name: recam, class_weights: {weights}}}")
        for weights in ("w", "w2", "sum", "product", "agreement")
    },
    "lpcam + ssa": ([], f"{{name: ssa, inner: {{name: lpcam, {_FEW}}}, {_POLISH}}}"),
    "hspp + ssa": (["classify.head={name: hspp, dropout: DROPOUT}"], f"{{name: ssa, {_POLISH}}}"),
    "hspp + lpcam + ssa": (
        ["classify.head={name: hspp, dropout: DROPOUT}"],
        f"{{name: ssa, inner: {{name: lpcam, {_FEW}}}, {_POLISH}}}",
    ),
}
SPLITS = ("train", "val")
COLUMNS = ("miou", "gain", "precision", "head", "shared")


class Remembering(nn.Module):
    """A classifier that computes the same views of an image once, however many methods ask."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.seen = model, {}

    @property
    def class_weights(self) -> Tensor:
        """Of the classifier."""
        return self.model.class_weights

    @property
    def input_statistics(self) -> InputStatistics:
        """Of the classifier."""
        return self.model.input_statistics

    @property
    def head(self) -> Any:
        """Of the classifier."""
        return self.model.head

    def forward(self, views: Tensor) -> Any:
        """The output for normalised views [B, 3, h, w]."""
        key = hashlib.blake2b(views.contiguous().numpy().tobytes()).digest()
        if key not in self.seen:
            self.seen[key] = self.model(views)
        return self.seen[key]


class Score:
    """One method's maps on one split: mIoU, precision and the parts' recall at all thresholds in one pass."""

    def __init__(self, n_classes: int) -> None:
        self.sweep = ThresholdSweep(n_classes)
        self.counts = np.zeros((3, 2, len(self.sweep.bins) + 1), np.int64)  # background, head, shared; right; level

    def update(self, maps: Tensor, tags: tuple[int, ...], mask: np.ndarray, parts: np.ndarray) -> None:
        """Add one image: maps [K, H, W] of its tags, labels and parts [H, W]."""
        self.sweep.update(maps, np.array(tags) - 1, mask)
        best, which = maps.max(0)
        right = (np.array(tags)[which.numpy()] == mask).reshape(-1)
        region = np.where(parts == 0, 0, np.where(parts == HEAD, 1, 2)).reshape(-1)
        level = self.sweep.bins(best.numpy().reshape(-1))
        shape = self.counts.shape
        index = np.ravel_multi_index((region, right.astype(np.int64), level), shape)
        self.counts += np.bincount(index, minlength=self.counts.size).reshape(shape)

    def figures(self) -> dict[str, float]:
        """In percent."""
        curve = self.sweep.compute(classes="occurring")
        best = int(np.nanargmax(curve))
        found, all_ = self.counts[..., best + 1 :].sum(-1), self.counts.sum((1, 2))
        return {
            "miou": 100 * float(curve[best]),
            "precision": 100 * float(found[1:, 1].sum() / max(1, found.sum())),
            "head": 100 * float(found[1, 1] / all_[1]),
            "shared": 100 * float(found[2, 1] / all_[2]),
        }


def overrides_of(setting: str) -> list[str]:
    """Of all its knobs."""
    return [override for knob in setting.split(", ") for override in KNOBS[knob]]


def known_setting(text: str) -> str:
    """The setting, if there are such knobs."""
    if unknown := [knob for knob in text.split(", ") if knob not in KNOBS]:
        msg = f'no knob {unknown[0]!r}; a setting is one or several ("pretrained, one") of {", ".join(KNOBS)}'
        raise argparse.ArgumentTypeError(msg)
    return text


def worded(text: str, setting: list[str]) -> str:
    """An override with the words of the setting's network filled in."""
    for word, value in (PRETRAINED_WORDS if PRETRAINED in setting else SCRATCH_WORDS).items():
        text = text.replace(word, value)
    return text


def learnt(
    model: Remembering, methods: dict[str, LocalizeSettings], source: Any, engine: Engine
) -> dict[str, dict[str, dict[str, Tensor]]]:
    """What each method's parts learn from the training images, in one pass, as the localize stage does it."""
    samples, classes = list(source.split("train")), source.classes.foreground
    parts = {(name, part.name): part for name, one in methods.items() for part in one.method.parts() if part.learns}
    held = {key: part.reservoir() for key, part in parts.items()}
    chosen = {key: part.choose([sample.tags for sample in samples], len(classes)) for key, part in parts.items()}
    for index, sample in enumerate(samples):
        for key, part in parts.items():
            for number, labels in [(n, labels) for n, (other, labels) in enumerate(chosen[key]) if other == index]:
                channels = torch.tensor([label - 1 for label in labels])
                rng = np.random.default_rng([engine.seed, number])
                views, image = views_of(methods[key[0]], model.input_statistics), read_image(sample.image_path)
                with engine.autocast(), torch.inference_mode():
                    held[key].add(number, part.study(Trained(model), image, channels, views, rng))
        model.seen.clear()
    found: dict[str, dict[str, dict[str, Tensor]]] = {name: {} for name in methods}
    with torch.inference_mode():
        for (name, kind), part in parts.items():
            found[name][kind] = part.learn(Trained(model), held[name, kind], classes, engine.seed).tensors
    return found


def scored(source: Any, images: tuple[int, int]) -> Iterator[tuple[str, Sample]]:
    """Split and sample of all that is scored."""
    for split, count in zip(SPLITS, images, strict=True):
        for sample in list(source.split(split))[:count]:
            if sample.tags:
                yield split, sample


def figures(
    setting: list[str],
    training: list[str],
    methods: list[str],
    seed: int,
    folder: Path,
    base: Path,
    images: tuple[int, int],
) -> dict[str, dict[str, dict[str, float]]]:
    """method -> split -> figures, of the methods that share one training."""
    kept = folder / f"study-{images[0]}-{images[1]}.json"
    rows = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    wanted = [method for method in methods if method not in rows]
    if not wanted:
        return rows
    common = [
        f"seed={seed}",
        f"data.seed={seed}",
        "segment=null",
        *setting,
        *(worded(text, setting) for text in training),
    ]
    stage = list(load_recipe(RECIPE, common).trainings)[-1]
    quiet = LineProgress(lambda text: None)
    reuse = base if base != folder and base.exists() else None
    run = tagmask.run(RECIPE, output=folder, progress=quiet, reuse=reuse, until=stage, overrides=common)
    source = run.recipe.data.open()
    engine = Engine(run.recipe.engine, seed=seed)
    path = run.workspace.stage(stage) / "model.safetensors"
    model = Remembering(load_classifier(path, run.recipe.trainings[stage], source.classes)).requires_grad_(False)
    engine.place(model)
    settings = {
        name: load_recipe(RECIPE, [*common, f"localize={worded(METHODS[name][1], setting)}"]).localize
        for name in wanted
    }
    known = learnt(model, settings, source, engine)
    scores = {(name, split): Score(len(source.classes.foreground)) for name in wanted for split in SPLITS}
    for split, sample in scored(source, images):
        image, mask = read_image(sample.image_path), source.read_mask(sample)
        parts = read_part_map(sample.image_path.parent.parent, sample.id)
        for name, choice in settings.items():
            with engine.autocast():
                found = activation_maps(model, image, sample.tags, choice, learnt=known[name])
            full = MapGrids.of(found).at(mask.shape)
            scores[name, split].update(full, sample.tags, mask, parts)
        model.seen.clear()
    rows |= {name: {split: scores[name, split].figures() for split in SPLITS} for name in wanted}
    kept.write_text(json.dumps(rows), encoding="utf-8")
    return rows


def cell(rows: list[dict[str, dict[str, float]]], column: str) -> str:
    """Mean ± std, train / val."""
    values = [[row[split][column] for row in rows] for split in SPLITS]
    sign = "+" if column == "gain" else ""
    return " / ".join(
        f"{statistics.fmean(found):{sign}.1f}" + (f" ± {statistics.stdev(found):.1f}" if len(found) > 1 else "")
        for found in values
    )


def study(setting: str, methods: list[str], seeds: list[int], output: Path, images: tuple[int, int]) -> None:
    """Print the rows of one setting."""
    rows: dict[str, list[dict[str, dict[str, float]]]] = {}
    for seed in seeds:
        found: dict[str, dict[str, dict[str, float]]] = {}
        groups: dict[tuple[str, ...], list[str]] = {(): ["cam"]}
        for method in methods:
            group = groups.setdefault(tuple(METHODS[method][0]), [])
            group += [method] if method not in group else []
        base = output / f"{setting} seed{seed}".replace(",", "").replace(" ", "-")
        for training, group in groups.items():
            name = hashlib.blake2b(repr(training).encode(), digest_size=4).hexdigest()
            folder = base.with_name(f"{base.name}-{name}") if training else base
            found |= figures(overrides_of(setting), list(training), group, seed, folder, base, images)
        for method in dict.fromkeys(["cam", *methods]):
            row = found[method]
            plain = found["cam"]
            rows.setdefault(method, []).append(
                {split: {**row[split], "gain": row[split]["miou"] - plain[split]["miou"]} for split in SPLITS}
            )
    for method, values in rows.items():
        print(f"| {setting} | {method} | " + " | ".join(cell(values, column) for column in COLUMNS) + " |", flush=True)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="+", default=["default"], type=known_setting, metavar="SETTING")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--images", type=int, nargs=2, default=[120, 80], metavar=("TRAIN", "VAL"))
    parser.add_argument("--output", type=Path, default=Path("runs/partsworld-study"))
    options = parser.parse_args()
    print("| setting | method | " + " | ".join(COLUMNS) + " |")
    print("|---" * (len(COLUMNS) + 2) + "|")
    for setting in options.settings:
        study(setting, options.methods, options.seeds, options.output, tuple(options.images))


if __name__ == "__main__":
    main()
