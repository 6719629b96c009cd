"""Binary against softmax cross entropy on look-alike classes, after ReCAM's toy experiment (CVPR 2022, section 3).

    python benchmarks/softmax_study.py RUN [RUN ...] [--classes cow,sheep,dog] [--group 5] [--figure FILE.svg]

For each run (classify done): the pooled features of the training images with exactly one tag, from the run's trained
backbone, or with --pretrained from the weights it started from. On them a linear layer without bias learns a few
classes twice, from zero, by gradient descent on all images at once and at the same rate: by binary cross entropy
(summed over the classes: the published mean over C only divides the rate) and by softmax cross entropy. While it
learns, the gradients of each image's loss on its logits are recorded: of the target, 1 - p(target), and of the most
confusing class, p(it), where that is the wrong class with the largest logit and p is sigmoid or softmax. The table
has 'target / most confusing', means over images and runs, and how the two correlate over the images.

The classes are those whose mean features look most alike, and for contrast those that look least alike (groups of
--group classes with at least --least images each; found in the first run of a recipe, kept for the others).
"""

from __future__ import annotations

import argparse
import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tagmask.experiments.rescore import Run
from tagmask.models.classifier import Classifier, build_classifier, load_classifier
from tagmask.ops.transforms import normalise
from tagmask.report.svg import HEIGHT, WIDTH, Series, line_chart
from tagmask.runs.run import open_run
from tagmask.storage.images import read_image
from tagmask.types import Sample

LOSSES = ("binary", "softmax")
RATE, STEPS = 2.0, 3000
SHOWN = (1, 10, 100, 1000, 3000)
STYLE = (
    "svg{font:11px sans-serif;color-scheme:light}text{fill:#444}.grid{stroke:#ddd}.base{stroke:#888}"
    "polyline{fill:none;stroke-width:2}.title{font-weight:bold;font-size:13px;fill:#222}"
)
DASHED = ' stroke-dasharray="5 4"'
COLOURS = {"binary": "#c2410c", "softmax": "#1d4ed8"}


@dataclass
class Study:
    """One loss on one group of classes, per step: the mean gradients, their correlation over the images, and the
    accuracy on held-out images.
    """

    target: np.ndarray
    confusing: np.ndarray
    coupling: np.ndarray
    accuracy: np.ndarray


def pooled(model: Classifier, samples: Iterable[Sample]) -> tuple[Tensor, Tensor]:
    """Mean features [N, D] and tags [N] of the images with one tag."""
    features, tags = [], []
    for sample in samples:
        if len(sample.tags) == 1:
            with torch.inference_mode():
                view = normalise(read_image(sample.image_path), model.input_statistics)[None]
                features.append(model(view).features.float().mean((2, 3))[0])
            tags.append(sample.tags[0] - 1)
    return torch.stack(features), torch.tensor(tags)


def classifier(run: Run, *, pretrained: bool) -> Classifier:
    """The run's trained classifier, or the one it started from."""
    classes = run.recipe.data.open().classes
    if pretrained:
        return build_classifier(run.recipe.classify, len(classes.foreground)).eval()
    stage, settings = list(run.recipe.trainings.items())[-1]
    return load_classifier(run.workspace.stage(stage) / "model.safetensors", settings, classes)


def groups(features: Tensor, tags: Tensor, size: int, least: int) -> dict[str, tuple[int, ...]]:
    """The ``size`` classes whose mean features look most and least alike (cosine, less the mean of all classes)."""
    known = [label for label in tags.unique().tolist() if (tags == label).sum() >= least]
    means = torch.stack([features[tags == label].mean(0) for label in known])
    alike = functional.normalize(means - means.mean(0)) @ functional.normalize(means - means.mean(0)).T
    chosen = list(itertools.combinations(range(len(known)), min(size, len(known))))
    likeness = [float(alike[list(pick)][:, list(pick)].sum()) for pick in chosen]
    order = np.argsort(likeness)
    return {
        "look alike": tuple(known[i] for i in chosen[order[-1]]),
        "look different": tuple(known[i] for i in chosen[order[0]]),
    }


def of_group(features: Tensor, tags: Tensor, group: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Features and places in the group of the images of its classes."""
    place = {label: index for index, label in enumerate(group)}
    rows = torch.tensor([int(tag) in place for tag in tags])
    return features[rows], torch.tensor([place[int(tag)] for tag in tags[rows]])


def study(train: tuple[Tensor, Tensor], held_out: tuple[Tensor, Tensor], n_classes: int, loss: str) -> Study:
    """Learn by one loss and look at the gradients on the way."""
    (x, y), (x_val, y_val) = train, held_out
    scale = x.norm(dim=1).mean()
    x, x_val = x / scale, x_val / scale
    weights = torch.zeros(n_classes, x.shape[1])
    target, record = functional.one_hot(y, n_classes).float(), np.zeros((4, STEPS))
    for step in range(STEPS):
        logits = x @ weights.T
        p = logits.sigmoid() if loss == "binary" else logits.softmax(1)
        confusing = logits.masked_fill(target.bool(), -torch.inf).argmax(1, keepdim=True)
        right = (x_val @ weights.T).argmax(1) == y_val
        pull, push = 1 - (p * target).sum(1), p.gather(1, confusing)[:, 0]
        coupling = torch.corrcoef(torch.stack([pull, push]))[0, 1] if step else torch.nan  # all equal before step 1
        record[:, step] = pull.mean(), push.mean(), coupling, right.float().mean()
        weights -= RATE * (p - target).T @ x / len(x)  # both losses have the gradient p - target
    return Study(*record)


def chart(title: str, studies: dict[str, list[Study]]) -> str:
    """The four curves of one group, mean over runs."""
    steps = np.unique(np.geomspace(1, STEPS, 80).astype(int))
    series = [
        Series(
            f"{loss}: {what}",
            np.log10(steps).tolist(),
            np.mean([getattr(one, part)[steps - 1] for one in studies[loss]], axis=0).tolist(),
            COLOURS[loss],
            dashed=part == "confusing",
        )
        for loss in LOSSES
        for part, what in (("target", "target"), ("confusing", "most confusing class"))
    ]
    ticks = [(float(np.log10(step)), f"{step:,}") for step in (1, 10, 100, 1000)]
    svg = line_chart(
        series, label=title, x_label="step", y_label="gradient on the logit", x_ticks=ticks, digits=3, hover=False
    )
    sized = svg.replace("<svg", f'<svg width="{WIDTH}" height="{HEIGHT}"', 1)
    return f'<text class="title" x="40" y="16">{escape(title)}</text><g transform="translate(0 22)">{sized}</g>'


def figure(charts: Sequence[str], columns: int = 2) -> str:
    """All charts in one SVG with one legend."""
    rows = -(-len(charts) // columns)
    width, height = columns * WIDTH, rows * (HEIGHT + 30) + 24
    legend = [
        f'<line x1="{10 + 178 * i}" x2="{32 + 178 * i}" y1="12" y2="12" stroke="{COLOURS[loss]}" stroke-width="2"'
        f'{DASHED if dashed else ""}/><text x="{36 + 178 * i}" y="16">{loss}: {what}</text>'
        for i, (loss, what, dashed) in enumerate(
            (loss, what, dashed) for loss in LOSSES for what, dashed in (("target", False), ("most confusing", True))
        )
    ]
    cells = [
        f'<g transform="translate({(i % columns) * WIDTH} {24 + (i // columns) * (HEIGHT + 30)})">{one}</g>'
        for i, one in enumerate(charts)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f'<style>{STYLE}</style><rect width="100%" height="100%" fill="white"/>{"".join(legend + cells)}</svg>\n'
    )


def print_table(name: str, studies: dict[str, list[Study]]) -> None:
    """Gradients at some steps, and the accuracy at the end, mean over runs."""
    for loss, each in studies.items():
        cells = []
        for step in SHOWN:
            target = np.mean([one.target[step - 1] for one in each])
            confusing = np.mean([one.confusing[step - 1] for one in each])
            cells.append(f"{target:.3f} / {confusing:.3f}")
        coupling = np.mean([one.coupling[SHOWN[2] - 1] for one in each])
        accuracy = [100 * np.mean([one.accuracy[step - 1] for one in each]) for step in (SHOWN[1], SHOWN[-1])]
        print(f"| {name} | {loss} | {' | '.join(cells)} | {coupling:.2f} | {accuracy[0]:.1f} / {accuracy[1]:.1f} |")


def main() -> None:
    """Learn, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--classes", help="names, by commas, instead of the look-alikes found (one data set only)")
    parser.add_argument("--group", type=int, default=4)
    parser.add_argument("--least", type=int, default=5)
    parser.add_argument("--pretrained", action="store_true")
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    chosen: dict[str, dict[str, tuple[int, ...]]] = {}
    found: dict[str, dict[str, list[Study]]] = defaultdict(lambda: {loss: [] for loss in LOSSES})
    for path in options.runs:
        run = open_run(path)
        source, recipe = run.recipe.data.open(), run.recipe.name
        model = classifier(run, pretrained=options.pretrained)
        train, val = (pooled(model, source.split(split)) for split in ("train", "val"))
        if recipe not in chosen:
            chosen[recipe] = groups(*train, options.group, options.least)
            if options.classes:
                labels = tuple(source.classes.label(name) - 1 for name in options.classes.split(","))
                chosen[recipe]["look alike"] = labels
            for kind, group in chosen[recipe].items():
                names = ", ".join(source.classes.foreground[label] for label in group)
                counts = [len(of_group(*split, group)[0]) for split in (train, val)]
                print(f"{recipe}, classes that {kind}: {names} ({counts[0]} training images, {counts[1]} held out)")
        for kind, group in chosen[recipe].items():
            for loss in LOSSES:
                one = study(of_group(*train, group), of_group(*val, group), len(group), loss)
                found[f"{recipe}, {kind}"][loss].append(one)
    steps = " | ".join(f"step {step:,}" for step in SHOWN)
    held_out = f"held-out accuracy, step {SHOWN[1]} / {SHOWN[-1]:,}"
    print(f"\n| recipe, classes | loss | {steps} | correlation, step {SHOWN[2]} | {held_out} |")
    print("|---" * (4 + len(SHOWN)) + "|")
    for name, studies in found.items():
        print_table(name, studies)
    if options.figure:
        options.figure.write_text(figure([chart(name, studies) for name, studies in found.items()]), encoding="utf-8")
        print(f"\ndrawn: {options.figure}")


if __name__ == "__main__":
    main()
