"""How far the threshold chosen without masks is from the best one: mIoU lost, on the training images of finished runs.

    python benchmarks/threshold_choice.py RUN [RUN ...]

For each run: its activation maps and its refined maps, each as they are and rescaled by a square root and a square (a
statistic that depends on the scale of the maps would fail there). Ground truth is used here only to measure the loss.
"""

from __future__ import annotations

import argparse

import torch

from tagmask.functional import AutoThreshold, upsample_maps
from tagmask.methods.threshold.automatic import outline_guide
from tagmask.metrics import ThresholdSweep
from tagmask.metrics.counting import Void
from tagmask.ops.transforms import resize_image
from tagmask.runs.run import Run, open_run
from tagmask.storage.images import read_image

EXPONENTS = (1.0, 0.5, 2.0)
RULES: tuple[Void, ...] = ("ignored", "background")


def losses(run: Run, stage: str) -> list[str]:
    """One row per exponent: chosen and best threshold, mIoU at both, loss by void rule."""
    source, workspace = run.recipe.data.open(), run.workspace
    samples = [
        s for s in source.split("train") if workspace.map_path(s.id, stage=stage).exists() and source.has_mask(s)
    ]
    if not samples:
        return []
    choices = {exponent: AutoThreshold() for exponent in EXPONENTS}
    sweeps = {exponent: ThresholdSweep(len(source.classes.foreground), 100) for exponent in EXPONENTS}
    for sample in samples:
        stored = workspace.load_maps(sample.id, stage=stage)
        maps = torch.from_numpy(stored.maps)
        small = resize_image(read_image(sample.image_path), (maps.shape[1], maps.shape[2]))
        mask = source.read_mask(sample)
        for exponent in EXPONENTS:
            changed = maps**exponent
            guide = outline_guide(changed, small) if stage == "localize" else None
            choices[exponent].update(small, changed, guide=guide)
            sweeps[exponent].update(upsample_maps(changed, stored.image_size), stored.classes - 1, mask)
    rows = []
    for exponent in EXPONENTS:
        chosen = choices[exponent].choose()
        cells = [f"{run.path.name}", stage, f"{exponent:g}", f"{chosen:.2f}"]
        for rule in RULES:
            curve = sweeps[exponent].compute(classes="occurring", void=rule)
            at_chosen = curve[abs(sweeps[exponent].thresholds - chosen).argmin()]
            best, highest = sweeps[exponent].best(classes="occurring", void=rule)
            cells.append(f"{100 * highest:.1f} at {best:.2f}, lost {100 * (highest - at_chosen):.1f}")
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", help="finished run directories")
    options = parser.parse_args()
    print("| run | maps | exponent | chosen | best, void ignored | best, void = background |")
    print("|---|---|---|---|---|---|")
    for path in options.runs:
        for stage in ("localize", "refine"):
            for row in losses(open_run(path), stage):
                print(row, flush=True)


if __name__ == "__main__":
    main()
