"""When does which method help? PartsWorld under its knobs (docs/partsworld-study.md).

    python benchmarks/partsworld_study.py [--settings default large ...] [--methods lpcam ssa ...] [--seeds 0 1 2]

A setting is a list of overrides of ``recipes/demo.yaml``; so is a method. A seed draws the data and trains the network;
the classifier is trained once a setting and seed and shared by all methods that do not train one of their own. Prints,
for each setting and method, mean ± std over the seeds: best-threshold mIoU on train and val (no pixel is void in
PartsWorld), the gain over plain CAM seed by seed, and on val the precision and the recall of unique (head) and shared
parts, all at the method's own best threshold.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import tagmask
from partsworld_properties import part_recall
from tagmask.progress import LineProgress

SETTINGS: dict[str, list[str]] = {
    "default": [],
    "large objects": ["data.object_length=[0.75, 1.0]"],
    "small objects": ["data.object_length=[0.25, 0.5]"],
    "many objects": ["data.objects=[0.0, 0.3, 0.7]"],
    "one object": ["data.objects=[1.0, 0.0, 0.0]"],
    "many large objects": ["data.objects=[0.0, 0.3, 0.7]", "data.object_length=[0.75, 1.0]"],
    "no sharing": ["data.sharing=0.0"],
    "half sharing": ["data.sharing=0.5"],
    "no clutter": ["data.clutter=0.0"],
    "no context": ["data.context=0.0", "data.context_without=0.0"],
    "large, one, no clutter": [
        "data.object_length=[0.75, 1.0]",
        "data.objects=[1.0, 0.0, 0.0]",
        "data.clutter=0.0",
    ],
}
_RETRAIN = "optimizer: {kind: adamw, lr: 4.0e-4, head_lr: 2.0e-3, schedule: poly, warmup_steps: 20}"
METHODS: dict[str, list[str]] = {
    "cam": [],
    "lpcam": ["localize.name=lpcam"],
    "lpcam, tau .5, mu .5": [
        "localize.name=lpcam",
        "localize.clusters=4",
        "localize.tau=0.5",
        "localize.mu_class=0.5",
        "localize.mu_context=0.5",
        "localize.context_low=0.0",
    ],
    "ssa": ["localize.name=ssa"],
    "ssa, clipped, no guidance": ["localize.name=ssa", "localize.clip_negative=true", "localize.guidance=none"],
    "class-conditional": ["localize.name=class_conditional"],
    "class-conditional, guarded": ["localize.name=class_conditional", "localize.guard=0.5"],
    "hspp": ["classify.head={name: hspp}"],
    "hspp + lpcam + ssa": [
        "classify.head={name: hspp}",
        "localize={name: ssa, seed: lpcam, clip_negative: true, guidance: none, scales: [1.0, 1.5, 2.0]}",
    ],
    "vwe + hspp": ["classify.head={name: visual_words, words: 64, inner: hspp}", "localize.name=visual_words"],
    "control": [f"retrain=[{{epochs: 4, {_RETRAIN}}}]"],
    "recam": [
        f"retrain=[{{head: {{name: recam, inner: gap}}, epochs: 4, {_RETRAIN}}}]",
        "localize.name=recam",
        "localize.class_weights=w2",
    ],
}
COLUMNS = ("train", "val", "gain train", "gain val", "precision", "recall head", "recall shared")


def figures(setting: str, method: str, seed: int, output: Path, base: Path | None) -> tuple[Path, dict[str, float]]:
    """One run up to its maps' scores; in percent."""
    name = f"{setting} {method} seed{seed}".replace(",", "").replace(" ", "-").replace("+", "and")
    run = tagmask.run(
        "recipes/demo.yaml",
        output=output / name,
        progress=LineProgress(lambda text: None),
        reuse=base,
        overrides=[
            f"seed={seed}",
            f"data.seed={seed}",
            "segment=null",
            "refine=[{name: threshold, value: 0.3}]",
            *SETTINGS[setting],
            *METHODS[method],
        ],
    )
    kept = run.path / "study.json"
    if kept.exists():
        return run.path, json.loads(kept.read_text(encoding="utf-8"))
    found = {split: run.metrics["splits"][split]["maps"]["void_ignored"] for split in ("train", "val")}
    parts = part_recall(run, found["val"]["threshold"])
    row = {split: 100 * scores["miou"] for split, scores in found.items()}
    row |= {key: 100 * parts[key] for key in ("precision", "recall head", "recall shared")}
    kept.write_text(json.dumps(row), encoding="utf-8")
    return run.path, row


def cell(values: list[float]) -> str:
    """Mean ± std."""
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread}"


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=Path("runs/partsworld-study"))
    options = parser.parse_args()
    print("| setting | method | " + " | ".join(COLUMNS) + " |")
    print("|---" * (len(COLUMNS) + 2) + "|")
    for setting in options.settings:
        rows: dict[str, list[dict[str, float]]] = {}
        for seed in options.seeds:
            base, plain = figures(setting, "cam", seed, options.output, None)
            for method in dict.fromkeys(["cam", *options.methods]):
                row = plain if method == "cam" else figures(setting, method, seed, options.output, base)[1]
                gains = {f"gain {split}": row[split] - plain[split] for split in ("train", "val")}
                rows.setdefault(method, []).append({**row, **gains})
        for method, found in rows.items():
            cells = [cell([row[column] for row in found]) for column in COLUMNS]
            print(f"| {setting} | {method} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
