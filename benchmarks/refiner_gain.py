"""What refiners gain: mIoU of refined maps at their best threshold against that of the maps themselves, over seeds.

    python benchmarks/refiner_gain.py RUN [RUN ...] --chain "[pamr]" [--chain ...] [--learnt RUN ...] [--every 3]

RUNs are runs of one recipe that differ in their seed, done up to localize. Each ``--chain`` is a list of refiners of
maps as in a recipe, without the threshold; it is applied to the stored maps and nothing is kept. ``--learnt`` are
runs done up to refine, whose refiner learnt (several seeds of one name make one row). Figures are void ignored / void
as background, mean +- standard deviation over seeds, in percent. Ground truth is used here only to measure.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from tagmask.functional import upsample_maps
from tagmask.metrics import ThresholdSweep
from tagmask.metrics.counting import VOID_RULES
from tagmask.ops.map_grids import MapGrids
from tagmask.registry.validation import build_method
from tagmask.runs.run import Run, open_run
from tagmask.storage.images import read_image

SPLITS = ("train", "val")
Figures = dict[str, tuple[float, ...]]  # split -> mIoU by void rule


def chain_of(text: str) -> list[Any]:
    """Refiners of maps from a recipe's list."""
    return [build_method("refiner", item, where="--chain", base=Path()) for item in yaml.safe_load(text)]


def best_of(sweep: ThresholdSweep) -> tuple[float, ...]:
    """mIoU at the best threshold, by void rule."""
    return tuple(100 * sweep.best(classes="occurring", void=void)[1] for _, void in VOID_RULES)


def measured(run: Run, chains: list[list[Any]], every: int) -> tuple[list[Figures], list[float]]:
    """Figures of every chain on one run's maps, and its processor time in seconds per image."""
    source, workspace = run.recipe.data.open(), run.workspace
    found: list[Figures] = [{} for _ in chains]
    seconds, images = [0.0] * len(chains), 0
    for split in SPLITS:
        sweeps = [ThresholdSweep(len(source.classes.foreground), run.recipe.evaluate.thresholds) for _ in chains]
        samples = [s for s in source.split(split) if workspace.map_path(s.id).exists() and source.has_mask(s)]
        for sample in samples[::every]:
            stored, image, mask = (
                workspace.load_maps(sample.id),
                read_image(sample.image_path),
                source.read_mask(sample),
            )
            for place, chain in enumerate(chains):
                maps, start = torch.from_numpy(stored.maps), time.process_time()
                for refiner in chain:
                    maps = refiner.refine(image, maps)
                seconds[place] += time.process_time() - start
                sweeps[place].update(upsample_maps(maps, stored.image_size), stored.classes - 1, mask)
            images += 1
        for figures, sweep in zip(found, sweeps, strict=True):
            figures[split] = best_of(sweep)
    return found, [value / max(images, 1) for value in seconds]


def stored_figures(run: Run, stage: str, every: int) -> Figures:
    """The same of the maps that a stage of a run has left."""
    source, workspace, figures = run.recipe.data.open(), run.workspace, {}
    for split in SPLITS:
        sweep = ThresholdSweep(len(source.classes.foreground), run.recipe.evaluate.thresholds)
        samples = [s for s in source.split(split) if workspace.map_path(s.id, stage=stage).exists()]
        for sample in [s for s in samples if source.has_mask(s)][::every]:
            stored = workspace.load_maps(sample.id, stage=stage)
            full = MapGrids.of(stored).at(stored.image_size)
            sweep.update(full, stored.classes - 1, source.read_mask(sample))
        figures[split] = best_of(sweep)
    return figures


def cell(values: list[tuple[float, ...]], sign: str = "") -> str:
    """'mean +- std / mean +- std' over seeds."""
    parts = []
    for column in zip(*values, strict=True):
        spread = f" ± {statistics.stdev(column):.1f}" if len(column) > 1 else ""
        parts.append(f"{statistics.mean(column):{sign}.1f}{spread}")
    return " / ".join(parts)


def row(title: str, seeds: list[Figures], base: list[Figures], cost: str) -> str:
    """One row: figures, and gains paired by seed."""
    cells = [cell([figures[split] for figures in seeds]) for split in SPLITS]
    for split in SPLITS:
        pairs = zip(seeds, base, strict=True)
        gains = [tuple(a - b for a, b in zip(s[split], m[split], strict=True)) for s, m in pairs]
        cells.append(cell(gains, "+"))
    return "| " + " | ".join([title, *cells, cost]) + " |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, help="runs of one recipe with different seeds")
    parser.add_argument("--chain", action="append", default=[], help="refiners as in a recipe, without the threshold")
    parser.add_argument(
        "--learnt", nargs="*", default=[], type=Path, help="runs done up to refine, whose refiner learnt"
    )
    parser.add_argument("--every", type=int, default=1, help="use every n-th image only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| refiner | train | val | gain, train | gain, val | seconds an image |")
    print("|---|---|---|---|---|---|")
    if options.runs:
        chains = [[], *(chain_of(text) for text in options.chain)]
        results = [measured(open_run(path), chains, options.every) for path in options.runs]
        base = [found[0] for found, _ in results]
        for place, title in enumerate(["none", *options.chain]):
            cost = statistics.mean(seconds[place] for _, seconds in results)
            print(row(f"`{title}`", [found[place] for found, _ in results], base, f"{cost:.2f}"), flush=True)
    named: dict[str, list[Run]] = {}
    for run in map(open_run, options.learnt):
        named.setdefault(run.recipe.name, []).append(run)
    for name, seeds in named.items():
        refined, plain = ([stored_figures(run, key, options.every) for run in seeds] for key in ("refine", "localize"))
        print(row(f"`{name}`", refined, plain, ""), flush=True)


if __name__ == "__main__":
    main()
