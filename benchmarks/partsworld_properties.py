"""The measured properties of PartsWorld (docs/partsworld.md): runs the demo recipe over seeds and looks at parts.

    python benchmarks/partsworld_properties.py [--seeds 0 1 2] [--output runs/partsworld] [key=value ...]

A seed draws the data and trains the networks. Prints one row per seed and mean ± std: tag mAP, plain CAM at its best
threshold on val, its recall on the unique part (head) and on the shared parts (body, limbs, tail), its precision,
and the segmentation network from tags and under full supervision.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import tagmask
from tagmask.data.partsworld.source import read_part_map
from tagmask.functional import maps_to_labels
from tagmask.ops.map_grids import MapGrids
from tagmask.progress.listeners import LineProgress

HEAD = 1
COLUMNS = ("tag mAP", "CAM", "recall head", "recall shared", "ratio", "precision", "masks", "segment", "full", "gain")


def part_recall(run: tagmask.Run, threshold: float) -> dict[str, float]:
    """Recall of plain CAM on head and shared pixels of val, and its foreground precision, at one threshold."""
    source = run.recipe.data.open()
    hit, total, right, predicted = np.zeros(2), np.zeros(2), 0, 0
    for sample in source.split("val"):
        mask = source.read_mask(sample)
        parts = read_part_map(sample.image_path.parent.parent, sample.id)
        stored = run.workspace.load_maps(sample.id)
        full = MapGrids.of(stored).at(stored.image_size)
        labels = maps_to_labels(full, stored.classes, threshold)
        correct = (labels == mask) & (mask > 0)
        for row, region in enumerate((parts == HEAD, parts > HEAD)):
            hit[row] += (correct & region).sum()
            total[row] += region.sum()
        right += correct.sum()
        predicted += (labels > 0).sum()
    head, shared = hit / total
    return {"recall head": head, "recall shared": shared, "ratio": head / shared, "precision": right / predicted}


def properties(recipe: str, seed: int, output: Path, overrides: list[str]) -> dict[str, float]:
    """All figures of one seed."""
    run = tagmask.run(
        recipe,
        output=output / f"seed{seed}",
        progress=LineProgress(print),
        overrides=[f"seed={seed}", f"data.seed={seed}", "segment.supervision=both", *overrides],
    )
    val = {key: rules["void_ignored"] for key, rules in run.metrics["splits"]["val"].items()}
    cam = val["maps"]
    recall = part_recall(run, cam["threshold"])
    percent = {key: 100 * value for key, value in recall.items() if key != "ratio"}
    return {
        "tag mAP": 100 * run.metrics["tags"]["map"],
        "CAM": 100 * cam["miou"],
        **percent,
        "ratio": recall["ratio"],
        "masks": 100 * val["pseudo_masks"]["miou"],
        "segment": 100 * val["segmentation"]["miou"],
        "full": 100 * val["segmentation_full"]["miou"],
        "gain": 100 * (val["segmentation"]["miou"] - cam["miou"]),
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="recipes/demo.yaml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=Path("runs/partsworld"))
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    rows = [properties(options.recipe, seed, options.output, options.overrides) for seed in options.seeds]
    print("| seed | " + " | ".join(COLUMNS) + " |")
    print("|---" * (len(COLUMNS) + 1) + "|")
    for seed, row in zip(options.seeds, rows, strict=True):
        print(f"| {seed} | " + " | ".join(f"{row[column]:.2f}" for column in COLUMNS) + " |")
    table = np.array([[row[column] for column in COLUMNS] for row in rows])
    deviation = table.std(axis=0, ddof=1) if len(rows) > 1 else np.zeros(len(COLUMNS))
    cells = [f"{mean:.1f} ± {std:.1f}" for mean, std in zip(table.mean(axis=0), deviation, strict=True)]
    print("| mean ± std | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
